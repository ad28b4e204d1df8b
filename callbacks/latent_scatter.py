"""Codes of validation images as points in the plane."""

from __future__ import annotations

from typing import cast

import torch
from lightning.pytorch import LightningModule, Trainer

from zoo.callbacks import base
from zoo.callbacks.base.drawing import FixedBatchCallback
from zoo.engine.plane import plot

__all__ = ["LatentScatter"]

CHUNK = 250  # images that are encoded at once


class LatentScatter(FixedBatchCallback):
    """Codes of fixed validation images as points, colored by label: `samples/scatter-*.png`.

    Codes of more than two dimensions are shown by their first two principal components.

    Args:
        every_n_steps: steps between pictures; None draws at the end only.
        num_images: points.
        limit: both axes go from -limit to limit, so that the pictures of a run can be compared; by default each picture
            shows all its points.
        seed: seed of what the model draws.

    Raises:
        ValueError: a number is too small.
        TypeError: at the start of a fit, if the model cannot encode or the data has no fixed subset.
    """

    needs = base.Encodes

    def __init__(
        self,
        every_n_steps: int | None = None,
        *,
        num_images: int = 2000,
        limit: float | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(every_n_steps, num_images=num_images, split="val", seed=seed)
        self.limit = limit

    def draw(self, trainer: Trainer, model: LightningModule, step: int) -> None:
        """Draw the plot."""
        with base.evaluating(model, self.seed):
            batch = self.fixed_batch(trainer, model)
            codes = torch.cat([cast(base.Encodes, model).encode(part) for part in batch["image"].split(CHUNK)])
        label = batch["label"].cpu() if "label" in batch else None
        names = getattr(trainer.datamodule, "class_names", {}).get("label")  # type: ignore[attr-defined]
        self.show(trainer, "scatter", plot(codes, label, names, self.limit), step)
