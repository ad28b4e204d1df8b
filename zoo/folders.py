"""Folders of pictures translated by a model: any sizes, in batches of equal ones."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from zoo.pretrained import picture

__all__ = ["translate_folder"]

KINDS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
MULTIPLE = 4  # of which the sides of a translator's images must be; of a U-Net's, its own size alone


def translate_folder(
    model: Any,
    source: Path,
    out: Path,
    target: str,
    *,
    size: int | None = None,
    batch_size: int = 16,
    force: bool = False,
    progress: bool = True,
) -> list[Path]:
    """Translate all pictures of a folder, with its folders, into PNGs of the same names in another folder.

    A picture is scaled so that its shorter side is `size`; what is missing to a multiple of four is mirrored at the
    edges for the network and cut off again. Transparent pictures are laid on white.

    Args:
        model: has `translate`.
        source: folder of pictures.
        out: folder to write to.
        target: name of the domain to translate to.
        size: shorter side of what is translated and written; None takes the size that the model was trained with, 0
            leaves each picture as large as it is.
        batch_size: pictures at a time, of the same size.
        force: replace files that exist.
        progress: show a progress bar.

    Returns:
        The files written, in the order of the pictures' names.

    Raises:
        FileNotFoundError: there is no such folder, or no picture in it.
        FileExistsError: a file to be written exists.
        ValueError: a negative size, a picture that cannot be read, or two pictures with one name.
    """
    if (size is not None and size < 0) or batch_size < 1:
        raise ValueError("size must not be negative, and batch_size must be at least 1")
    if not source.is_dir():
        raise FileNotFoundError(f"there is no folder {source}")
    size = model.hparams["image_size"] if size is None else size
    paths = sorted(p for p in source.rglob("*") if p.suffix.lower() in KINDS and out not in p.parents)
    if not paths:
        raise FileNotFoundError(f"there is no picture ({', '.join(KINDS)}) in {source}")
    files = {path: out / path.relative_to(source).with_suffix(".png") for path in paths}
    for file, same in itertools.groupby(sorted(paths, key=files.__getitem__), files.__getitem__):
        if len(names := list(same)) > 1:
            raise ValueError(f"{names[0]} and {names[1]} would both become {file}: rename one")
        if file.exists() and not force:
            raise FileExistsError(f"{file} exists: take another folder, or --force")

    device = next(model.parameters()).device
    channels = model.hparams["image_channels"]
    with tqdm(total=len(paths), desc="Translating", unit="picture", disable=not progress) as bar:
        for chunk, images in _batches(paths, size, channels, batch_size):
            height, width = images.shape[2:]
            missing = (-width % MULTIPLE, -height % MULTIPLE)
            # As far as there is something to mirror; tiny pictures repeat their edge.
            mode = "reflect" if min(height, width) > MULTIPLE else "replicate"
            padded = F.pad(images.to(device), (0, missing[0], 0, missing[1]), mode)
            found = model.translate(padded, target)[..., :height, :width].cpu()
            for path, image in zip(chunk, found, strict=True):
                files[path].parent.mkdir(parents=True, exist_ok=True)
                picture(image[None], 1, gap=0).save(files[path])
            bar.update(len(chunk))
    return [files[path] for path in paths]


def _batches(paths: list[Path], size: int, channels: int, batch_size: int) -> Iterator[tuple[list[Path], Tensor]]:
    """Pictures of one size after the other, at most so many at a time; each file is opened twice, none is kept."""
    shapes: dict[tuple[int, int], list[Path]] = {}
    for path in paths:
        shapes.setdefault(_scaled(_open(path).size, size), []).append(path)
    for shape, same in shapes.items():
        for first in range(0, len(same), batch_size):
            chunk = same[first : first + batch_size]
            yield chunk, torch.stack([_read(path, shape, channels) for path in chunk])


def _open(path: Path) -> Image.Image:
    """A picture, upright, on white."""
    try:
        with Image.open(path) as opened:
            upright = ImageOps.exif_transpose(opened).convert("RGBA")
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise ValueError(f"{path} cannot be read as a picture") from error
    return Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright)


def _scaled(shape: tuple[int, int], size: int) -> tuple[int, int]:
    """Width and height with a shorter side of `size`; unchanged for 0."""
    width, height = shape
    if not size:
        return shape
    scale = size / min(width, height)
    return max(size, round(width * scale)), max(size, round(height * scale))


def _read(path: Path, shape: tuple[int, int], channels: int) -> Tensor:
    """A picture (C, H, W) in [-1, 1]."""
    image = _open(path).convert("RGB" if channels == 3 else "L")
    if image.size != shape:
        image = image.resize(shape, Image.Resampling.LANCZOS)
    levels = torch.from_numpy(np.array(image)).float() / 127.5 - 1
    return levels[None] if channels == 1 else levels.permute(2, 0, 1)
