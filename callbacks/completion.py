"""Upper parts of validation images, and how a model goes on from them."""

from __future__ import annotations

from typing import Any, cast

import torch
from lightning.pytorch import LightningModule, Trainer

from zoo.callbacks import base
from zoo.callbacks.drawing import DrawingCallback, validation_images

__all__ = ["Completion"]


class Completion(DrawingCallback):
    """Fixed validation images, each left of several completions of its upper rows: `samples/completion-*.png`.

    Args:
        every_n_steps: a picture after each of so many training steps, beside that at the end; None for no others.
        num_images: images, a row for each.
        num_completions: completions of each.
        share: share of the rows that is given.
        seed: seed of the completions.

    Raises:
        ValueError: a number is too small, or the share does not lie between 0 and 1.
        TypeError: at the start of a fit, if the model cannot complete or the data has no fixed subset.

    References:
        van den Oord et al. 2016, figure 9.
    """

    needs = base.Completes
    needs_data = True

    def __init__(
        self,
        every_n_steps: int | None = None,
        *,
        num_images: int = 8,
        num_completions: int = 7,
        share: float = 0.5,
        seed: int = 0,
    ) -> None:
        super().__init__(every_n_steps)
        base.check_at_least("Completion", 1, num_images=num_images, num_completions=num_completions)
        if not 0 < share < 1:
            raise ValueError(f"Completion: share must lie between 0 and 1, not {share}")
        self.num_images = num_images
        self.num_completions = num_completions
        self.share = share
        self.seed = seed

    def draw(self, trainer: Trainer, model: LightningModule, step: int) -> None:
        """An image, then its completions, row after row."""
        with base.evaluating(model, self.seed):
            images, _ = validation_images(trainer, model, self.num_images)
            rows = max(1, round(self.share * images.size(2)))
            drawn = cast(Any, model).completions(images[:, :, :rows], self.num_completions, seed=self.seed)
        sheet = torch.cat([images[:, None], drawn.to(images)], 1).flatten(0, 1)
        self.show(trainer, "completion", base.grid(sheet, self.num_completions + 1), step)
