"""Codes of validation images as points in the plane."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from lightning.pytorch import LightningModule, Trainer
from PIL import Image
from torch import Tensor

from zoo.callbacks import base
from zoo.callbacks.drawing import CHUNK, DrawingCallback, validation_images

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["LatentScatter", "plot", "project"]


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
    centred = codes.double() - codes.double().mean(0)
    variances, directions = torch.linalg.eigh(centred.T @ centred)
    shares, first = variances.flip(0).clamp(min=0) / variances.sum().clamp(min=1e-30), directions.flip(1)[:, :2]
    # The sign of a component is arbitrary: its largest entry is made positive.
    first = first * first.gather(0, first.abs().argmax(0, keepdim=True)).sign()
    names = [f"principal component {i + 1} ({100 * shares[i]:.0f} % of the variance)" for i in range(2)]
    return (centred @ first).to(codes), names


class LatentScatter(DrawingCallback):
    """Codes of fixed validation images as points, coloured by label: `samples/scatter-*.png`.

    Codes of more than two dimensions are shown by their first two principal components.

    Args:
        every_n_steps: also after each of so many training steps; by default at the end only.
        num_images: points.
        limit: both axes go from -limit to limit, so that the pictures of a run can be laid side by side; by default
            each holds all its points.
        seed: seed of what the model may draw.

    Raises:
        ValueError: a number is too small.
        TypeError: at the start of a fit, if the model cannot encode or the data has no fixed subset.
    """

    needs = base.Encodes
    needs_data = True

    def __init__(
        self,
        every_n_steps: int | None = None,
        *,
        num_images: int = 2000,
        limit: float | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(every_n_steps)
        base.check_at_least("LatentScatter", 2, num_images=num_images)
        if limit is not None and not 0 < limit < math.inf:
            raise ValueError(f"LatentScatter: limit must be greater than 0 and finite, not {limit}")
        self.num_images = num_images
        self.limit = limit
        self.seed = seed

    def draw(self, trainer: Trainer, model: LightningModule, step: int) -> None:
        """The plot."""
        with base.evaluating(model, self.seed):
            images, label = validation_images(trainer, model, self.num_images)
            codes = torch.cat([cast(Any, model).encode(part) for part in images.split(CHUNK)])
        names = getattr(trainer.datamodule, "class_names", {}).get("label")  # type: ignore[attr-defined]
        self.show(trainer, "scatter", plot(codes, label, names, self.limit), step)


def plot(
    codes: Tensor, label: Tensor | None = None, names: Sequence[str] | None = None, limit: float | None = None
) -> Image.Image:
    """Codes as points, coloured by label; those that are not finite are left out.

    Args:
        codes: codes.
        label: classes.
        names: names of the classes, for the legend; by default their numbers.
        limit: both axes go from -limit to limit; by default they hold all points.

    Shape:
        codes: (N, D); label: (N,).
    """
    # Without pyplot, which would take over the user's windows.
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = _figure(codes.float().cpu(), label, names or (), limit)
    canvas: Any = FigureCanvasAgg(figure)
    figure.draw_without_rendering()  # the first layout does not know yet that the axes are square, and cuts labels off
    canvas.draw()
    return Image.frombuffer("RGBA", canvas.get_width_height(), canvas.buffer_rgba()).convert("RGB")


def _figure(codes: Tensor, label: Tensor | None, names: Sequence[str], limit: float | None) -> Figure:
    """The plot as matplotlib has it."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    finite = codes.isfinite().all(1)
    points, axes_names = project(codes[finite]) if finite.any() else (codes.new_zeros(0, 2), ["", ""])
    groups = (torch.zeros(len(codes), dtype=torch.int64) if label is None else label)[finite].tolist()
    # A class has its colour from its number, not from which others are there.
    count = len(names) or max(groups, default=0) + 1
    colours = colormaps["tab10" if count <= 10 else "gist_rainbow"]
    colour = {value: colours(value % count if count <= 10 else value % count / count) for value in set(groups)}

    figure = Figure(figsize=(7, 6), dpi=100, layout="constrained")
    centre, half = _window(points, limit)
    window = [(middle - half, middle + half) for middle in centre]
    axes = figure.add_subplot(
        aspect="equal", xlabel=axes_names[0], ylabel=axes_names[1], xlim=window[0], ylim=window[1]
    )
    # All at once and in the subset's random order: class by class, the last would lie over the others.
    x, y = points.T.tolist()
    axes.scatter(x, y, s=6, c=[colour[value] for value in groups], linewidths=0)
    if label is not None and len(colour) <= 20:
        for value in sorted(colour):
            name = names[value] if 0 <= value < len(names) else str(value)
            axes.scatter([], [], s=50, color=[colour[value]], label=name)
        figure.legend(loc="outside right center")
    return figure


def _window(points: Tensor, limit: float | None) -> tuple[list[float], float]:
    """Centre, and half the side, of the square that is shown."""
    if limit is not None or not len(points):
        return [0.0, 0.0], limit or 1.0
    low, high = points.amin(0), points.amax(0)
    return ((low + high) / 2).tolist(), 0.525 * (high - low).max().item() or 1.0
