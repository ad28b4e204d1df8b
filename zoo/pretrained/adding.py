"""Putting checkpoints into the folder of a registry."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo.engine.files import atomic_file, write_atomically
from zoo.pretrained.registries import index

__all__ = ["add", "check_free", "check_name", "check_writable"]


def check_writable(folder: Path) -> None:
    """Make a folder, if files can be written to it.

    Args:
        folder: the folder.

    Raises:
        OSError: they cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(f"cannot write to {folder}: {error.strerror or error}; take another folder") from error


def check_name(slug: str) -> str:
    """A name that a checkpoint can have in a registry.

    Args:
        slug: the name.

    Raises:
        ValueError: it cannot.
    """
    if not re.fullmatch(r"[a-z0-9_]+(-[a-z0-9_]+)*", slug):
        raise ValueError(
            f"{slug!r} is no name of a checkpoint: take small letters, digits, - and _, as in dcgan-emoji32"
        )
    return slug


def check_free(folder: Path, slug: str, weights: str, *, force: bool = False) -> None:
    """Refuse to put other weights in the place of those that a name has.

    Args:
        folder: the registry.
        slug: the name.
        weights: sum over the new weights, as a header states it.
        force: replace them all the same.

    Raises:
        FileExistsError: the name has other weights.
    """
    held = index(folder).get(slug)
    if held is not None and held.get("sum") != weights and not force:
        raise FileExistsError(f"{folder} has other weights under the name {slug}: take another name, or --force")


def add(
    folder: Path,
    slug: str,
    entry: dict[str, Any],
    files: Mapping[str, bytes | Path],
    weights: Path,
    *,
    force: bool = False,
) -> list[Path]:
    """Put a checkpoint into the folder of a registry; processes that write at once wait for each other.

    Args:
        folder: the folder.
        slug: name of the checkpoint.
        entry: its index entry.
        files: its card, picture and full file by their names: contents, or files to be copied.
        weights: its file; one that lies in the folder under another name is renamed, one elsewhere copied.
        force: replace other weights of this name.

    Returns:
        The files written.

    Raises:
        FileExistsError: the name has other weights.
        OSError: the files cannot be written.
    """
    from filelock import FileLock

    target = folder / entry["file"]
    with FileLock(folder / ".index.lock", mode=0o666):
        check_free(folder, slug, entry["sum"], force=force)
        if weights.parent == folder:
            os.replace(weights, target)
        else:
            files = {**files, target.name: weights}
        entries = dict(sorted((index(folder) | {slug: entry}).items()))
        for name, content in files.items():
            if isinstance(content, bytes):
                write_atomically(folder / name, content)
                continue
            with atomic_file(folder / name) as file, open(content, "rb") as source:
                shutil.copyfileobj(source, file)
        write_atomically(folder / "index.json", json.dumps(entries, indent=1) + "\n")
    return [target, *(folder / name for name in files if name != target.name), folder / "index.json"]
