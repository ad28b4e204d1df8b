"""The scale of the loss in fp16 where several optimizers step after one another."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["one_scale"]


@contextmanager
def one_scale(scaler: Any) -> Iterator[None]:
    """Let all optimizers that step inside unscale their gradients alike: the scale changes once, afterwards.

    Args:
        scaler: torch's GradScaler, or None.
    """
    if scaler is None:
        yield
        return
    scaler.update = lambda *_: None
    try:
        yield
    finally:
        del scaler.update
    scaler.update()
