"""Fixed images beside their translations."""

from __future__ import annotations

from typing import cast

import torch
from lightning.pytorch import LightningModule, Trainer
from PIL import Image, ImageDraw
from torch import Tensor

from zoo.callbacks import base
from zoo.callbacks.drawing import DrawingCallback, fixed_batch

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
    width = tiles.shape[-1] + 2
    draw = ImageDraw.Draw(picture)
    heads = [_lines(draw, name, width) for name in columns]
    height = 3 + 11 * max(map(len, heads))
    headed = Image.new("RGB", (picture.width, picture.height + height), "white")
    headed.paste(picture, (0, height))
    draw = ImageDraw.Draw(headed)
    for i, lines in enumerate(heads):
        draw.multiline_text((2 + i * width, 2), "\n".join(lines), fill="black", spacing=1)
    return headed


def _lines(draw: ImageDraw.ImageDraw, name: str, width: int) -> list[str]:
    """A name in lines that are no wider than its column; words that are wider by themselves are cut."""
    lines: list[str] = []
    for word in name.split():
        while word and draw.textlength(word) > width:
            word = word[:-1]
        if lines and draw.textlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines
