"""DataModules: one file per data set. Batches are dicts; the order of training is a function of (seed, images seen)."""

from __future__ import annotations

if __name__ != "zoo.datamodules":
    raise ImportError(
        "generative-zoo's data sets are imported as `zoo.datamodules`: `from zoo.datamodules import MNIST`"
    )

from typing import TYPE_CHECKING

from zoo.engine.lazy import lazy_exports

if TYPE_CHECKING:
    from zoo.datamodules.attributes import Attributes as Attributes
    from zoo.datamodules.captioned import Captioned as Captioned
    from zoo.datamodules.celeba import CelebA as CelebA
    from zoo.datamodules.cifar10 import CIFAR10 as CIFAR10
    from zoo.datamodules.emoji import Emoji as Emoji
    from zoo.datamodules.fashion_mnist import FashionMNIST as FashionMNIST
    from zoo.datamodules.image_folder import ImageFolder as ImageFolder
    from zoo.datamodules.mnist import MNIST as MNIST
    from zoo.datamodules.patches import Patches as Patches
    from zoo.datamodules.shapes import Shapes as Shapes
    from zoo.datamodules.unpaired import Unpaired as Unpaired

_EXPORTS = {
    "Attributes": "zoo.datamodules.attributes",
    "CIFAR10": "zoo.datamodules.cifar10",
    "Captioned": "zoo.datamodules.captioned",
    "CelebA": "zoo.datamodules.celeba",
    "Emoji": "zoo.datamodules.emoji",
    "FashionMNIST": "zoo.datamodules.fashion_mnist",
    "ImageFolder": "zoo.datamodules.image_folder",
    "MNIST": "zoo.datamodules.mnist",
    "Patches": "zoo.datamodules.patches",
    "Shapes": "zoo.datamodules.shapes",
    "Unpaired": "zoo.datamodules.unpaired",
}
__all__ = sorted(_EXPORTS)

__getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)
