"""DataModules: one file per data set, batches as dicts, the order of training a function of (seed, images seen)."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datamodules.attributes import Attributes as Attributes
    from datamodules.captioned import Captioned as Captioned
    from datamodules.celeba import CelebA as CelebA
    from datamodules.cifar10 import CIFAR10 as CIFAR10
    from datamodules.emoji import Emoji as Emoji
    from datamodules.fashion_mnist import FashionMNIST as FashionMNIST
    from datamodules.image_folder import ImageFolder as ImageFolder
    from datamodules.mnist import MNIST as MNIST
    from datamodules.patches import Patches as Patches
    from datamodules.shapes import Shapes as Shapes
    from datamodules.unpaired import Unpaired as Unpaired

_EXPORTS = {
    "Attributes": "datamodules.attributes",
    "CIFAR10": "datamodules.cifar10",
    "Captioned": "datamodules.captioned",
    "CelebA": "datamodules.celeba",
    "Emoji": "datamodules.emoji",
    "FashionMNIST": "datamodules.fashion_mnist",
    "ImageFolder": "datamodules.image_folder",
    "MNIST": "datamodules.mnist",
    "Patches": "datamodules.patches",
    "Shapes": "datamodules.shapes",
    "Unpaired": "datamodules.unpaired",
}
__all__ = sorted(_EXPORTS)


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'datamodules' has no attribute {name!r}")
    return getattr(importlib.import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return __all__
