"""Fashion-MNIST in torchvision's layout: four gzipped IDX files under `<data_dir>/FashionMNIST/raw`."""

from __future__ import annotations

from typing import ClassVar

from zoo.datamodules.mnist import MNIST

__all__ = ["FashionMNIST"]


class FashionMNIST(MNIST):
    """Fashion-MNIST: 28 x 28 gray pictures of clothes, in MNIST's layout and splits.

    Arguments and batches as for `MNIST`; there are no fixed binary files.

    References:
        Xiao, Rasul and Vollgraf 2017, arXiv 1708.07747.
    """

    license = "MIT"
    files: ClassVar[dict[str, str]] = {
        "train-images-idx3-ubyte.gz": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "train-labels-idx1-ubyte.gz": "9018921c3c673c538a1fc5bad174d6f9",
        "t10k-images-idx3-ubyte.gz": "8181f5470baa50b63fa0f6fddb340f0a",
        "t10k-labels-idx1-ubyte.gz": "15d484375f8d13e6eb1aabb0c3f46965",
    }
    labels: ClassVar[list[str]] = [
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ]
