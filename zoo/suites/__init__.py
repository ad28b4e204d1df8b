"""Suites of `zoo bench`: one YAML file each, with data, budget, seeds, measures and entries."""

from __future__ import annotations

from pathlib import Path

from zoo.engine.files import packaged_file, packaged_names

__all__ = ["find", "list_suites"]


def list_suites() -> list[str]:
    """Names of the suites that come with the package."""
    return packaged_names(__name__)


def find(name: str) -> Path:
    """The file of a suite, given by name or by path.

    Raises:
        FileNotFoundError: there is none; names the nearest.
    """
    return packaged_file(__name__, name, "suite")
