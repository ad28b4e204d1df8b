"""Fixed images beside their translations."""

from __future__ import annotations

from typing import cast

import torch
from lightning.pytorch import LightningModule, Trainer
from PIL import Image, ImageDraw
from torch import Tensor

from callbacks import base
from callbacks.drawing import DrawingCallback, fixed_batch

__all__ = ["TranslationSheet", "sheet"]


class TranslationSheet(DrawingCallback):
    """A row for each of some fixed images, a column for each translation: `samples/translation-*.png`.

    What the columns are, the model says: real, translated and cycled images of both domains, or all target domains.

    Args:
        every_n_steps: a picture after each of so many training steps, beside that at the end; None for no others.
        num_images: rows.
        split: of the images.
        seed: seed of what the model may draw.

    Raises:
        ValueError: the number is too small, or the split is missing or empty.
        TypeError: at the start of a fit, if the model cannot translate or the data has no fixed subset.
    """

    needs = base.ShowsTranslations

    def __init__(
        self, every_n_steps: int | None = None, *, num_images: int = 8, split: str = "test", seed: int = 0
    ) -> None:
        super().__init__(every_n_steps)
        base.check_at_least("TranslationSheet", 1, num_images=num_images)
        self.num_images = num_images
        self.split = split
        self.seed = seed

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check the model, the data and the folder before any time is spent."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            base.require(getattr(trainer, "datamodule", None), base.HasReference, "TranslationSheet")
            with base.evaluating(pl_module, self.seed):
                fixed_batch(trainer, pl_module, self.num_images, self.split)

    def draw(self, trainer: Trainer, model: LightningModule, step: int) -> None:
        """The sheet."""
        with base.evaluating(model, self.seed):
            batch = fixed_batch(trainer, model, self.num_images, self.split)
            columns = cast(base.ShowsTranslations, model).translations(batch)
        self.show(trainer, "translation", sheet(columns), step)


def sheet(columns: dict[str, Tensor]) -> Image.Image:
    """Columns of images side by side, each under its name.

    Args:
        columns: images in [-1, 1] by name; as many in each.

    Shape:
        columns: (N, C, H, W).
    """
    tiles = torch.stack([column.float().expand(-1, 3, -1, -1).cpu() for column in columns.values()], 1)
    picture = base.grid(tiles.flatten(0, 1), len(columns))
    height, width = 14, tiles.shape[-1] + 2
    headed = Image.new("RGB", (picture.width, picture.height + height), "white")
    headed.paste(picture, (0, height))
    draw = ImageDraw.Draw(headed)
    for i, name in enumerate(columns):
        while name and draw.textlength(name) > width:  # rather cut than written over the next
            name = name[:-1]
        draw.text((2 + i * width, 2), name, fill="black")
    return headed
