"""Training recipes: one YAML file per run, named `<architecture>-<data><size>[-variant]-<budget>`."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from zoo.engine.files import nearest

__all__ = ["describe", "find", "list_recipes"]


def list_recipes() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(item.name.removesuffix(".yaml") for item in files(__name__).iterdir() if item.name.endswith(".yaml"))


def find(name: str) -> Path:
    """The file of a recipe, given by name or by path.

    Raises:
        FileNotFoundError: there is none; names the nearest.
    """
    if Path(name).is_file():
        return Path(name)
    known = list_recipes()
    if (stem := name.removesuffix(".yaml")) in known:
        return Path(str(files(__name__) / f"{stem}.yaml"))
    hint = nearest(stem, known, "`zoo list` names them all")
    raise FileNotFoundError(f"there is no recipe or file {name!r}: {hint}")


def describe(name: str) -> str:
    """First line of a recipe's header."""
    return find(name).read_text().splitlines()[0].lstrip("# ")
