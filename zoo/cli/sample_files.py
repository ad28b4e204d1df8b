"""Samples in files: a grid, a folder of single pictures, or one array; each is whole or absent."""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib import format as npy
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from zoo.cli.local import local_path
from zoo.engine.files import atomic_file
from zoo.engine.images import image_grid, to_levels

__all__ = ["Target", "save_picture", "write_samples"]


class Target:
    """Where samples go and in which form.

    Args:
        out: a file that ends in .png or the like (a grid), in .npz, or a folder: one that exists, or that ends in a
            slash.
        form: `png` or `npz`, which makes no grid; None goes by the name.
        force: replace what exists.

    Raises:
        ValueError: the name has no known ending, or none that goes with the form.
        FileExistsError: something is there already.
        FileNotFoundError: there is no folder to put the file into.
    """

    def __init__(self, out: str, form: str | None = None, *, force: bool = False) -> None:
        self.path = local_path(out)
        self.is_folder = out.endswith(("/", os.sep)) or self.path.is_dir()
        suffix = self.path.suffix.lower()
        if form == "npz" and self.is_folder:
            self.path, self.is_folder, suffix = self.path / "samples.npz", False, ".npz"
        self.form = "npz" if suffix == ".npz" and not self.is_folder else "png" if self.is_folder else "grid"
        if form is not None and form != self.form:
            raise ValueError(f"--format {form} writes {FORMS[form]}, not {out}")
        if self.form == "grid":
            Image.init()
            if suffix not in Image.EXTENSION or Image.EXTENSION[suffix] not in Image.SAVE:
                raise ValueError(
                    f"{out} has no known ending: take .png for a grid, .npz for an array, "
                    "or end it with a slash for a folder of single pictures"
                )
        occupied = any(self.path.iterdir()) if self.path.is_dir() else self.path.exists()
        if occupied and not force:
            raise FileExistsError(f"{self.path} exists: take another --out, or --force")
        parent = self.path.absolute().parent
        if not parent.is_dir() and not (self.form == "npz" and parent == local_path(out).absolute()):
            raise FileNotFoundError(f"there is no folder {parent}: make it, or take another --out")


FORMS = {"png": "single pictures into a folder (--out folder/)", "npz": "an .npz file"}


def write_samples(
    sample: Callable[[int, int], Tensor], num: int, target: Target, *, batch_size: int = 64, columns: int = 8
) -> None:
    """Draw samples and write them.

    Args:
        sample: images (n, C, H, W) in [-1, 1] from a number and the index of the first.
        num: number of images.
        target: where they go.
        batch_size: images at a time.
        columns: images per row of a grid.
    """

    def batches() -> Iterator[Tensor]:
        with tqdm(total=num, desc="Sampling", unit="image", disable=num <= batch_size) as bar:
            for first in range(0, num, batch_size):
                images = sample(min(batch_size, num - first), first).cpu()
                yield images
                bar.update(len(images))

    if target.form == "grid":
        save_picture(image_grid(torch.cat([*batches()]), columns), target.path)
    elif target.form == "npz":
        _write_array(batches(), num, target.path)
    else:
        _write_pictures(batches(), target.path)


def save_picture(image: Image.Image, path: Path) -> None:
    """A picture in a file that is whole or absent.

    Args:
        image: the picture.
        path: the file, whose ending says its format.
    """
    Image.init()
    with atomic_file(path) as file:
        image.save(file, format=Image.EXTENSION[path.suffix.lower()])


def _write_array(batches: Iterator[Tensor], num: int, path: Path) -> None:
    """An .npz with `arr_0` (N, H, W, C) uint8, as evaluation suites read it; never more than a batch in memory."""
    with (
        atomic_file(path) as file,
        zipfile.ZipFile(file, "w") as archive,
        archive.open("arr_0.npy", "w", force_zip64=True) as entry,
    ):
        for number, images in enumerate(batches):
            levels = to_levels(images).permute(0, 2, 3, 1)
            if number == 0:
                header: dict[str, Any] = {"descr": "|u1", "fortran_order": False, "shape": (num, *levels.shape[1:])}
                npy.write_array_header_1_0(entry, header)
            entry.write(np.ascontiguousarray(levels.numpy()).tobytes())


def _write_pictures(batches: Iterator[Tensor], folder: Path) -> None:
    """PNGs 000000.png, 000001.png, ... that appear in their folder when the last one is written."""
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)  # of a command that was killed
    temporary.mkdir()
    try:
        number = 0
        for images in batches:
            for image in images:
                image_grid(image[None], 1, gap=0).save(temporary / f"{number:06d}.png")
                number += 1
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
        if not folder.exists():
            temporary.rename(folder)
        else:
            for file in sorted(temporary.iterdir()):
                file.replace(folder / file.name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
