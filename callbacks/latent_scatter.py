"""Codes of validation images as points in the plane."""

from __future__ import annotations

from typing import Any, cast

import torch
from lightning.pytorch import LightningModule, Trainer
from PIL import Image
from torch import Tensor

from callbacks import base
from callbacks.drawing import DrawingCallback, validation_images

__all__ = ["LatentScatter", "project"]


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
    centred = (codes - codes.mean(0)).double()
    _, values, directions = torch.linalg.svd(centred, full_matrices=False)
    # The sign of a component is arbitrary: its largest entry is made positive.
    signs = directions[:2].gather(1, directions[:2].abs().argmax(1, keepdim=True)).sign()
    shares = values.square() / values.square().sum().clamp(min=1e-30)
    names = [f"principal component {i + 1} ({100 * shares[i]:.0f} % of the variance)" for i in range(2)]
    return (centred @ (signs * directions[:2]).T).float(), names


class LatentScatter(DrawingCallback):
    """Codes of fixed validation images as points, coloured by label: `samples/scatter-*.png`.

    Codes of more than two dimensions are shown by their first two principal components.

    Args:
        every_n_steps: also after each of so many training steps; by default at the end only.
        num_images: points.
        seed: seed of what the model may draw.

    Raises:
        ValueError: a number is too small.
        TypeError: at the start of a fit, if the model cannot encode or the data has no fixed subset.
    """

    needs = base.Encodes
    needs_data = True

    def __init__(self, every_n_steps: int | None = None, *, num_images: int = 2000, seed: int = 0) -> None:
        super().__init__(every_n_steps)
        base.check_at_least("LatentScatter", 2, num_images=num_images)
        self.num_images = num_images
        self.seed = seed

    def draw(self, trainer: Trainer, model: LightningModule, step: int) -> None:
        """The plot."""
        images, label = validation_images(trainer, model, self.num_images, label=True)
        with base.evaluating(model, self.seed):
            codes = torch.cat([cast(base.Encodes, model).encode(part) for part in images.split(250)])
        names = getattr(trainer.datamodule, "class_names", {}).get("label")  # type: ignore[attr-defined]
        self.show(trainer, "scatter", plot(codes.float().cpu(), label, names), step)


def plot(codes: Tensor, label: Tensor | None = None, names: list[str] | None = None) -> Image.Image:
    """Codes as points, coloured by label.

    Args:
        codes: codes.
        label: classes.
        names: names of the classes, for the legend.

    Shape:
        codes: (N, D); label: (N,).
    """
    # Without pyplot, which would take over the user's windows.
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    points, axes_names = project(codes)
    figure = Figure(figsize=(7, 6), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot(aspect="equal", xlabel=axes_names[0], ylabel=axes_names[1])
    groups = torch.zeros(len(points), dtype=torch.int64) if label is None else label
    found = groups.unique().tolist()
    colours = colormaps["tab10" if len(found) <= 10 else "gist_rainbow"]
    for i, value in enumerate(found):
        x, y = points[groups == value].T.numpy()
        colour: Any = colours(i if len(found) <= 10 else i / len(found))
        axes.scatter(x, y, s=6, color=colour, label=names[value] if names else str(value), linewidths=0)
    if label is not None and len(found) <= 20:
        axes.legend(markerscale=3, loc="center left", bbox_to_anchor=(1, 0.5))
    cast(Any, canvas).draw()
    width, height = canvas.get_width_height()
    return Image.frombuffer("RGBA", (width, height), cast(Any, canvas).buffer_rgba()).convert("RGB")
