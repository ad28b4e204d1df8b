"""Text files that describe pictures: tables of attributes, tables of captions, lists."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

__all__ = ["attribute_table", "caption_table", "text_lines"]


def attribute_table(path: Path, pictures: Sequence[str]) -> tuple[list[str], Tensor]:
    """Names of the attributes in a CSV file, and their values for each picture.

    Args:
        path: a table with a head, whose first column names the pictures, with or without their folders, and whose
            further columns are attributes: 0 or -1 for no, 1 for yes.
        pictures: names of the pictures with their folders.

    Shape:
        Output: (pictures, attributes) float, 0 or 1.

    Raises:
        FileNotFoundError: there is no table.
        ValueError: the table is damaged, or a picture is missing.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no table {path}: set table to a CSV file of labels")
    names, *rows = _rows(path, "columns of attributes")
    names = [name.strip() for name in names[1:]]
    if len(set(names)) < len(names):
        raise ValueError(f"{path} has two columns of the same name")
    known: dict[str, list[float]] = {}
    for number, row in enumerate(rows, 2):
        values = [value.strip() for value in row[1:]]
        if len(values) != len(names) or not set(values) <= {"-1", "0", "1"}:
            raise ValueError(f"{path}: row {number} ({row[0]}) must have {len(names)} values 0 or 1 (or -1)")
        known[row[0].strip()] = [float(value == "1") for value in values]
    missing = [name for name in pictures if name not in known and Path(name).name not in known]
    if missing:
        raise ValueError(f"{path} has no row for {missing[0]} (and {len(missing) - 1} more pictures)")
    return names, torch.tensor([known.get(name, known.get(Path(name).name, [])) for name in pictures])


def caption_table(path: Path) -> dict[str, list[str]]:
    """Captions by picture, from a CSV file with a head, file names in the first column and captions in the others.

    Args:
        path: the table; a picture may have several rows.

    Raises:
        ValueError: the table is damaged.
    """
    _, *rows = _rows(path, "a column of captions")
    found: dict[str, list[str]] = {}
    for name, *captions in rows:
        found.setdefault(name.strip(), []).extend(caption.strip() for caption in captions if caption.strip())
    return found


def text_lines(path: Path) -> list[str]:
    """Lines of a text file that are not empty.

    Args:
        path: the file.
    """
    lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    return [line.strip() for line in lines if line.strip()]


def _rows(path: Path, columns: str) -> list[list[str]]:
    rows = [row for row in csv.reader(path.read_text(encoding="utf-8-sig").splitlines()) if row]
    if len(rows) < 2 or len(rows[0]) < 2:
        raise ValueError(f"{path} must have a head, a first column of file names and {columns}")
    return rows
