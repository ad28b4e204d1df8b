"""Codes as points in the plane: how `zoo.engine.pictures.scatter` draws them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor

from zoo.engine.devices import double

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot", "project"]


def project(codes: Tensor) -> tuple[Tensor, list[str]]:
    """Codes in the plane, and the names of its axes.

    Two dimensions stay as they are; more are projected on the first two principal components, whose names say which
    share of the variance they have; one is set against zero.

    Shape:
        codes: (N, D); output: (N, 2).
    """
    if codes.size(1) == 1:
        return torch.cat([codes, torch.zeros_like(codes)], 1), ["z0", ""]
    if codes.size(1) == 2:
        return codes, ["z0", "z1"]
    centered = double(codes) - double(codes).mean(0)
    variances, directions = torch.linalg.eigh(centered.T @ centered)
    shares, first = variances.flip(0).clamp(min=0) / variances.sum().clamp(min=1e-30), directions.flip(1)[:, :2]
    # The sign of a component is arbitrary: its largest entry is made positive.
    first = first * first.gather(0, first.abs().argmax(0, keepdim=True)).sign()
    names = [f"principal component {i + 1} ({100 * shares[i]:.0f} % of the variance)" for i in range(2)]
    return (centered @ first).to(codes), names


def plot(
    codes: Tensor, label: Tensor | None = None, names: Sequence[str] | None = None, limit: float | None = None
) -> Image.Image:
    """The picture of `zoo.engine.pictures.scatter`, whose arguments these are, already checked."""
    # Without pyplot, which would take over the user's windows.
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = _figure(codes.float().cpu(), label, names or (), limit)
    canvas: Any = FigureCanvasAgg(figure)
    figure.draw_without_rendering()  # the first layout does not know yet that the axes are square, and cuts labels off
    canvas.draw()
    return Image.frombuffer("RGBA", canvas.get_width_height(), canvas.buffer_rgba()).convert("RGB")


def _figure(codes: Tensor, label: Tensor | None, names: Sequence[str], limit: float | None) -> Figure:
    """The plot as a figure of matplotlib."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    finite = codes.isfinite().all(1)
    points, axes_names = project(codes[finite]) if finite.any() else (codes.new_zeros(0, 2), ["", ""])
    groups = (torch.zeros(len(codes), dtype=torch.int64) if label is None else label)[finite].tolist()
    # The color of a class depends on its number, not on the other classes of the batch.
    count = len(names) or max(groups, default=0) + 1
    colors = colormaps["tab10" if count <= 10 else "gist_rainbow"]
    color = {value: colors(value % count if count <= 10 else value % count / count) for value in set(groups)}

    figure = Figure(figsize=(7, 6), dpi=100, layout="constrained")
    center, half = _window(points, limit)
    window = [(middle - half, middle + half) for middle in center]
    axes = figure.add_subplot(
        aspect="equal", xlabel=axes_names[0], ylabel=axes_names[1], xlim=window[0], ylim=window[1]
    )
    # All at once and in the subset's random order: class by class, the last class would hide the others.
    x, y = points.T.tolist()
    axes.scatter(x, y, s=6, c=[color[value] for value in groups], linewidths=0)
    if label is not None and len(color) <= 20:
        for value in sorted(color):
            name = names[value] if 0 <= value < len(names) else str(value)
            axes.scatter([], [], s=50, color=[color[value]], label=name)
        figure.legend(loc="outside right center")
    return figure


def _window(points: Tensor, limit: float | None) -> tuple[list[float], float]:
    """Center, and half the side, of the square that is shown."""
    if limit is not None or not len(points):
        return [0.0, 0.0], limit or 1.0
    low, high = points.amin(0), points.amax(0)
    return ((low + high) / 2).tolist(), 0.525 * (high - low).max().item() or 1.0
