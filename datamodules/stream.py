"""Splits as arrays, the endless keyed training stream, unpadded evaluation, and the loaders of both.

Training order. Image number p of a run, counted over all ranks, is image `permutation(seed, p // N)[p % N]` of the N
training images: a function of the seed and the number of images seen, whatever the batch size. Global batch k holds
positions [kG, (k + 1)G) with G = batch_size * ranks, and rank r takes its r-th contiguous share. So W ranks see what
one process would see with W times the batch size, and a resumed run goes on at the next image.

A model that grows says by itself how large its images and its global batches are after so many images (`Scheduled`).
Then batch k starts where batch k - 1 ended, and each rank takes its share of it: the batches are the same on any number
of ranks. An epoch has as many batches as all images make at the first batch size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b
from itertools import chain
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

if TYPE_CHECKING:
    from zoo.datamodules.base import ImageDataModule

__all__ = ["Batch", "Evaluation", "ImageSet", "Levels", "Loader", "Scheduled", "Stream", "TrainLoader", "key"]

Batch = dict[str, Any]


@runtime_checkable
class Scheduled(Protocol):
    """A model whose images and batches change size in training."""

    def schedule(self, images_seen: int) -> tuple[int, float, int]:
        """Side of the images, share of the fade to it, and images per step over all ranks, after so many images."""
        ...


def key(seed: int, *purpose: str | int) -> int:
    """A 63-bit seed for one purpose, unrelated to that of any other purpose."""
    text = "/".join(map(str, (seed, *purpose)))
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


@dataclass
class ImageSet:
    """Images as uint8 arrays with their labels.

    Attributes:
        arrays: one or more arrays (n, C, H, W) uint8, in memory or mapped from a file; they are numbered through.
        fields: what goes into a batch beside `image`: an int64 tensor or a list per key, one entry per image.
        rows: the images of this split, as numbers into `arrays` and `fields`; None takes all.
        augment: changes a float batch in [-1, 1]: `augment(image, seed, epoch, index)`, a function of its arguments.
        always: the augmentation belongs to the data: evaluation has it too, drawn once (seed 0, epoch 0).
    """

    arrays: Sequence[np.ndarray[Any, Any]]
    fields: dict[str, Tensor | list[str]] = field(default_factory=dict)
    rows: Tensor | None = None
    augment: Callable[[Tensor, int, int, Tensor], Tensor] | None = None
    always: bool = False

    def __post_init__(self) -> None:
        self._starts = np.cumsum([0, *(len(array) for array in self.arrays)])
        # Plain views: indexing a numpy.memmap makes another memmap each time, which takes longer than the copy.
        self._views = [np.asarray(array) for array in self.arrays]

    def __getstate__(self) -> dict[str, Any]:
        # Mapped files go to other processes by name; numpy would copy their contents.
        arrays = [getattr(array, "filename", array) for array in self.arrays]
        return {name: value for name, value in self.__dict__.items() if name != "_views"} | {"arrays": arrays}

    def __setstate__(self, state: dict[str, Any]) -> None:
        arrays = [a if isinstance(a, np.ndarray) else np.load(a, mmap_mode="r") for a in state["arrays"]]
        self.__dict__.update(state, arrays=arrays)
        self.__post_init__()

    def __len__(self) -> int:
        return int(self._starts[-1]) if self.rows is None else len(self.rows)

    def images(self, index: Tensor) -> Tensor:
        """Images of this split as uint8.

        Shape:
            index: (n,); output: (n, C, H, W).
        """
        rows = (index if self.rows is None else self.rows[index]).numpy()
        if len(self._views) == 1:
            return torch.from_numpy(self._views[0][rows])
        out = np.empty((len(rows), *self._views[0].shape[1:]), np.uint8)
        sources = np.searchsorted(self._starts, rows, "right") - 1
        for k, (source, row) in enumerate(zip(sources.tolist(), (rows - self._starts[sources]).tolist(), strict=True)):
            out[k] = self._views[source][row]
        return torch.from_numpy(out)

    def batch(
        self,
        index: Tensor,
        *,
        seed: int = 0,
        epoch: int = 0,
        augment: bool = False,
        numbers: Tensor | None = None,
    ) -> Batch:
        """A batch of this split.

        Args:
            index: numbers of the images in the split.
            seed: seed of the augmentation.
            epoch: how often the split has been seen before.
            augment: apply the augmentation (that which belongs to the data is applied in any case).
            numbers: what tells the images apart in the augmentation; None takes `index`.

        Shape:
            index: (n,); image: (n, C, H, W) float32 in [-1, 1].
        """
        image = self.images(index).float().div_(127.5).sub_(1)
        if self.augment is not None and (augment or self.always):
            image = self.augment(image, seed, epoch, index if numbers is None else numbers)
        rows = index if self.rows is None else self.rows[index]
        batch: Batch = {"image": image}
        for name, values in self.fields.items():
            batch[name] = values[rows] if isinstance(values, Tensor) else [values[i] for i in rows.tolist()]
        return batch


class Stream(Dataset[Batch]):
    """The endless training stream: whole batches by their positions."""

    def __init__(self, images: ImageSet, seed: int) -> None:
        self.images, self.seed = images, seed
        # A batch may straddle two epochs; a cache of two permutations per process suffices.
        self.permutation = lru_cache(2)(self._permutation)

    def _permutation(self, epoch: int) -> Tensor:
        generator = torch.Generator().manual_seed(key(self.seed, "order", epoch))
        return torch.randperm(len(self.images), generator=generator)

    def __getstate__(self) -> dict[str, Any]:
        return {"images": self.images, "seed": self.seed}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def __getitem__(self, positions: range) -> Batch:
        size = len(self.images)
        parts = []
        start = positions.start
        while start < positions.stop:
            epoch, offset = divmod(start, size)
            stop = min(positions.stop, (epoch + 1) * size)
            index = self.permutation(epoch)[offset : offset + stop - start]
            parts.append(self.images.batch(index, seed=self.seed, epoch=epoch, augment=True))
            start = stop
        return parts[0] if len(parts) == 1 else _join(parts)


class Levels(Dataset[Batch]):
    """The endless training stream at several sizes, all in the same order: batches by their positions and their size.

    Args:
        levels: the training images by size.
        seed: seed of the order.
    """

    def __init__(self, levels: dict[int, ImageSet], seed: int) -> None:
        self.streams = {size: Stream(images, seed) for size, images in levels.items()}

    def __getitem__(self, place: tuple[range, int]) -> Batch:
        positions, size = place
        return self.streams[size][positions]


class Evaluation(Dataset[Batch]):
    """A split in its own order, without augmentation."""

    def __init__(self, images: ImageSet) -> None:
        self.images = images

    def __getitem__(self, index: range) -> Batch:
        return self.images.batch(torch.arange(index.start, index.stop, index.step))


def _join(parts: list[Batch]) -> Batch:
    joined: Batch = {}
    for name, value in parts[0].items():
        values = [part[name] for part in parts]
        joined[name] = torch.cat(values) if isinstance(value, Tensor) else list(chain.from_iterable(values))
    return joined


class Loader:
    """Batches of one rank.

    It is not a DataLoader, because Lightning rebuilds those: it would add a second sampler in distributed runs and when
    predicting, and take away ours for `overfit_batches`.

    Args:
        dataset: gives a whole batch for a range of positions, or whatever the plan has.
        plan: the ranges of one pass, asked for when the first batch of the pass is fetched.
        length: batches of a whole pass.
        num_workers: loader processes.
        pin_memory: put batches into page-locked memory, from where a GPU can fetch them.
    """

    def __init__(
        self,
        dataset: Dataset[Batch],
        plan: Callable[[], Iterable[Any]],
        length: int,
        *,
        num_workers: int,
        pin_memory: bool,
    ) -> None:
        self.length = length
        self._loader: DataLoader[Batch] = DataLoader(
            dataset,
            batch_size=None,  # the sampler gives whole batches
            sampler=_Plan(plan),
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            pin_memory=pin_memory,
            generator=torch.Generator(),  # else each pass would draw from torch's global generator
        )

    @property
    def dataset(self) -> Dataset[Batch]:
        """What the batches are taken from."""
        return self._loader.dataset

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Batch]:
        # A generator: nothing is started and no position is fixed before the first batch is asked for.
        yield from self._loader

    def close(self) -> None:
        """End the loader processes, now: left to the garbage collector, each may take seconds."""
        iterator, self._loader._iterator = self._loader._iterator, None
        if isinstance(iterator, _MultiProcessingDataLoaderIter):
            iterator._shutdown_workers()


class _Plan(Sampler[Any]):
    def __init__(self, plan: Callable[[], Iterable[Any]]) -> None:
        self.plan = plan

    def __iter__(self) -> Iterator[Any]:
        return iter(self.plan())


class TrainLoader(Loader):
    """This rank's batches of the training stream, from where the run is to the end of the epoch.

    Its length is that of a whole epoch, as Lightning counts from the epoch's start after a resume too.

    Args:
        module: knows where the run is.
        stream: the training stream.
    """

    def __init__(self, module: ImageDataModule, stream: Dataset[Batch]) -> None:
        self.module = module
        schedule = module.schedule
        # Of a constant number of batches, also where they grow: Lightning asks for it once, and again after a resume.
        size = module.global_batch_size if schedule is None else schedule(0)[2]
        length = max(1, module.num_train // size)
        plan = self._rest if schedule is None else self._scheduled
        super().__init__(stream, plan, length, num_workers=module.num_workers, pin_memory=module.pin_memory)

    def _rest(self) -> list[range]:
        (rank, world), size = self.module.rank_and_world, self.module.batch_size
        first = self.module.images_seen
        left = range(self.length - self.module.batches_into_epoch)
        if self.module.overfitting:  # the same batches in every epoch
            first = self.module.batches_into_epoch * size * world
        return [range(start, start + size) for k in left for start in (first + (k * world + rank) * size,)]

    def _scheduled(self) -> Iterator[tuple[range, int]]:
        schedule, (rank, world) = self.module.schedule, self.module.rank_and_world
        assert schedule is not None
        images = self.module.images_seen
        for k in range(self.module.batches_into_epoch, self.length):
            size, _, batch = schedule(images)
            share, rest = divmod(batch, world)
            if rest:
                raise ValueError(f"a batch of {batch} images cannot be shared among {world} devices alike")
            first = (k * batch if self.module.overfitting else images) + rank * share
            yield range(first, first + share), size
            images += batch

    def __iter__(self) -> Iterator[Batch]:
        for batch in super().__iter__():
            self.module.count()
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """The state is the module's; that it is here too tells Lightning that a mid-epoch resume is exact."""
        return self.module.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on after the images that were seen."""
        self.module.load_state_dict(state_dict)
