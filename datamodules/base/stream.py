"""Training streams, without an end: the batch at any positions of the run, a function of the seed and the positions.

Image number p of a run, counted over all ranks, is image `permutation(seed, p // N)[p % N]` of the N training images.
So the order of training depends on the seed and on the number of images seen, not on the batch size.
"""

from __future__ import annotations

from abc import abstractmethod
from functools import lru_cache
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from zoo.datamodules.base.image_set import Batch, ImageSet, scaled
from zoo.engine.rng import key, permutation

__all__ = ["BatchDataset", "EvaluationDataset", "MultiResolutionStream", "Served", "TrainingStream"]


class BatchDataset(Dataset[Batch]):
    """A dataset that gives whole batches: `dataset[place]` with images in [-1, 1], `levels(place)` with uint8."""

    @abstractmethod
    def levels(self, place: Any) -> Batch:
        """A batch with its images as uint8, where they have 8 bits.

        Args:
            place: what to give.
        """

    def __getitem__(self, place: Any) -> Batch:
        return scaled(self.levels(place))


class TrainingStream(BatchDataset):
    """The training images in the order of training, augmented: `stream[range(first, last)]` is a whole batch.

    Args:
        images: the training split.
        seed: seed of the order and of the augmentation.
    """

    def __init__(self, images: ImageSet, seed: int) -> None:
        self.images, self.seed = images, seed
        # A batch may straddle two epochs; a cache of two permutations per process suffices.
        self.permutation = lru_cache(2)(self._permutation)

    def _permutation(self, epoch: int) -> Tensor:
        return permutation(len(self.images), key(self.seed, "order", epoch))

    def __getstate__(self) -> dict[str, Any]:
        return {"images": self.images, "seed": self.seed}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def levels(self, positions: range) -> Batch:
        """The batch at positions of the run."""
        size = len(self.images)
        parts = []
        start = positions.start
        while start < positions.stop:
            epoch, offset = divmod(start, size)
            stop = min(positions.stop, (epoch + 1) * size)
            index = self.permutation(epoch)[offset : offset + stop - start]
            parts.append(self.images.served(index, seed=self.seed, epoch=epoch, augment=True))
            start = stop
        return parts[0] if len(parts) == 1 else _joined(parts)


class MultiResolutionStream(BatchDataset):
    """The training images at several resolutions, in the same order at each: `stream[positions, resolution]`.

    Args:
        images: the training images by the side of the image.
        seed: seed of the order.
    """

    def __init__(self, images: dict[int, ImageSet], seed: int) -> None:
        self.streams = {resolution: TrainingStream(part, seed) for resolution, part in images.items()}

    def levels(self, place: tuple[range, int]) -> Batch:
        """The batch at positions of the run, at a resolution."""
        positions, resolution = place
        return self.streams[resolution].levels(positions)


class EvaluationDataset(BatchDataset):
    """A split in its own order, without augmentation: `dataset[range(first, last, step)]` is a whole batch.

    Args:
        images: the split.
    """

    def __init__(self, images: ImageSet) -> None:
        self.images = images

    def levels(self, index: range) -> Batch:
        """The images of a range."""
        return self.images.served(torch.arange(index.start, index.stop, index.step))


class Served(Dataset[Batch]):
    """The batches of a dataset as a loader gives them.

    Args:
        dataset: the dataset.
    """

    def __init__(self, dataset: Dataset[Batch]) -> None:
        self.dataset = dataset
        self.as_levels = False

    def __getitem__(self, place: Any) -> Batch:
        dataset = self.dataset
        if self.as_levels and isinstance(dataset, BatchDataset) and _is_own(dataset):
            return dataset.levels(place)
        return dataset[place]


def _is_own(dataset: BatchDataset) -> bool:
    """Whether nobody has changed how a dataset scales its batches."""
    return type(dataset).__getitem__ is BatchDataset.__getitem__


def _joined(parts: list[Batch]) -> Batch:
    """One batch of several, one after the other."""
    joined: Batch = {}
    for name, value in parts[0].items():
        values = [part[name] for part in parts]
        joined[name] = torch.cat(values) if isinstance(value, Tensor) else list(chain.from_iterable(values))
    return joined
