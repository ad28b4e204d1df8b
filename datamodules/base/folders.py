"""Folders of pictures as people have them: which pictures there are, their splits and their classes."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["SUFFIXES", "FolderLayout", "picture_names", "readable"]

SUFFIXES = {".avif", ".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
SPLIT_FOLDERS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
BESIDE = "beside"  # no folder of a split has this name


def picture_names(folder: Path) -> list[str]:
    """Names of all pictures in a folder and its folders, linked ones too, relative to it, in alphabetical order.

    Hidden files and folders are left out. Whether a picture can be read is not looked at.

    Args:
        folder: the folder.

    Raises:
        FileNotFoundError: there is no such folder, or no picture in it.
        PermissionError: a folder may not be read.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}: set data_dir to a folder of pictures")
    names = sorted(_walk(folder, "", {os.path.realpath(folder)}))
    if not names:
        raise FileNotFoundError(
            f"there are no pictures in {folder}: none of its files ends in {', '.join(sorted(SUFFIXES))}"
        )
    return names


def _walk(folder: Path, prefix: str, above: set[str]) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                real = os.path.realpath(entry.path)
                if real not in above and not entry.name.startswith("__"):  # not in circles, through a link upwards
                    yield from _walk(Path(entry.path), f"{prefix}{entry.name}/", above | {real})
            elif Path(entry.name).suffix.lower() in SUFFIXES:
                yield prefix + entry.name


@dataclass
class FolderLayout:
    """What the folders of pictures say.

    Attributes:
        split: the split whose folder a picture is in, or `BESIDE`; "" for all pictures if there are no such folders.
        label: the folder that is a picture's class; "" for a picture that lies beside such folders.
    """

    split: list[str]
    label: list[str]

    @classmethod
    def of(cls, names: Sequence[str]) -> FolderLayout:
        """The layout of pictures.

        The folders of the first level are splits if one of them is `train` and the others are `val` and `test`; then
        the level below gives the classes.

        Args:
            names: names of the pictures, with their folders.
        """
        parts = [name.split("/") for name in names]
        first = {part[0].lower() for part in parts if len(part) > 1}
        depth = 1 if "train" in first and first <= SPLIT_FOLDERS.keys() else 0
        return cls(
            [SPLIT_FOLDERS[part[0].lower()] if len(part) > 1 else BESIDE for part in parts]
            if depth
            else [""] * len(parts),
            [readable(part[depth]) if len(part) > depth + 1 else "" for part in parts],
        )

    @property
    def given(self) -> set[str]:
        """The splits that have a folder."""
        return {*self.split} - {"", BESIDE}

    def placed(self, folder: Path, names: Sequence[str], good: Sequence[int]) -> tuple[list[int], list[str]]:
        """Numbers of the pictures that have their place in the layout, and the classes, if there are several.

        Warns of those that lie beside the folders of the splits or of the classes, and leaves them out.

        Args:
            folder: the folder, for the warning.
            names: names of the pictures, with their folders.
            good: numbers of the pictures that can be read.
        """
        inside = [i for i in good if self.split[i] != BESIDE]
        classes = sorted({self.label[i] for i in inside} - {""})
        classes = classes if len(classes) > 1 else []
        labelled = [i for i in inside if self.label[i] or not classes]
        for before, after, what in (
            (good, inside, f"the folders {', '.join(sorted(self.given))}"),
            (inside, labelled, "the folders of classes"),
        ):
            if beside := sorted({*before} - {*after}):
                warnings.warn(
                    f"left out {len(beside)} of {len(names)} pictures in {folder} that lie beside {what}: "
                    f"{', '.join(readable(names[i]) for i in beside[:5])}{', ...' if len(beside) > 5 else ''}",
                    stacklevel=4,
                )
        return labelled, classes


def readable(name: str) -> str:
    """A name as text, also where its bytes are not UTF-8.

    Args:
        name: name of a file or folder, as the system gives it.
    """
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
