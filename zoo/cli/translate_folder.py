"""Folders of pictures translated by a model: any sizes, in batches of equal ones."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from tqdm import tqdm

from zoo.cli.sample_files import save_picture
from zoo.datamodules.base.folders import SUFFIXES
from zoo.datamodules.base.pictures import eight_bits
from zoo.engine.images import image_grid

__all__ = ["translate_folder"]

KINDS = tuple(sorted(SUFFIXES))
LEAST = 8  # pixels of a side that every translator takes


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
    on_error: Literal["refuse", "skip"] = "refuse",
) -> list[Path]:
    """Translate all pictures of a folder, with its folders, into PNGs of the same names in another folder.

    A picture is scaled so that its shorter side is `size`; what is missing to a multiple of the model's `multiple` is
    mirrored at the edges for the network and cut off again. Transparent pictures are laid on white.

    Args:
        model: has `translate` and `multiple`.
        source: folder of pictures; hidden files and folders in it are left out.
        out: folder to write to.
        target: name of the domain to translate to.
        size: shorter side of what is translated and written; None takes the size that the model was trained with, 0
            leaves each picture as large as it is.
        batch_size: pictures at a time, of the same size.
        force: replace files that exist.
        progress: show a progress bar.
        on_error: what to do with a picture that cannot be read: `refuse` raises before anything is written, `skip`
            names it and goes on.

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
    paths = sorted(
        path
        for path in source.rglob("*")
        if path.suffix.lower() in KINDS
        and (path.is_file() or not path.exists())  # no folder, no pipe; a broken link is a broken picture
        and out not in path.parents
        and not any(part.startswith(".") for part in path.relative_to(source).parts)
    )
    if not paths:
        raise FileNotFoundError(f"there is no picture ({', '.join(KINDS)}) in {source}")
    files = {path: out / path.relative_to(source).with_suffix(".png") for path in paths}
    for file, same in itertools.groupby(sorted(paths, key=files.__getitem__), files.__getitem__):
        if len(names := list(same)) > 1:
            raise ValueError(f"{names[0]} and {names[1]} would both become {file}: rename one")
        if file.exists() and not force:
            raise FileExistsError(f"{file} exists: take another folder, or --force")

    shapes = _by_size(paths, size, on_error)
    paths = sorted(path for same in shapes.values() for path in same)
    device = next(model.parameters()).device
    channels = model.hparams["image_channels"]
    with tqdm(total=len(paths), desc="Translating", unit="picture", disable=not progress) as bar:
        for chunk, images in _batches(shapes, channels, batch_size):
            height, width = images.shape[2:]
            sides = [max(LEAST, side + -side % model.multiple) for side in (height, width)]
            found = model.translate(_mirrored(images, *sides).to(device), target)[..., :height, :width].cpu()
            for path, image in zip(chunk, found, strict=True):
                save_picture(image_grid(image[None], 1, gap=0), files[path])
            bar.update(len(chunk))
    return [files[path] for path in paths]


def _mirrored(images: Tensor, height: int, width: int) -> Tensor:
    """Images (N, C, H, W) continued to the right and below by their mirror image, that by the image, and so on."""
    for dim, side in ((2, height), (3, width)):
        period = max(1, 2 * images.shape[dim] - 2)  # the edges come once
        place = torch.arange(side) % period
        images = images.index_select(dim, torch.minimum(place, period - place))
    return images


def _by_size(paths: list[Path], size: int, on_error: Literal["refuse", "skip"]) -> dict[tuple[int, int], list[Path]]:
    """Pictures by the width and height that they are translated in."""
    shapes: dict[tuple[int, int], list[Path]] = {}
    for path in paths:
        try:
            shape = _scaled(_open(path).size, size)
        except ValueError as error:
            if on_error == "refuse":
                raise ValueError(f"{error}: remove it, or set on_error to skip") from error
            print(f"left out: {error}")
            continue
        shapes.setdefault(shape, []).append(path)
    if not shapes:
        raise ValueError("none of the pictures can be read")
    return shapes


def _batches(
    shapes: dict[tuple[int, int], list[Path]], channels: int, batch_size: int
) -> Iterator[tuple[list[Path], Tensor]]:
    """Batches of pictures of equal size, size after size; each file is opened twice, none is kept."""
    for shape, same in shapes.items():
        for first in range(0, len(same), batch_size):
            chunk = same[first : first + batch_size]
            yield chunk, torch.stack([_read(path, shape, channels) for path in chunk])


def _open(path: Path) -> Image.Image:
    """A picture, upright, on white."""
    try:
        with Image.open(path) as opened:
            upright = eight_bits(ImageOps.exif_transpose(opened)).convert("RGBA")
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        why = f" ({error})" if isinstance(error, ValueError) else ""  # the others name the file again
        raise ValueError(f"{path} cannot be read as a picture{why}") from error
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
        image = image.resize(shape, Image.Resampling.BICUBIC)
    levels = torch.from_numpy(np.array(image)).float() / 127.5 - 1
    return levels[None] if channels == 1 else levels.permute(2, 0, 1)
