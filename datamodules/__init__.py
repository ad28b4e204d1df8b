"""DataModules: one file per data set, batches as dicts, the order of training a function of (seed, images seen)."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datamodules.emoji import Emoji as Emoji
    from datamodules.mnist import MNIST as MNIST
    from datamodules.mnist import FashionMNIST as FashionMNIST

_EXPORTS = {
    "Emoji": "datamodules.emoji",
    "FashionMNIST": "datamodules.mnist",
    "MNIST": "datamodules.mnist",
}
__all__ = sorted(_EXPORTS)


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'datamodules' has no attribute {name!r}")
    return getattr(importlib.import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return __all__
