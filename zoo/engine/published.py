"""The port through which models reach files of weights; `zoo` connects it with `zoo.pretrained`.

Models know nothing of files of weights, yet Text2Image is built around a published encoder of sentences, and every
model can be loaded and pushed by a method.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["connect", "load", "push"]

_loader: Callable[..., Any] | None = None
_pusher: Callable[..., str] | None = None


def connect(loader: Callable[..., Any], pusher: Callable[..., str]) -> None:
    """Say how published models are loaded and pushed.

    Args:
        loader: gives a model for a name or an address, as `zoo.load`.
        pusher: pushes a model to an address, as `zoo.pretrained.push.push_model`.
    """
    global _loader, _pusher
    _loader, _pusher = loader, pusher


def load(source: str, **options: Any) -> Any:
    """A published model.

    Args:
        source: name, file or address of a checkpoint.
        options: those of `zoo.load`.
    """
    assert _loader is not None, "zoo/__init__.py connects a loader"
    return _loader(source, **options)


def push(model: Any, address: str, **options: Any) -> str:
    """Push a model to where others can load it.

    Args:
        model: the model.
        address: where it goes.
        options: those of `zoo.pretrained.push.push_model`.
    """
    assert _pusher is not None, "zoo/__init__.py connects a pusher"
    return _pusher(model, address, **options)
