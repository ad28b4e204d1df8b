"""Suites of `zoo bench`: one YAML file each, with data, budget, seeds, measures and entries."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from zoo.engine.files import nearest

__all__ = ["find", "list_suites"]


def list_suites() -> list[str]:
    """Names of the suites that come with the package."""
    return sorted(item.name.removesuffix(".yaml") for item in files(__name__).iterdir() if item.name.endswith(".yaml"))


def find(name: str) -> Path:
    """The file of a suite, given by name or by path.

    Raises:
        FileNotFoundError: there is none; names the nearest.
    """
    if Path(name).is_file():
        return Path(name)
    known = list_suites()
    if (stem := name.removesuffix(".yaml")) in known:
        return Path(str(files(__name__) / f"{stem}.yaml"))
    raise FileNotFoundError(f"there is no suite or file {name!r}: {nearest(stem, known)}")
