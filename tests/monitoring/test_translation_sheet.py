"""TranslationSheet: what its pictures hold, when, and what it asks for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.monitoring.fakes import GAN, Coder, Domains, Images, pixels, trainer
from zoo.callbacks import TranslationSheet
from zoo.callbacks.base import column_sheet

HEAD = 14


class Translator(Coder):
    """Negatives; draws from global generators."""

    def translations(self, batch: Any) -> dict[str, Tensor]:
        self._waste()
        assert all(x.dtype == self.dtype for x in batch.values() if isinstance(x, Tensor))
        x = batch["image"]
        return {"real": x, "negative": -x, "again": x}


def tile(picture: np.ndarray[Any, Any], rows: int, row: int, column: int) -> np.ndarray[Any, Any]:
    """An image of 8 pixels, below names of one or more lines."""
    top, left = len(picture) - 10 * (rows - row), 2 + 10 * column
    return picture[top : top + 8, left : left + 8]


def test_a_row_for_each_image_and_a_column_for_each_translation(tmp_path: Path) -> None:
    trainer(tmp_path, callbacks=[TranslationSheet(6, num_images=5)]).fit(Translator(), datamodule=Images())
    paths = sorted((tmp_path / "samples").glob("*"))
    # Lightning counts two steps per batch of this GAN: 8 batches are 16 steps.
    assert [path.name for path in paths] == [f"translation-{step:08d}.png" for step in (6, 12, 16)]
    picture = np.asarray(Image.open(paths[-1]))
    assert picture.shape == (HEAD + 5 * 10 + 2, 3 * 10 + 2, 3)
    images = Images().image[:5]
    for row in range(5):
        for column, sign in enumerate((1, -1, 1)):
            assert np.array_equal(tile(picture, 5, row, column), pixels(sign * images)[row])


def test_both_domains_of_a_cyclegan_in_float64(tmp_path: Path) -> None:
    from zoo.cyclegan import CycleGAN

    torch.manual_seed(0)
    model = CycleGAN(8, base_channels=2, num_blocks=1, discriminator_layers=1)
    run = trainer(tmp_path, callbacks=[TranslationSheet(num_images=3)], precision="64-true", max_steps=2)
    run.fit(model, datamodule=Domains())
    picture = np.asarray(Image.open(tmp_path / "samples" / "translation-00000002.png"))
    assert picture.shape[1] == 6 * 10 + 2
    images = Domains().image[:3]
    model = model.double()
    expected = [images, model.translate(images.double(), "b"), model.reconstruct(images.double()), images / 2 - 0.5]
    for column, wanted in enumerate(expected):
        for row in range(3):
            assert np.array_equal(tile(picture, 3, row, column), pixels(wanted)[row])


def test_columns_have_their_names_and_gray_is_shown_in_color() -> None:
    gray, color = torch.zeros(2, 1, 40, 40), torch.zeros(2, 3, 40, 40)
    picture = np.asarray(column_sheet({"a": gray, "": color}))
    assert picture.shape == (HEAD + 2 * 42 + 2, 2 * 42 + 2, 3)
    assert (picture[:HEAD, :44] < 128).any(), "a name"
    assert (picture[:HEAD, 44:] == 255).all(), "none"
    long = np.asarray(column_sheet({"a name that is much longer than its column": gray, "": color}))
    assert (long[:HEAD, 45:] == 255).all(), "cut, not written over the next"


@pytest.mark.parametrize(
    ("callback", "model", "data", "message"),
    [
        (TranslationSheet(), GAN(), Images(), "TranslationSheet needs translations, which GAN does not have"),
        (TranslationSheet(), Translator(), None, "TranslationSheet needs a DataModule"),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, callback: Any, model: Any, data: Any, message: str) -> None:
    loaders = {"datamodule": data} if data else {"train_dataloaders": Images().train_dataloader()}
    with pytest.raises(TypeError, match=message):
        trainer(tmp_path, callbacks=[callback]).fit(model, **loaders)


def test_an_empty_split_and_a_bad_number(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="TranslationSheet: num_images must be at least 1, not 0"):
        TranslationSheet(num_images=0)
    with pytest.raises(ValueError, match="the test split of noise8 has no images to draw"):
        trainer(tmp_path, callbacks=[TranslationSheet()]).fit(Translator(), datamodule=Empty())


class Empty(Images):
    """Images to train on, none to look at."""

    def split(self, name: str) -> Tensor:
        return self.image[:0]


def test_names_that_are_too_long_take_further_lines() -> None:
    """At 64 pixels "openmoji again" does not fit in one; a single word that does not is cut."""
    column = torch.zeros(1, 3, 64, 64)
    short, long, wide = (column_sheet({name: column, "b": column}) for name in ("again", "openmoji again", "o" * 50))
    assert (short.height, long.height, wide.height) == (68 + 14, 68 + 25, 68 + 14)
    second = np.asarray(wide)[:14, 68:]
    assert np.array_equal(second, np.asarray(short)[:14, 68:]), "nothing is written over the next name"
