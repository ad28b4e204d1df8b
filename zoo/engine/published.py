"""The port through which a model asks for another one by name; `zoo` connects it with `zoo.pretrained`.

Models know nothing of files of weights, yet Text2Image is built around a published encoder of sentences.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["connect", "load"]

_loader: Callable[[str], Any] | None = None


def connect(loader: Callable[[str], Any]) -> None:
    """Say how published models are loaded.

    Args:
        loader: gives a model for the name of a checkpoint or the path of a file.
    """
    global _loader
    _loader = loader


def load(source: str) -> Any:
    """A published model.

    Args:
        source: name of a checkpoint, or path of a file.
    """
    assert _loader is not None, "zoo/__init__.py connects a loader"
    return _loader(source)
