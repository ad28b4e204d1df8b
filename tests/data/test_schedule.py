"""Batches of a model that grows: their order, their sizes, and the images of each size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from zoo.datamodules import Emoji, ImageFolder
from zoo.datamodules.base import ImageDataModule, ImageSet
from zoo.datamodules.base.pyramid import halved
from zoo.nn.progressive_gan_growth import Growth, GrowthSchedule

GROWTH = GrowthSchedule(
    Growth(20, 12, global_batch_size=6, global_batch_sizes={4: 12, 8: 8}, steps_per_schedule_check=2), 16
)


class Numbers(ImageDataModule):
    """Images whose field `number` tells which they are, of a run whose place is said by hand."""

    rank_and_world = (0, 1)  # type: ignore[assignment]
    _counted = 0  # type: ignore[assignment]
    batches_into_epoch = 0  # type: ignore[assignment]

    def __init__(self, schedule: Callable[[int], tuple[int, float, int]] | None = GROWTH, num_workers: int = 0) -> None:
        super().__init__(image_size=16, batch_size=4, num_workers=num_workers)
        self._schedule = schedule

    @property
    def schedule(self) -> Callable[[int], tuple[int, float, int]] | None:
        return self._schedule

    def count(self) -> None:
        """Done by hand."""

    def open(self) -> dict[str, ImageSet]:
        images = np.random.default_rng(0).integers(0, 256, (40, 3, 16, 16), np.uint8)
        return {"train": ImageSet([images], {"number": torch.arange(40)})}


def served(
    rank: int = 0, world: int = 1, done: int = 0, epochs: int = 4, num_workers: int = 0
) -> list[tuple[int, Tensor]]:
    """(side, numbers) of a rank's batches, after so many that are done."""
    data = Numbers(num_workers=num_workers)
    data.rank_and_world = (rank, world)
    found = []
    while done < epochs * (length := len(loader := data.train_dataloader())):
        data._counted, data.batches_into_epoch = done, done % length
        found += [(batch["image"].shape[-1], batch["number"]) for batch in loader]
        done += length - done % length
        loader.close()
    return found


def test_batches_follow_the_schedule_and_their_order_the_images_seen() -> None:
    found = served()
    images = 0
    for side, numbers in found:
        size, _, batch = GROWTH(images)
        assert (side, len(numbers)) == (size, batch)
        images += batch
    assert {side for side, _ in found} == {4, 8, 16}
    # Each image once in 40, whatever the batches.
    order = torch.cat([numbers for _, numbers in found])
    for start in range(0, len(order) - 39, 40):
        assert sorted(order[start : start + 40].tolist()) == list(range(40))


@pytest.mark.parametrize("world", [2])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_ranks_share_the_batches_of_one_process(world: int, num_workers: int) -> None:
    whole = served()
    parts = [served(rank, world, num_workers=num_workers) for rank in range(world)]
    for (side, numbers), *shares in zip(whole, *parts, strict=True):
        assert {size for size, _ in shares} == {side}
        assert torch.equal(torch.cat([part for _, part in shares]), numbers)


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("done", [1, 2, 4, 7])
def test_a_resumed_run_goes_on_at_the_next_batch(done: int, num_workers: int) -> None:
    rest, straight = served(done=done, num_workers=num_workers), served()
    for (side, numbers), (size, expected) in zip(rest, straight[done:], strict=True):
        assert side == size
        assert torch.equal(numbers, expected)


def test_batches_that_cannot_be_shared_are_refused() -> None:
    with pytest.raises(ValueError, match="a batch of 8 images cannot be shared among 3 devices alike"):
        served(world=3)


def test_resolutions_that_halving_does_not_reach_are_refused() -> None:
    with pytest.raises(ValueError, match="the model asks for images of 3 pixels"):
        Numbers(GROWTH).at_resolution(3)


def test_halves_are_rounded_means() -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 3, 8, 8), np.uint8)
    expected = torch.nn.functional.avg_pool2d(torch.from_numpy(images).double(), 2)
    assert np.array_equal(halved(images, Path()), np.rint(expected.numpy()).astype(np.uint8))
    # Every sum of four pixels; half up would make the mean brighter by 1/8 at each level.
    totals = np.arange(4 * 255 + 1)
    squares = np.stack([(totals + k) // 4 for k in range(4)], 1).astype(np.uint8).reshape(-1, 1, 2, 2)
    assert np.array_equal(halved(squares, Path()).flatten(), np.rint(totals / 4))


def test_lower_resolutions_of_a_folder_are_kept_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(20):
        pixels = np.random.default_rng(i).integers(0, 256, (40, 40, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")

    def open_() -> ImageFolder:
        return ImageFolder(folder, cache_dir=tmp_path / "cache", image_size=16, flip=True)

    data = open_()
    data.prepare_data()
    small = data.at_resolution(4)
    assert len(small) == data.num_train
    index = torch.arange(len(small))
    full = data.split("train").images(index).double()
    assert (torch.nn.functional.avg_pool2d(full, 4) - small.images(index)).abs().max() <= 1
    # A mirrored image is mirrored at all sizes.
    large, little = (
        images.batch(index, seed=1, epoch=2, augment=True)["image"] for images in (data.at_resolution(16), small)
    )
    assert (torch.nn.functional.avg_pool2d(large, 4) - little).abs().max() < 0.02
    assert len(list((tmp_path / "cache" / "levels-even").glob("*.npy"))) == 2
    monkeypatch.setattr("zoo.datamodules.base.pyramid._fill", None)  # the second time nothing is computed
    assert torch.equal(open_().at_resolution(4).images(index), small.images(index))


def test_emoji_are_rendered_at_each_resolution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    def render(self: Emoji, vendor: str, out: np.ndarray) -> None:
        sizes.append(out.shape[-1])
        out[:] = 7

    monkeypatch.setattr(Emoji, "_render", render)
    data = Emoji(vendors=["noto"], image_size=32, cache_dir=tmp_path)
    for size in (32, 4, 16, 4):
        batch = data.at_resolution(size).batch(torch.arange(2))
        assert batch["image"].shape == (2, 3, size, size)
        assert {"label", "caption", "vendor"} <= batch.keys()
    assert sizes == [32, 4, 16]
