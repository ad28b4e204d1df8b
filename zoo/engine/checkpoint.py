"""Checkpoints that are whole or absent, checked before they are believed, read without pickle."""

from __future__ import annotations

import pickle
import re
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from zoo.engine.background import WRITER, host_copy
from zoo.engine.files import atomic_file

__all__ = ["AtomicCheckpointIO", "what_is_wrong"]

# What is found under the name of a checkpoint, by its first bytes.
KINDS = {
    b"version https://git-lfs": "it is a Git LFS pointer: run `git lfs pull`",
    b"<!doctype html": "it is an HTML page",
    b"<html": "it is an HTML page",
    b"<?xml": "it is an XML page",
    b"{": "it is a JSON file",
    b"\x89png": "it is a picture",
    b"\xff\xd8\xff": "it is a picture",
    b"\x1f\x8b": "it is a gzip archive",
    b"7z\xbc\xaf": "it is a 7z archive",
}


def what_is_wrong(path: str | Path) -> str | None:
    """What keeps a file from being a whole checkpoint, None if nothing does.

    torch writes a checksum (CRC-32) beside each tensor and does not look at it when it reads. Here it is compared, in
    one more pass over the file, of about a second for a gigabyte; a flipped bit would otherwise go unnoticed.

    Args:
        path: the file.
    """
    path = Path(path)
    with path.open("rb") as file:
        start = file.read(512)
    if not start:
        return "is no checkpoint: it is empty (0 bytes)"
    head = start.lstrip().lower()
    if kind := next((kind for first, kind in KINDS.items() if head.startswith(first)), None):
        return f"is no checkpoint: {kind}"
    if start[:1] == b"\x80":  # a pickle, as torch wrote before version 1.6
        return None
    if start[8:9] == b"{":
        return "is no checkpoint: it is a .safetensors file"
    if not start.startswith(b"PK"):
        return "is no checkpoint: it holds something else"
    try:
        with zipfile.ZipFile(path) as archive:
            if wrong := archive.testzip():
                return f"is damaged: the checksum of {wrong} does not fit"
    except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError, RuntimeError, ValueError, zlib.error) as error:
        return f"is damaged ({error})"
    return None


class AtomicCheckpointIO(TorchCheckpointIO):
    """Checkpoints that are whole or absent: written to a temporary file next to their place, flushed, then renamed.

    A kill or a full disk at any moment leaves the previous file as it was. Checkpoints are read without pickle
    (`weights_only`): they hold tensors and plain types only.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write a checkpoint.

        Args:
            checkpoint: tensors and plain types.
            path: where it goes; remote paths (`s3://...`) are left to Lightning.
            storage_options: `{"keep": name}` leaves the earlier file beside the new one under that name; with
                `{"then": function}` the state of now is written while training goes on, and the function called when
                the file is there. For remote paths passed to Lightning.

        Raises:
            OSError: this checkpoint or one before could not be written; an earlier file of that name is unchanged.
        """
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        target, options = Path(path), storage_options or {}
        keep = target.with_name(options["keep"]) if "keep" in options else None
        WRITER.wait()  # also before memory is taken for another copy
        if "then" in options:
            WRITER.do(_write, host_copy(checkpoint), target, keep, options["then"])
        else:
            _write(checkpoint, target, keep)

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Callable[..., Any] | None = lambda storage, location: storage,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Read a checkpoint without pickle unless `weights_only=False` is asked for.

        Args:
            path: the file.
            map_location: as in `torch.load`.
            weights_only: as in `torch.load`; None means True.

        Raises:
            ValueError: the file is damaged or something else, or holds more than tensors and plain types.
        """
        if "://" not in str(path) and (wrong := what_is_wrong(path)):
            raise ValueError(f"{path} {wrong}{_way_out(Path(path))}")
        try:
            loaded = super().load_checkpoint(path, map_location, weights_only is not False)
        except pickle.UnpicklingError as error:
            found = re.search(r"GLOBAL ([\w.]+)", str(error))
            what = f" ({found[1]})" if found else ""
            raise ValueError(
                f"{path} holds more than tensors and plain types{what}, which could run code: it was not read"
            ) from error
        except (FileNotFoundError, PermissionError):
            raise
        except (RuntimeError, EOFError, OSError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ValueError(f"{path} is damaged ({reason}){_way_out(Path(path))}") from error
        if not isinstance(loaded, dict):
            raise ValueError(f"{path} is no checkpoint: it holds a {type(loaded).__name__}")
        return loaded


def _write(
    checkpoint: dict[str, Any], target: Path, keep: Path | None, then: Callable[[], object] | None = None
) -> None:
    """Write a checkpoint, whole or not at all; one line says why not."""
    try:
        with atomic_file(target, keep) as file:
            torch.save(checkpoint, file)
    except (OSError, RuntimeError) as error:  # torch's archive writer turns a full disk into a RuntimeError
        error = error.__cause__ if isinstance(error.__cause__, OSError) else error
        kept = "the earlier one is unchanged" if target.exists() else "nothing was written"
        reason = getattr(error, "strerror", None) or str(error).split("\n")[0]
        raise OSError(f"cannot write the checkpoint {target}: {reason}; {kept}") from error
    if then is not None:
        then()


def _way_out(path: Path) -> str:
    """How to go on without a damaged file: from the one before, if it was kept and is whole."""
    earlier = path.with_name("previous.ckpt")
    if path.name == "last.ckpt" and earlier.is_file() and what_is_wrong(earlier) is None:
        return f": go on from the one before with `mv {earlier} {path}`"
    return ""
