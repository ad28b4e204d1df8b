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
from zoo.datamodules.base.folders import FolderLayout, picture_names, readable
from zoo.datamodules.base.image_set import ImageSet
from zoo.datamodules.base.module import DataOptions, ImageDataModule
from zoo.datamodules.base.pictures import decode_all, square
from zoo.engine.files import nearest

__all__ = ["ImageFolder"]

ON_ERROR = ("refuse", "skip")


class ImageFolder(ImageDataModule):
    """Pictures of a folder and all folders in it.

    The central square of each picture is resized. Batches hold `image` (N, C, H, W) and, if the first level has more
    than one folder, `label`: the number of the folder, in alphabetical order. Pictures beside these folders are left
    out with a warning.

    If the first level is `train` (and perhaps `val` and `test`), these folders are the splits, and the level below
    gives the labels. A split that has no folder is dealt out of the training pictures by a hash of their names: by
    default 80 % training, 10 % validation, 10 % test. The split of a picture depends neither on the seed nor on the
    image size.

    Args:
        data_dir: the folder; links to folders are followed, hidden files and files other than pictures are ignored.
        image_size: side of the images; decoded once per content of the folder (names, sizes, times) and size.
        image_channels: 3 for color, 1 for gray.
        flip: mirror training images with probability 1/2, drawn anew in every epoch.
        squeeze: scale the sides of the whole picture to a square, instead of cutting out the central square.
        on_error: "refuse" stops at a file that cannot be read and names it; "skip" leaves it out with a warning.
        val_share: share of the validation split, if there is no folder for it.
        test_share: share of the test split, if there is no folder for it.
        license: SPDX expression of the pictures' license, for the card of a checkpoint that learned from them.
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
        license: str = "none stated",
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
        self.license = license
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
        layout = FolderLayout.of(names)
        placed, classes = layout.placed(self.folder, names, good)
        splits = self._deal(names, layout, placed)

        fields: dict[str, Tensor | list[str]] = {}
        if classes:
            self.class_names = {"label": classes}
            numbers = {name: i for i, name in enumerate(classes)}
            fields["label"] = torch.tensor([numbers.get(folder, -1) for folder in layout.label])
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
        return picture_names(self.folder)

    def _deal(self, names: list[str], layout: FolderLayout, placed: list[int]) -> dict[str, list[int]]:
        """Numbers of the pictures of each split."""
        splits: dict[str, list[int]] = {"train": [], "val": [], "test": []}
        for i in placed:
            splits[layout.split[i] or "train"].append(i)
        # The first pictures in the order of a hash: shares are exact, and new files move few of the old ones.
        total = len(splits["train"])
        drawn = sorted(splits["train"], key=lambda i: blake2b(_bytes(names[i]), digest_size=8).digest())
        for split, share in self.shares.items():
            if split not in layout.given:
                count = round(share * total)
                splits[split], drawn = sorted(drawn[:count]), drawn[count:]
        splits["train"] = sorted(drawn)
        return splits

    def _decoded(self, names: list[str]) -> tuple[Path, set[int]]:
        """The file of all decoded pictures, (n, C, size, size) uint8, made if missing; and the unreadable ones."""
        digest = blake2b(digest_size=8)
        for name in names:
            digest.update(_bytes(f"{name}\0{self._version(name)}\n"))
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
                raise ValueError(
                    f"none of the {len(names)} pictures in {self.folder} can be read; {readable(name)}: {error}"
                )
            warnings.warn(
                f"left out {len(errors)} of {len(names)} pictures in {self.folder} that cannot be read: "
                f"{', '.join(map(readable, list(errors)[:5]))}{', ...' if len(errors) > 5 else ''}",
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

    def _version(self, name: str) -> str:
        """What changes when a picture does; a link that leads nowhere has none."""
        try:
            status = (self.folder / name).stat()
        except OSError:
            return ""
        # Older versions of this class have decoded float TIFFs to black.
        again = "\0again" if name.lower().endswith((".tif", ".tiff")) else ""
        return f"{status.st_size}\0{status.st_mtime_ns}{again}"

    def _unreadable(self, name: str, error: str) -> str:
        return f"{self.folder / readable(name)} cannot be read ({error}): mend or remove it, or set on_error='skip'"


def _bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")
