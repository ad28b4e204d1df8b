"""Fixed images next to their translations."""

from __future__ import annotations

from typing import cast

from lightning.pytorch import LightningModule, Trainer

from zoo.callbacks import base
from zoo.callbacks.base.drawing import FixedBatchCallback

__all__ = ["TranslationSheet"]


class TranslationSheet(FixedBatchCallback):
    """A row for each of some fixed images, a column for each translation: `samples/translation-*.png`.

    The model names the columns: real, translated and cycled images of both domains, or all target domains.

    Args:
        every_n_steps: steps between pictures; None draws at the end only.
        num_images: rows.
        split: split of the images.
        seed: seed of what the model draws.

    Raises:
        ValueError: a number is too small, or the split is missing or empty.
        TypeError: at the start of a fit, if the model cannot translate or the data has no fixed subset.
    """

    needs = base.ShowsTranslations

    def draw(self, trainer: Trainer, model: LightningModule, step: int) -> None:
        """Draw the sheet."""
        with base.evaluating(model, self.seed):
            batch = self.fixed_batch(trainer, model)
            columns = cast(base.ShowsTranslations, model).translations(batch)
        self.show(trainer, "translation", base.column_sheet(columns), step)
