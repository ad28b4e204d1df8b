"""Patches of fixed images next to what a model makes of them."""

from __future__ import annotations

from typing import cast

from lightning.pytorch import LightningModule, Trainer

from zoo.callbacks import base
from zoo.callbacks.base.drawing import FixedBatchCallback

__all__ = ["PatchSheet"]


class PatchSheet(FixedBatchCallback):
    """A row for each of some fixed images: its patches, the predicted mask, the image made from them, the true mask and
    the image itself: `samples/patches-*.png`.

    Args:
        every_n_steps: steps between pictures; None draws at the end only.
        num_images: rows.
        split: split of the images.
        seed: seed of the model's noise, the same for all pictures.

    Raises:
        ValueError: the number is too small, or the split is missing or empty.
        TypeError: at the start of a fit, if the model makes no images from patches, or the data holds no patches.
    """

    needs = base.Assembles
    data_needs = base.HasPatches

    def __init__(
        self, every_n_steps: int | None = None, *, num_images: int = 12, split: str = "test", seed: int = 0
    ) -> None:
        super().__init__(every_n_steps, num_images=num_images, split=split, seed=seed)

    def draw(self, trainer: Trainer, model: LightningModule, step: int) -> None:
        """Draw the sheet."""
        with base.evaluating(model, self.seed):
            batch = self.fixed_batch(trainer, model)
            image, mask = cast(base.Assembles, model).assemble(batch["patches"], seed=self.seed)
        columns = {f"patch {i + 1}": patches for i, patches in enumerate(batch["patches"].unbind(1))}
        # Masks as images: black is 0, white is 1.
        columns |= {"mask": 2 * mask - 1, "image": image, "true mask": 2 * batch["mask"] - 1, "true": batch["image"]}
        self.show(trainer, "patches", base.column_sheet(columns), step)
