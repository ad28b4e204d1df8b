"""Paths that commands write to."""

from __future__ import annotations

from argparse import ArgumentTypeError
from pathlib import Path

__all__ = ["local_path"]


class RemotePathError(ValueError, ArgumentTypeError):
    """A path that is not of this machine."""


def local_path(path: str) -> Path:
    """A path of this machine; a remote one would be read as a folder of that name here.

    Args:
        path: the path.

    Raises:
        RemotePathError: it is a remote one.
    """
    if "://" in path:
        raise RemotePathError(f"{path} is no folder of this machine: give one, and copy it when the command is done")
    return Path(path)
