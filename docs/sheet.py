"""README's picture, one row for a checkpoint: `python -m docs.sheet`.

Samples have the seeds from 0 on and translations the first pictures of the validation split: nothing is selected.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional as F

import zoo
from docs.source import ROOT
from zoo.datamodules import Emoji

__all__ = ["main", "sheet"]

COLUMNS, SIDE, TEXT, GAP = 8, 64, 210, 2
FILE = ROOT / "docs" / "assets" / "sheet.png"


def samples(model: Any) -> Tensor:
    """The first samples."""
    return torch.as_tensor(model.sample(COLUMNS, seed=0))


def categories(model: Any) -> Tensor:
    """The first code in each category of InfoGAN's first code."""
    z = model.latent(1, seed=0).expand(COLUMNS, -1)
    chosen = model.codes.choose(z[:, model.latent_dim :], torch.arange(COLUMNS))
    return torch.as_tensor(model.generate(torch.cat([z[:, : model.latent_dim], chosen], 1)))


def sentences(model: Any) -> Tensor:
    """Two people, half the pictures each."""
    texts = ["woman teacher: dark skin tone", "man astronaut: light skin tone"]
    half = COLUMNS // 2
    return torch.cat([torch.as_tensor(model.sample(half, seed=0, text=text)) for text in texts])


def vendors(model: Any) -> Tensor:
    """Pictures of one vendor, each followed by its translations."""
    x = _emoji("noto", 2)
    columns = [x, *(model.translate(x, target) for target in model.target_names if target != "noto")]
    return torch.stack(columns, 1).flatten(0, 1)[:COLUMNS]


def pairs(model: Any) -> Tensor:
    """Pictures of the first domain, each followed by its translation."""
    x = _emoji("openmoji", COLUMNS // 2)
    return torch.stack([x, model.translate(x, "noto")], 1).flatten(0, 1)


def _emoji(vendor: str, count: int) -> Tensor:
    data = Emoji(image_size=64, vendors=[vendor], fit_to_frame=True)
    data.prepare_data()
    data.setup("validate")
    images: Tensor = data.split("val").batch(torch.arange(count))["image"]
    return images


ROWS: tuple[tuple[str, str, Callable[[Any], Tensor]], ...] = (
    ("sngan-clothing64", "SNGAN", samples),
    ("sngan-emoji64", "SNGAN", samples),
    ("projection_text2image-emoji64", "Text: teacher, astronaut", sentences),
    ("sngan-fashionmnist32", "SNGAN", samples),
    ("stargan-emoji64", "StarGAN: Noto to others", vendors),
    ("cyclegan-openmoji2noto64", "CycleGAN: OpenMoji to Noto", pairs),
    ("vae-mnist28", "VAE", samples),
    ("infogan-mnist28", "InfoGAN: one category each", categories),
    ("pixelrnn-mnist28-diagonal", "PixelRNN", samples),
)


def sheet() -> Image.Image:
    """The picture."""
    step = SIDE + GAP
    picture = Image.new("RGB", (TEXT + COLUMNS * step, len(ROWS) * step), "white")
    draw = ImageDraw.Draw(picture)
    fonts = ImageFont.load_default(15), ImageFont.load_default(12)
    for row, (slug, title, make) in enumerate(ROWS):
        images = F.interpolate(make(zoo.load(slug)), size=(SIDE, SIDE), mode="nearest")
        for column, image in enumerate(images):
            picture.paste(zoo.grid(image.unsqueeze(0)).convert("RGB"), (TEXT + column * step, row * step))
        draw.text((8, row * step + 14), title, "black", fonts[0])
        draw.text((8, row * step + 36), slug, "#555", fonts[1])
    return picture


def main(path: Path = FILE) -> None:
    """Write the picture."""
    sheet().save(path, optimize=True)


if __name__ == "__main__":
    main()
