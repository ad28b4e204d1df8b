"""Validation images, and how a model completes their upper rows."""

from __future__ import annotations

from typing import cast

import torch
from lightning.pytorch import LightningModule, Trainer

from zoo.callbacks import base
from zoo.callbacks.base.drawing import FixedBatchCallback
from zoo.engine.images import image_grid

__all__ = ["Completion"]


class Completion(FixedBatchCallback):
    """Fixed validation images, each left of several completions of its upper rows: `samples/completion-*.png`.

    Args:
        every_n_steps: steps between pictures; None draws at the end only.
        num_images: rows, an image in each.
        num_completions: completions per image.
        share: share of the image's rows that the model is given.
        seed: seed of the completions.

    Raises:
        ValueError: a number is too small, or the share does not lie between 0 and 1.
        TypeError: at the start of a fit, if the model cannot complete or the data has no fixed subset.

    References:
        van den Oord et al. 2016, figure 9.
    """

    needs = base.Completes

    def __init__(
        self,
        every_n_steps: int | None = None,
        *,
        num_images: int = 8,
        num_completions: int = 7,
        share: float = 0.5,
        seed: int = 0,
    ) -> None:
        super().__init__(every_n_steps, num_images=num_images, split="val", seed=seed)
        self.num_completions = num_completions
        self.share = share

    def draw(self, trainer: Trainer, model: LightningModule, step: int) -> None:
        """Draw each image, then its completions, row after row."""
        with base.evaluating(model, self.seed):
            images = self.fixed_batch(trainer, model)["image"]
            rows = max(1, round(self.share * images.size(2)))
            drawn = cast(base.Completes, model).completions(images[:, :, :rows], self.num_completions, seed=self.seed)
        sheet = torch.cat([images[:, None], drawn.to(images)], 1).flatten(0, 1)
        self.show(trainer, "completion", image_grid(sheet, self.num_completions + 1), step)
