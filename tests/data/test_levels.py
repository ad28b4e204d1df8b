"""Images of 8 bits on their way to a GPU: the same values, a quarter of the bytes, and nobody else sees them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import zoo
from tests.contract import trainer
from tests.fake_cuda import on_fake_cuda
from zoo.base import conventions
from zoo.datamodules.base import Batch, ImageDataModule, ImageSet
from zoo.datamodules.base.draws import cropped_and_mirrored, mirrored, uniform_by_index
from zoo.datamodules.base.labelled import LabelledStream
from zoo.datamodules.base.patch_set import PatchSet, PatchStream
from zoo.datamodules.base.stream import MultiResolutionStream, TrainingStream
from zoo.datamodules.mnist import binarized
from zoo.datamodules.patches import EdgeDensity
from zoo.datamodules.unpaired import Pairs, UnpairedStream
from zoo.engine import levels
from zoo.engine.images import from_levels
from zoo.engine.rng import key

Augment = Callable[[Tensor, int, int, Tensor], Tensor] | None


def brightened(image: Tensor, seed: int, epoch: int, index: Tensor) -> Tensor:
    """An augmentation of a user's: of images in [-1, 1]."""
    assert image.is_floating_point()
    return image * 0.9 + 0.05


def images(augment: Augment = None, size: int = 8, cls: type[ImageSet] = ImageSet) -> ImageSet:
    array = np.random.default_rng(0).integers(0, 256, (12, 3, size, size), np.uint8)
    return cls([array], {"label": torch.arange(12) % 3}, augment=augment)


class Folder(ImageDataModule):
    """Twelve images."""

    def __init__(self, augment: Augment = mirrored) -> None:
        super().__init__(image_size=8, batch_size=4, seed=0)
        self.augment = augment

    def open(self) -> dict[str, ImageSet]:
        return {"train": images(self.augment), "val": images(), "test": images()}


def gan() -> zoo.GAN:
    torch.manual_seed(0)
    return zoo.GAN(8, 3, 3, hidden_features=4, discriminator_features=4)


def test_all_values_are_those_of_a_division() -> None:
    given = torch.arange(256, dtype=torch.uint8)
    wanted = torch.tensor([np.float32(np.float32(i) / np.float32(127.5)) - np.float32(1) for i in range(256)])
    assert torch.equal(from_levels(given), wanted)
    assert torch.equal(given.div(torch.full((), 127.5)).sub_(1), wanted), "the way of a GPU"
    with on_fake_cuda() as watch:
        there = from_levels(torch.zeros(2, 3, 8, 8, dtype=torch.uint8, device="cuda"))
    assert (there.device.type, there.dtype, watch.waits) == ("cuda", torch.float32, [])


@pytest.mark.parametrize("augment", [mirrored, partial(cropped_and_mirrored, size=5, flip=True)])
def test_augmentations_that_move_pixels_move_8_bits_alike(augment: Callable[..., Tensor]) -> None:
    given, index = images(size=7).images(torch.arange(12)), torch.arange(12)
    moved = augment(given, 1, 2, index)
    assert moved.dtype == torch.uint8
    assert torch.equal(from_levels(moved), augment(from_levels(given), 1, 2, index))


def test_binary_pixels_are_those_of_the_gray_values() -> None:
    given, index = images().images(torch.arange(12)), torch.arange(12)
    chances = (from_levels(given) + 1) / 2
    draws = uniform_by_index(index, 192, key(1, "binarize", "train", 2)).view_as(chances)
    binary = binarized(given, 1, 2, index, purpose="train")
    assert torch.equal(from_levels(binary), torch.where(chances > draws, 1.0, -1.0))


STREAMS: dict[str, Callable[[], Any]] = {
    "images": lambda: TrainingStream(images(mirrored), 0),
    "cut": lambda: TrainingStream(images(partial(cropped_and_mirrored, size=5, flip=True)), 0),
    "few labels": lambda: LabelledStream(images(mirrored), 0, 6, 4),
    "two domains": lambda: UnpairedStream(Pairs(images(), images(), (images(mirrored), images(mirrored))), 0),
    "patches": lambda: PatchStream(PatchSet(images(mirrored, 16), EdgeDensity(2), 2, 2), 0),
}


@pytest.mark.parametrize("name", STREAMS)
def test_streams_give_8_bits_and_scaled_images(name: str) -> None:
    stream, fields = STREAMS[name](), ("image", "image_a", "image_b", "other")
    given, scaled = stream.levels(range(9, 15)), stream[range(9, 15)]
    parts = [(given, scaled), *((batch, scaled[field]) for field, batch in given.items() if isinstance(batch, dict))]
    for levels_of, images_of in parts:
        found = [field for field in fields if field in levels_of]
        assert found
        for field in found:
            assert levels_of[field].dtype == torch.uint8
            assert torch.equal(from_levels(levels_of[field]), images_of[field])
    if name == "patches":
        assert torch.equal(given["patches"], scaled["patches"])


def test_streams_at_several_resolutions_give_8_bits() -> None:
    assert MultiResolutionStream({8: images()}, 0).levels((range(4), 8))["image"].dtype == torch.uint8


def fitted(monkeypatch: pytest.MonkeyPatch, data: Any, model: zoo.GAN, *, far: bool) -> list[torch.dtype]:
    """Types of the images that reach the device in a fit, on a device that is said to be far away."""
    seen = []

    def noted(batch: Batch, *options: Any) -> Batch:
        seen.append(batch["image"].dtype)
        return scaled_images(batch, *options)

    scaled_images = conventions.scaled_images
    with monkeypatch.context() as patch:
        patch.setattr(levels, "_is_far", lambda trainer: far)
        patch.setattr(conventions, "scaled_images", noted)
        trainer(max_epochs=2, limit_val_batches=1).fit(model, datamodule=data)
    return seen


@pytest.mark.parametrize("augment", [mirrored, brightened])
def test_a_fit_far_away_gets_8_bits_and_learns_the_same(monkeypatch: pytest.MonkeyPatch, augment: Augment) -> None:
    near, away, data = gan(), gan(), Folder(augment)
    assert set(fitted(monkeypatch, Folder(augment), near, far=False)) == {torch.float32}
    seen = fitted(monkeypatch, data, away, far=True)
    # A user's own augmentation makes other values; the validation images are not augmented.
    assert set(seen) == ({torch.uint8} if augment is mirrored else {torch.uint8, torch.float32})
    assert all(torch.equal(a, b) for a, b in zip(near.parameters(), away.parameters(), strict=True))
    loop = next(iter(data.test_dataloader()))["image"]
    assert loop.dtype == torch.float32, "a loop of a user's"


class OwnHook(zoo.GAN):
    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        assert batch["image"].dtype == torch.float32
        return batch


class OwnSet(ImageSet):
    def batch(self, index: Tensor, **options: Any) -> Batch:
        return super().batch(index, **options) | {"own": index}


def test_what_a_user_overrides_gets_scaled_images(monkeypatch: pytest.MonkeyPatch) -> None:
    model = OwnHook(8, 3, 3, hidden_features=4, discriminator_features=4)
    assert torch.uint8 not in fitted(monkeypatch, Folder(), model, far=True)
    given = TrainingStream(images(cls=OwnSet), 0).levels(range(4))
    assert given["image"].dtype == torch.float32
    assert "own" in given
