"""`Model.for_data`: a model as large as the images, with as many channels and classes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from tests.contract import trainer
from zoo import DCGAN, VAE, Classifier, ClusteringAAE, ConditionalDCGAN, SupervisedAAE
from zoo.datamodules import MNIST, Emoji, Patches, Shapes
from zoo.datamodules.base import ImageDataModule, ImageSet


class Folder(ImageDataModule):
    """Gray images whose classes are known when they are opened."""

    image_channels = 1

    def open(self) -> dict[str, ImageSet]:
        self.class_names = {"label": ["cat", "dog", "owl"]}
        images = np.zeros((6, 1, self.image_size, self.image_size), np.uint8)
        return {"train": ImageSet([images], {"label": torch.arange(6) % 3})}


def test_size_and_channels() -> None:
    assert DCGAN.for_data(MNIST(image_size=16), base_channels=4).image_shape == (1, 16, 16)
    assert VAE.for_data(Emoji(image_size=16)).image_shape == (3, 16, 16)
    assert VAE.for_data(Shapes(image_size=32)).image_shape == (1, 32, 32)
    assert VAE.for_data(Patches(source="MNIST", image_size=28, data_dir="nowhere")).image_shape == (1, 28, 28)
    assert VAE.for_data(Emoji(image_size=16), image_channels=1).image_shape == (1, 16, 16)


def test_classes() -> None:
    assert ConditionalDCGAN.for_data(MNIST(), base_channels=4).hparams["num_classes"] == 10
    assert SupervisedAAE.for_data(Folder(image_size=8), hidden_features=(8,)).num_classes == 3
    assert Classifier.for_data(Folder(image_size=16), base_channels=4).class_names == ["cat", "dog", "owl"]
    # Clusters are no classes of the data.
    assert ClusteringAAE.for_data(Folder(image_size=8), hidden_features=(8,)).hparams["num_classes"] == 30


@pytest.mark.parametrize("shape", [(1, 8, 8), (8, 8), (3, 8, 8)])
def test_a_loader_of_anybody(shape: tuple[int, ...]) -> None:
    loader: DataLoader[Any] = DataLoader(TensorDataset(torch.zeros(4, *shape), torch.zeros(4)), batch_size=2)
    assert VAE.for_data(loader).image_shape == ((3, 8, 8) if len(shape) == 3 and shape[0] == 3 else (1, 8, 8))


def test_images_that_are_not_square_are_refused() -> None:
    loader: DataLoader[Any] = DataLoader(TensorDataset(torch.zeros(4, 3, 8, 6)), batch_size=2)
    with pytest.raises(ValueError, match="the images are 8x6, VAE makes square ones"):
        VAE.for_data(loader)


def test_a_plain_trainer_refuses_other_sizes_before_anything_is_loaded() -> None:
    with pytest.raises(ValueError, match=r"the data's images are 1x28x28, the model's 3x8x8"):
        trainer().fit(DCGAN(8, base_channels=4), datamodule=MNIST(data_dir="nowhere"))
