"""Patches of fixed images beside what a model makes of them."""

from __future__ import annotations

from typing import cast

from lightning.pytorch import LightningModule, Trainer

from zoo.callbacks import base
from zoo.callbacks.drawing import DrawingCallback, fixed_batch
from zoo.callbacks.translation_sheet import sheet

__all__ = ["PatchSheet"]


class PatchSheet(DrawingCallback):
    """A row for each of some fixed images: its patches, the predicted mask and the image made of them, and beside those
    the true mask and the image itself: `samples/patches-*.png`.

    Args:
        every_n_steps: a picture after each of so many training steps, beside that at the end; None for no others.
        num_images: rows.
        split: of the images.
        seed: seed of the model's noise, which each row keeps.

    Raises:
        ValueError: the number is too small, the split is missing or empty, or its batches hold no patches.
        TypeError: at the start of a fit, if the model makes no images of patches, or the data has no fixed subset.
    """

    needs = base.Assembles

    def __init__(
        self, every_n_steps: int | None = None, *, num_images: int = 12, split: str = "test", seed: int = 0
    ) -> None:
        super().__init__(every_n_steps)
        base.check_at_least("PatchSheet", 1, num_images=num_images)
        self.num_images = num_images
        self.split = split
        self.seed = seed

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check the model, the data and the folder before any time is spent."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            datamodule = getattr(trainer, "datamodule", None)
            base.require(datamodule, base.HasReference, "PatchSheet")
            base.require(datamodule, base.HasPatches, "PatchSheet")
            with base.evaluating(pl_module, self.seed):
                fixed_batch(trainer, pl_module, self.num_images, self.split)

    def draw(self, trainer: Trainer, model: LightningModule, step: int) -> None:
        """The sheet."""
        with base.evaluating(model, self.seed):
            batch = fixed_batch(trainer, model, self.num_images, self.split)
            image, mask = cast(base.Assembles, model).assemble(batch["patches"], seed=self.seed)
        columns = {f"patch {i + 1}": patches for i, patches in enumerate(batch["patches"].unbind(1))}
        # Masks as images: black is 0, white is 1.
        columns |= {"mask": 2 * mask - 1, "image": image, "true mask": 2 * batch["mask"] - 1, "true": batch["image"]}
        self.show(trainer, "patches", sheet(columns), step)
