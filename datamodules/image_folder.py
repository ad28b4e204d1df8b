"""Your own pictures: a folder with any tree of folders, pictures of any mode and size."""

from __future__ import annotations

import json
import os
import warnings
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal, Unpack

import numpy as np
import torch
from torch import Tensor

from zoo.datamodules.base.draws import mirrored
from zoo.datamodules.base.files import write_array
from zoo.datamodules.base.image_set import ImageSet
from zoo.datamodules.base.module import DataOptions, ImageDataModule
from zoo.datamodules.base.pictures import decode_all, square
from zoo.engine.files import nearest

__all__ = ["ImageFolder"]

SUFFIXES = {".avif", ".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
SPLIT_FOLDERS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
ON_ERROR = ("refuse", "skip")


class ImageFolder(ImageDataModule):
    """Pictures of a folder and all folders in it.

    The central square of each picture is resized. Batches hold `image` (N, C, H, W) and, if the first level has more
    than one folder, `label`: the number of the folder, in alphabetical order.

    If the first level is `train` and `test` (and perhaps `val`), these folders are the splits, and the level below
    gives the labels. Otherwise a hash of their names deals out the pictures: 80 % training, 10 % validation, 10 % test
    by default. The split of a picture depends neither on the seed nor on the image size.

    Args:
        data_dir: the folder; hidden files and files other than pictures are ignored.
        image_size: side of the images; decoded once per content of the folder (names, sizes, times) and size.
        image_channels: 3 for color, 1 for gray.
        flip: mirror training images with probability 1/2, drawn anew in every epoch.
        squeeze: scale the sides of the whole picture to a square, instead of cutting out the central square.
        on_error: "refuse" stops at a file that cannot be read and names it; "skip" leaves it out with a warning.
        val_share: share of the validation split, if there is no folder for it.
        test_share: share of the test split, if there is no folder for it.
    """

    def __init__(
        self,
        data_dir: str | os.PathLike[str],
        *,
        image_size: int = 64,
        image_channels: int = 3,
        flip: bool = False,
        squeeze: bool = False,
        on_error: Literal["refuse", "skip"] = "refuse",
        val_share: float = 0.1,
        test_share: float = 0.1,
        **options: Unpack[DataOptions],
    ) -> None:
        super().__init__(data_dir, image_size=image_size, **options)
        if image_channels not in (1, 3):
            raise ValueError(f"image_channels must be 1 or 3, not {image_channels}")
        if on_error not in ON_ERROR:
            raise ValueError(f"unknown on_error {on_error!r}: {nearest(on_error, ON_ERROR)}")
        if not (0 <= val_share < 1 and 0 <= test_share < 1 and val_share + test_share < 1):
            raise ValueError(
                f"val_share and test_share must leave something to train on, not {val_share}, {test_share}"
            )
        self.folder = Path(data_dir).expanduser().resolve()
        self.image_channels = image_channels
        self.flip = flip
        self.squeeze = squeeze
        self.on_error = on_error
        self.shares = {"val": val_share, "test": test_share}
        # Part of the cache's file names, too.
        self.name = f"{self.folder.name}{image_size}" + ("-grey" if image_channels == 1 else "")
        self.name += "-squeezed" if squeeze else ""

    def prepare_data(self) -> None:
        """Decode all pictures into the cache."""
        self._decoded(self.listing())

    def open(self) -> dict[str, ImageSet]:
        """Map the decoded pictures, and deal them out."""
        names = self.listing()
        path, unreadable = self._decoded(names)
        good = [i for i in range(len(names)) if i not in unreadable]
        parts = [Path(name).parts for name in names]
        splits = self._deal(parts, good)

        fields: dict[str, Tensor | list[str]] = {}
        # The first level of folders, or the second one if the first level is that of the splits.
        depth = 1 if _has_split_folders(parts) else 0
        folders = [part[depth] if len(part) > depth + 1 else "." for part in parts]
        classes = sorted({folders[i] for i in good})
        if len(classes) > 1:
            self.class_names = {"label": classes}
            numbers = {name: i for i, name in enumerate(classes)}
            fields["label"] = torch.tensor([numbers[folder] for folder in folders])
        array = np.load(path, mmap_mode="r")
        return {
            split: ImageSet(
                [array],
                fields,
                torch.tensor(rows, dtype=torch.long),
                mirrored if self.flip and split == "train" else None,
            )
            for split, rows in splits.items()
        }

    def listing(self) -> list[str]:
        """Names of all pictures, relative to the folder, in alphabetical order."""
        if not self.folder.is_dir():
            raise FileNotFoundError(f"there is no folder {self.folder}: set data_dir to a folder of pictures")
        names = []
        for folder, folders, files in os.walk(self.folder):
            folders[:] = [name for name in folders if not name.startswith((".", "__"))]
            names += [
                Path(folder, name).relative_to(self.folder).as_posix()
                for name in files
                if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES
            ]
        if not names:
            raise FileNotFoundError(
                f"there are no pictures in {self.folder}: none of its files ends in {', '.join(sorted(SUFFIXES))}"
            )
        return sorted(names)

    def _deal(self, parts: list[tuple[str, ...]], good: list[int]) -> dict[str, list[int]]:
        """Numbers of the pictures of each split."""
        splits: dict[str, list[int]] = {"train": [], "val": [], "test": []}
        if given := _has_split_folders(parts):
            for i in good:
                splits[SPLIT_FOLDERS[parts[i][0].lower()]].append(i)
        else:
            splits["train"] = good
        # The first pictures in the order of a hash: shares are exact, and new files move few of the old ones.
        total = len(splits["train"])
        drawn = sorted(splits["train"], key=lambda i: blake2b("/".join(parts[i]).encode(), digest_size=8).digest())
        for split, share in self.shares.items():
            if not splits[split] and not (given and split == "test"):
                count = round(share * total)
                splits[split], drawn = sorted(drawn[:count]), drawn[count:]
        splits["train"] = sorted(drawn)
        return splits

    def _decoded(self, names: list[str]) -> tuple[Path, set[int]]:
        """The file of all decoded pictures, (n, C, size, size) uint8, made if missing; and the unreadable ones."""
        digest = blake2b(digest_size=8)
        for name in names:
            status = (self.folder / name).stat()
            digest.update(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
        path = self.cache_dir / "folders" / f"{self.name}-{digest.hexdigest()}.npy"
        # Written before the images, so that no images lie there without this note.
        note = path.with_suffix(".unreadable.json")
        shape = (len(names), self.image_channels, self.image_size, self.image_size)
        write_array(path, shape, lambda out: self._decode(names, out, note))
        errors: dict[str, str] = json.loads(note.read_text())
        if errors:
            name, error = next(iter(errors.items()))
            if self.on_error == "refuse":
                raise ValueError(self._unreadable(name, error))
            if len(errors) == len(names):
                raise ValueError(f"none of the {len(names)} pictures in {self.folder} can be read; {name}: {error}")
            warnings.warn(
                f"left out {len(errors)} of {len(names)} pictures in {self.folder} that cannot be read: "
                f"{', '.join(list(errors)[:5])}{', ...' if len(errors) > 5 else ''}",
                stacklevel=2,
            )
        return path, {i for i, name in enumerate(names) if name in errors}

    def _square(self, name: str) -> np.ndarray[Any, Any]:
        """The pixels of a picture."""
        return square(self.folder / name, self.image_size, channels=self.image_channels, squeeze=self.squeeze)

    def _decode(self, names: list[str], out: np.ndarray[Any, Any], note: Path) -> None:
        errors: dict[str, str] = {}

        def failed(i: int, error: Exception) -> None:
            errors[names[i]] = " ".join(str(error).split()) or type(error).__name__
            if self.on_error == "refuse":
                raise ValueError(self._unreadable(names[i], errors[names[i]])) from error

        decode_all(
            names,
            self._square,
            out,
            description=f"Decoding {self.folder.name} at {self.image_size} px",
            failed=failed,
        )
        note.write_text(json.dumps(errors, indent=1))

    def _unreadable(self, name: str, error: str) -> str:
        return f"{self.folder / name} cannot be read ({error}): mend or remove it, or set on_error='skip'"


def _has_split_folders(parts: list[tuple[str, ...]]) -> bool:
    """Whether the first level is `train` and `test`, and perhaps `val`, and nothing else."""
    first = {part[0].lower() if len(part) > 1 else "." for part in parts}
    return {"train", "test"} <= first <= SPLIT_FOLDERS.keys()
