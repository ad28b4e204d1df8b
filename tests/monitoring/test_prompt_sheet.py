"""PromptSheet: what its pictures hold, when, and what it asks for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.monitoring.fakes import GAN, Images, Painter, pixels, trainer
from zoo.callbacks import PromptSheet

PROMPTS = ["0.5 of red", "-0.5 of red", "ΔΣ"]


def values(path: Path, top: int, columns: int) -> list[int]:
    picture = np.asarray(Image.open(path))
    return [int(picture[top + 14 + 2 + 4, 2 + 10 * k + 4, 0]) for k in range(columns)]


def test_a_row_for_each_sentence_and_a_column_for_each_noise(tmp_path: Path) -> None:
    sheet = PromptSheet(PROMPTS, 6, num_noises=3, between=("0.5", "-0.5"), steps=5)
    trainer(tmp_path, callbacks=[sheet]).fit(Painter(), datamodule=Images())
    folder = tmp_path / "samples"
    steps = (6, 12, 16)
    assert sorted(p.name for p in folder.glob("prompts*")) == [f"prompts-{step:08d}.png" for step in steps]
    for row, first in enumerate((0.5, -0.5, 0.0)):
        expected = [first, first + 0.1, first + 0.2]
        levels = pixels(torch.tensor(expected)[:, None, None, None])[:, 0, 0, 0].tolist()
        assert values(folder / "prompts-00000016.png", row * (14 + 12), 3) == levels
    way = pixels(torch.linspace(0.5, -0.5, 5)[:, None, None, None])[:, 0, 0, 0].tolist()
    assert values(folder / "between-00000016.png", 0, 5) == way


def test_bad_arguments_and_models_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one sentence"):
        PromptSheet([])
    with pytest.raises(ValueError, match="steps must be at least 2"):
        PromptSheet(PROMPTS, steps=1)
    with pytest.raises(TypeError, match="PromptSheet needs encode_text, which GAN does not have"):
        trainer(tmp_path, callbacks=[PromptSheet(PROMPTS)]).fit(GAN(), datamodule=Images())
