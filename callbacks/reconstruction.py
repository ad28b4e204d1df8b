"""Validation images above their reconstructions."""

from __future__ import annotations

from typing import cast

import torch
from lightning.pytorch import LightningModule, Trainer

from zoo.callbacks import base
from zoo.callbacks.base.drawing import FixedBatchCallback
from zoo.engine.images import image_grid

__all__ = ["Reconstruction"]


class Reconstruction(FixedBatchCallback):
    """Fixed validation images, each above its reconstruction: `samples/reconstruction-*.png`.

    Args:
        every_n_steps: steps between pictures; None draws at the end only.
        num_images: number of images.
        columns: images per row; a row of images is followed by the row of their reconstructions.
        seed: seed of what the model draws.

    Raises:
        ValueError: a number is too small.
        TypeError: at the start of a fit, if the model cannot reconstruct or the data has no fixed subset.
    """

    needs = base.Reconstructs

    def __init__(
        self, every_n_steps: int | None = None, *, num_images: int = 32, columns: int = 16, seed: int = 0
    ) -> None:
        super().__init__(every_n_steps, num_images=num_images, split="val", seed=seed)
        self.columns = columns

    def draw(self, trainer: Trainer, model: LightningModule, step: int) -> None:
        """Draw rows of images and of reconstructions in turn."""
        with base.evaluating(model, self.seed):
            images = self.fixed_batch(trainer, model)["image"]
            again = cast(base.Reconstructs, model).reconstruct(images)
        rows = zip(images.split(self.columns), again.split(self.columns), strict=True)
        columns = min(self.columns, len(images))
        blank = images.new_ones(columns, *images.shape[1:])
        padded = [torch.cat([row, blank[len(row) :]]) for pair in rows for row in pair]
        self.show(trainer, "reconstruction", image_grid(torch.cat(padded), columns), step)
