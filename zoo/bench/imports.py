"""Classes by name: this package's by a short one, a user's own by their path."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from types import ModuleType

from zoo.engine.files import nearest

__all__ = ["imported"]


def imported(path: str, package: ModuleType, problem: str, known: Iterable[str]) -> type:
    """A class.

    Args:
        path: name of a class of the package, or path of any.
        package: the package.
        problem: how the message begins where there is no such class.
        known: names of the package's classes, of which the message names the nearest.

    Raises:
        ValueError: there is none of that name, or its module cannot be imported; the reason is given.
    """
    module, _, name = path.rpartition(".")
    if module in ("", package.__name__):
        if name not in known:
            raise ValueError(f"{problem}: {nearest(name, known)}")
        found: type = getattr(package, name)
        return found
    try:
        found = getattr(import_module(module), name)
    except ImportError as error:
        raise ValueError(f"{problem}: {error}") from error
    except AttributeError as error:
        raise ValueError(f"{problem}: {module} has no {name}") from error
    return found
