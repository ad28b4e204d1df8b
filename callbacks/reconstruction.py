"""Validation images above what a model makes of them."""

from __future__ import annotations

from typing import Any, cast

import torch
from lightning.pytorch import LightningModule, Trainer

from zoo.callbacks import base
from zoo.callbacks.drawing import DrawingCallback, validation_images

__all__ = ["Reconstruction"]


class Reconstruction(DrawingCallback):
    """Fixed validation images, each above its reconstruction: `samples/reconstruction-*.png`.

    Args:
        every_n_steps: a picture after each of so many training steps, beside that at the end; None for no others.
        num_images: images.
        columns: images per row; a row of images is followed by the row of their reconstructions.
        seed: seed of what the model may draw.

    Raises:
        ValueError: a number is too small.
        TypeError: at the start of a fit, if the model cannot reconstruct or the data has no fixed subset.
    """

    needs = base.Reconstructs
    needs_data = True

    def __init__(
        self, every_n_steps: int | None = None, *, num_images: int = 32, columns: int = 16, seed: int = 0
    ) -> None:
        super().__init__(every_n_steps)
        base.check_at_least("Reconstruction", 1, num_images=num_images, columns=columns)
        self.num_images = num_images
        self.columns = columns
        self.seed = seed

    def draw(self, trainer: Trainer, model: LightningModule, step: int) -> None:
        """Rows of images and of reconstructions in turn."""
        with base.evaluating(model, self.seed):
            images, _ = validation_images(trainer, model, self.num_images)
            again = cast(Any, model).reconstruct(images)
        rows = zip(images.split(self.columns), again.split(self.columns), strict=True)
        columns = min(self.columns, len(images))
        blank = images.new_ones(columns, *images.shape[1:])
        padded = [torch.cat([row, blank[len(row) :]]) for pair in rows for row in pair]
        self.show(trainer, "reconstruction", base.grid(torch.cat(padded), columns), step)
