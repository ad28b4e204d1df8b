"""Training recipes: one YAML file per run, named `<architecture>-<data><size>[-variant]-<budget>`."""

from __future__ import annotations

from pathlib import Path

from zoo.engine.files import packaged_file, packaged_names

__all__ = ["describe", "find", "list_recipes"]


def list_recipes() -> list[str]:
    """Names of the recipes that come with the package."""
    return packaged_names(__name__)


def find(name: str) -> Path:
    """The file of a recipe, given by name or by path.

    Raises:
        FileNotFoundError: there is none; names the nearest.
    """
    return packaged_file(__name__, name, "recipe", "`zoo list` names them all")


def describe(name: str) -> str:
    """First line of a recipe's header."""
    return find(name).read_text().splitlines()[0].lstrip("# ")
