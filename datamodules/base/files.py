"""Files: arrays cached on disk, checksums, downloads."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

__all__ = ["check_md5", "fetch", "write_array"]


def write_array(path: Path, shape: tuple[int, ...], fill: Callable[[np.ndarray[Any, Any]], object]) -> None:
    """Make sure that `path` holds a uint8 array, filled by `fill` if it is missing.

    Safe to call in several processes at once: one fills, the others wait. The file appears under its name when it is
    complete, so a process that is killed leaves no half file there. The space on the disk is reserved first, so a full
    disk is noticed before the work.

    Args:
        path: the file, in numpy's format; missing folders are made.
        shape: shape of the array.
        fill: writes the values into an array.

    Raises:
        OSError: no permission, or no room.
    """
    with _named_errors(path):
        if path.exists():
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_name(f"{path.name}.lock"))
        lock.acquire()
    # Not `atomic_file`: the array is mapped from the file, and the errors of `fill` are its own.
    temporary = path.with_name(f".{path.name}.tmp")  # one name, which overwrites the rest of a killed process
    try:
        if path.exists():  # another process has filled it while we waited
            return
        with _named_errors(path):
            array = _reserve(temporary, shape)
        fill(array)
        with _named_errors(path):
            array.flush()
            del array
            _synchronize(temporary)
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
        lock.release()


@contextlib.contextmanager
def _named_errors(path: Path) -> Iterator[None]:
    """Errors of the system name the file and say what to do."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        advice = "set cache_dir to a folder with room and permission"
        raise OSError(error.errno, f"{reason}: cannot write {path}; {advice}") from error


def _reserve(path: Path, shape: tuple[int, ...]) -> np.memmap[Any, Any]:
    """An array mapped from a new file with all blocks allocated: a write to a hole on a full disk kills the process."""
    free, needed = shutil.disk_usage(path.parent).free, int(np.prod(shape)) + 2**16
    if free < needed:
        raise OSError(errno.ENOSPC, f"No space left on device ({needed >> 20} MiB needed, {free >> 20} MiB free)")
    array: np.memmap[Any, Any] = np.lib.format.open_memmap(path, "w+", np.uint8, shape)
    if hasattr(os, "posix_fallocate"):
        with path.open("rb+") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


def _synchronize(path: Path) -> None:
    with path.open("rb+") as file:  # Windows flushes only what may be written
        os.fsync(file.fileno())


def check_md5(path: Path, md5: str) -> None:
    """Compare a file with its published MD5 sum.

    Args:
        path: the file.
        md5: the published sum.

    Raises:
        ValueError: the sums differ.
    """
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
    if digest.hexdigest() != md5:
        raise ValueError(f"{path} is not the published file (its MD5 sum differs): fetch it again, or set verify=False")


def fetch(name: str, folder: Path, files: Iterable[str], download: Callable[[str, str], object]) -> None:
    """Download the files that a folder lacks; each appears there when it is complete.

    Args:
        name: name of the data set, for messages.
        folder: where the files belong.
        files: their names.
        download: `download(file, folder)` fetches one and checks its sum.

    Raises:
        FileNotFoundError: a file could not be fetched.
    """
    missing = [file for file in files if not (folder / file).exists()]
    if not missing:
        return
    advice = f"put {', '.join(missing)} there, or set data_dir to where the data lie"
    if os.environ.get("ZOO_OFFLINE", "0") not in ("", "0"):
        raise FileNotFoundError(f"{name} is not in {folder} and ZOO_OFFLINE is set: {advice}")
    made = _make_folder(folder)
    try:
        with FileLock(folder / ".download.lock"), tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as place:
            for file in missing:
                if not (folder / file).exists():  # another process may have fetched it while we waited
                    download(file, place)
                    _synchronize(Path(place, file))
                    os.replace(Path(place, file), folder / file)
    except Exception as error:  # downloads raise many kinds, from URLError to RuntimeError
        reason = " ".join(str(error).split()) or type(error).__name__
        raise FileNotFoundError(
            f"{name} is not in {folder} and could not be downloaded ({reason}): {advice}"
        ) from error
    finally:
        (folder / ".download.lock").unlink(missing_ok=True)
        for parent in made:  # leave no empty folders behind at a mistyped path
            if not any(parent.iterdir()):
                parent.rmdir()


def _make_folder(folder: Path) -> list[Path]:
    """Make a folder; returns those that were not there, innermost first."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror}: cannot make {folder}; set data_dir to another one") from error
    return made
