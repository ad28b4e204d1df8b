"""Files that are whole or absent, the cache folder, and the nearest known name for error messages.

Nothing here imports torch: commands that look things up answer at once.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import shutil
from collections.abc import Iterable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import IO

__all__ = ["atomic_file", "cache_home", "data_home", "nearest", "packaged_file", "packaged_names", "write_atomically"]


@contextlib.contextmanager
def atomic_file(path: Path, keep: Path | None = None) -> Iterator[IO[bytes]]:
    """A file to write that appears under its name when it is complete.

    The content goes into a temporary file in the same folder, reaches the disk, then gets its name. A kill or a full
    disk at any moment leaves the earlier file as it was.

    Args:
        path: where the file goes; missing folders are made.
        keep: in the same folder, where an earlier file of that name goes; None lets it go.

    Raises:
        OSError: the file could not be written; an earlier one is unchanged.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if keep is not None and path.exists():
            _keep(path, keep)
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OSError(error.errno, f"cannot write {path}: {error.strerror or error}") from error
        raise


def _keep(path: Path, keep: Path) -> None:
    """Give a file a second name, so that there is a file under the first one at every moment."""
    temporary = keep.with_name(f".{keep.name}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        os.link(path, temporary)
    except OSError:  # file systems without links
        shutil.copyfile(path, temporary)
    os.replace(temporary, keep)


def _sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk, where a folder can be opened: not on Windows, nor on every share."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write a file that is whole or absent.

    Args:
        path: where the file goes; missing folders are made.
        content: bytes, or text to be encoded as UTF-8.

    Raises:
        OSError: the file could not be written; an earlier one is unchanged.
    """
    with atomic_file(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def packaged_names(package: str) -> list[str]:
    """Names of the YAML files in a package of this project.

    Args:
        package: path of the package, such as zoo.recipes.
    """
    return sorted(item.name.removesuffix(".yaml") for item in files(package).iterdir() if item.name.endswith(".yaml"))


def packaged_file(package: str, name: str, kind: str, otherwise: str | None = None) -> Path:
    """A YAML file, given by its name in a package of this project or by its path.

    Args:
        package: path of the package.
        name: name or path.
        kind: what the file is, for the message.
        otherwise: what the message says if no name is near, in place of the whole list.

    Raises:
        FileNotFoundError: there is none; names the nearest.
    """
    if Path(name).is_file():
        return Path(name)
    known = packaged_names(package)
    if (stem := name.removesuffix(".yaml")) in known:
        return Path(str(files(package) / f"{stem}.yaml"))
    raise FileNotFoundError(f"there is no {kind} or file {name!r}: {nearest(stem, known, otherwise)}")


def cache_home() -> Path:
    """Folder of everything that can be fetched or computed again: `$ZOO_HOME`, else `~/.cache/generative-zoo`."""
    home = os.environ.get("ZOO_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "generative-zoo")
    return Path(home).expanduser()


def data_home() -> Path:
    """Folder of the user's own registry: `$XDG_DATA_HOME/generative-zoo`, else `~/.local/share/generative-zoo`."""
    return Path(os.environ.get("XDG_DATA_HOME") or "~/.local/share", "generative-zoo").expanduser()


def nearest(name: str, known: Iterable[str], otherwise: str | None = None) -> str:
    """The end of an error message about an unknown name: the nearest known one, or all of them.

    Args:
        name: the unknown name.
        known: the known ones.
        otherwise: what to say if none is near, in place of the whole list.
    """
    known = list(dict.fromkeys(known))
    if close := difflib.get_close_matches(name, known, 1):
        return f"did you mean {close[0]!r}?"
    return otherwise or f"take one of {', '.join(known)}"
