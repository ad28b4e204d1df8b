"""The shared base of all DataModules: splits in memory, an endless keyed training stream, unpadded evaluation.

Training order. Image number p of a run, counted over all ranks, is image `permutation(seed, p // N)[p % N]` of the N
training images: a function of the seed and the number of images seen, whatever the batch size. Global batch k holds
positions [kG, (k + 1)G) with G = batch_size * ranks, and rank r takes its r-th contiguous share. So W ranks see what
one process would see with W times the batch size, and a resumed run goes on at the next image.
"""

from __future__ import annotations

import difflib
import os
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import lightning as L
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

__all__ = ["Batch", "ImageDataModule", "ImageSet", "default_cache_dir", "key", "nearest"]

Batch = dict[str, Any]
SPLITS = ("train", "val", "test")


def key(seed: int, *purpose: str | int) -> int:
    """A 63-bit seed for one purpose, unrelated to that of any other purpose."""
    text = "/".join(map(str, (seed, *purpose)))
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of an error message: the nearest known name, or all of them."""
    known = list(known)
    close = difflib.get_close_matches(name, known, 1)
    return f"did you mean {close[0]!r}?" if close else f"take one of {', '.join(known)}"


def default_cache_dir() -> Path:
    """Where decoded and rendered images are kept: `$ZOO_HOME/data`, else `~/.cache/generative-zoo/data`."""
    home = os.environ.get("ZOO_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "generative-zoo")
    return Path(home).expanduser() / "data"


@dataclass
class ImageSet:
    """Images as uint8 arrays with their labels.

    Attributes:
        arrays: one or more arrays (n, C, H, W) uint8, in memory or mapped from a file; they are numbered through.
        fields: what goes into a batch beside `image`: an int64 tensor or a list per key, one entry per image.
        rows: the images of this split, as numbers into `arrays` and `fields`; None takes all.
        augment: changes a float batch in [-1, 1]: `augment(image, seed, epoch, index)`.
    """

    arrays: Sequence[np.ndarray[Any, Any]]
    fields: dict[str, Tensor | list[str]] = field(default_factory=dict)
    rows: Tensor | None = None
    augment: Callable[[Tensor, int, int, Tensor], Tensor] | None = None

    def __post_init__(self) -> None:
        self._starts = np.cumsum([0, *(len(array) for array in self.arrays)])

    def __len__(self) -> int:
        return int(self._starts[-1]) if self.rows is None else len(self.rows)

    def images(self, index: Tensor) -> Tensor:
        """Images of this split as uint8.

        Shape:
            index: (n,); output: (n, C, H, W).
        """
        rows = (index if self.rows is None else self.rows[index]).numpy()
        if len(self.arrays) == 1:
            return torch.from_numpy(self.arrays[0][rows])
        out = np.empty((len(rows), *self.arrays[0].shape[1:]), np.uint8)
        source = np.searchsorted(self._starts, rows, "right") - 1
        for i, array in enumerate(self.arrays):
            if (mask := source == i).any():
                out[mask] = array[rows[mask] - self._starts[i]]
        return torch.from_numpy(out)

    def batch(self, index: Tensor, *, seed: int = 0, epoch: int = 0, augment: bool = False) -> Batch:
        """A batch of this split.

        Args:
            index: numbers of the images in the split.
            seed: seed of the augmentation.
            epoch: how often the split has been seen before.
            augment: apply the augmentation.

        Shape:
            index: (n,); image: (n, C, H, W) float32 in [-1, 1].
        """
        image = self.images(index).float().div_(127.5).sub_(1)
        if augment and self.augment is not None:
            image = self.augment(image, seed, epoch, index)
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


class Evaluation(Dataset[Batch]):
    """A split in its own order, without augmentation."""

    def __init__(self, images: ImageSet) -> None:
        self.images = images

    def __getitem__(self, index: Sequence[int]) -> Batch:
        return self.images.batch(torch.as_tensor(index))


def _join(parts: list[Batch]) -> Batch:
    joined: Batch = {}
    for name, value in parts[0].items():
        values = [part[name] for part in parts]
        joined[name] = torch.cat(values) if isinstance(value, Tensor) else list(chain.from_iterable(values))
    return joined


class _Sampler(DistributedSampler[Any]):
    """Gives whole batches of one rank. A DistributedSampler by type, so that Lightning does not replace it."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def set_epoch(self, epoch: int) -> None:
        """Nothing: the order depends on the images seen."""


class _Positions(_Sampler):
    """Positions of this rank's training batches in what is left of the epoch."""

    def __init__(self, module: ImageDataModule, length: int) -> None:
        super().__init__(length)
        self.module = module

    def __iter__(self) -> Iterator[range]:
        # At once and not at the first batch: the loader may fetch ahead of the training loop.
        module = self.module
        first, left = module._next_image(), module._batches_left(self.length)
        size, rank, world = module.batch_size, *module._rank_and_world()
        starts = [first + (k * world + rank) * size for k in range(left)]
        return iter([range(start, start + size) for start in starts])


class _Strided(_Sampler):
    """Every world-th image from the rank-th on, in batches: no image twice, none left out."""

    def __init__(self, total: int, batch_size: int, rank: int, world: int) -> None:
        self.own, self.batch_size = range(rank, total, world), batch_size
        super().__init__(-(-len(self.own) // batch_size))

    def __iter__(self) -> Iterator[list[int]]:
        own = list(self.own)
        return iter([own[i : i + self.batch_size] for i in range(0, len(own), self.batch_size)])


class ImageDataModule(L.LightningDataModule):
    """Base of all DataModules. Subclasses open their splits in `open` and say what they are.

    Batches are dicts: `image` (N, C, H, W) float32 in [-1, 1], and the fields of the data set.

    Args:
        data_dir: folder that holds the data set; None where the package carries it.
        cache_dir: folder for decoded or rendered images; None is `$ZOO_HOME/data` or `~/.cache/generative-zoo/data`.
        image_size: side of the images.
        batch_size: images per batch and device.
        num_workers: loader processes per device; 0 loads in the training process.
        seed: seed of the training order and of augmentation; None takes that of the run (`seed_everything`), else 0.

    Attributes:
        name: name of the data set with its size, as protocol strings have it, such as `fashionmnist32`.
        class_names: names of the values of each label field.
        licence: SPDX expression of the data's licence, or "none stated".
        splits: the opened splits.
    """

    licence: ClassVar[str] = "none stated"

    def __init__(
        self,
        data_dir: str | os.PathLike[str] | None = None,
        *,
        cache_dir: str | os.PathLike[str] | None = None,
        image_size: int = 32,
        batch_size: int = 64,
        num_workers: int = 0,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        if not 8 <= image_size <= 1024:
            raise ValueError(f"image_size must lie in 8..1024, not {image_size}")
        self.data_dir = None if data_dir is None else Path(data_dir).expanduser()
        self.cache_dir = default_cache_dir() if cache_dir is None else Path(cache_dir).expanduser()
        self.image_size = image_size
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.name = f"{type(self).__name__.lower()}{image_size}"
        self.class_names: dict[str, list[str]] = {}
        self.splits: dict[str, ImageSet] = {}
        self._images_before = 0  # images seen before the batches that the trainer counts since `_batches_before`
        self._batches_before: int | None = None

    # What a data set says --------------------------------------------------------------------------------------------

    @abstractmethod
    def open(self) -> dict[str, ImageSet]:
        """Open the splits `train`, `val` and `test` (called once per process)."""

    @property
    def num_train(self) -> int:
        """Number of training images."""
        self.setup("fit")
        return len(self.splits["train"])

    # Lightning's hooks -----------------------------------------------------------------------------------------------

    def setup(self, stage: str | None = None) -> None:
        """Open the splits."""
        if not self.splits:
            self.splits = self.open()

    def train_dataloader(self) -> DataLoader[Batch]:
        """Batches of the training stream, from where the run is."""
        self.setup("fit")
        images = self.splits["train"]
        _, world = self._rank_and_world()
        size = self.batch_size * world
        if size > len(images):
            raise ValueError(
                f"batch_size {self.batch_size} on {world} device(s) is larger than the {len(images)} training images "
                f"of {self.name}: take at most {len(images) // world}"
            )
        stream = Stream(images, self._run_seed())
        return self._loader(stream, _Positions(self, len(images) // size))

    def val_dataloader(self) -> DataLoader[Batch]:
        """The validation split, each image once."""
        return self._evaluation_loader("val")

    def test_dataloader(self) -> DataLoader[Batch]:
        """The test split, each image once."""
        return self._evaluation_loader("test")

    def predict_dataloader(self) -> DataLoader[Batch]:
        """The test split, each image once."""
        return self._evaluation_loader("test")

    def state_dict(self) -> dict[str, Any]:
        """Number of training images seen, over all ranks."""
        return {"images_seen": self._next_image()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on after the images that were seen."""
        self._images_before = state_dict["images_seen"]
        self._batches_before = None

    # For metrics -----------------------------------------------------------------------------------------------------

    def reference_batches(
        self, num_samples: int, chunk_size: int, *, split: str = "train", rank: int = 0, world_size: int = 1
    ) -> Iterator[tuple[int, Batch]]:
        """A fixed random subset of a split, without augmentation, in chunks by global index.

        Args:
            num_samples: images in the subset, the same for every run and seed.
            chunk_size: images per chunk; the last one may be smaller.
            split: `train`, `val` or `test`.
            rank: this rank gets chunks rank, rank + world_size, ...
            world_size: number of ranks.

        Yields:
            Index of the chunk's first image in the subset, and its batch.

        Raises:
            ValueError: an unknown split, or one with fewer images.
        """
        images = self._split(split)
        if num_samples > len(images):
            raise ValueError(f"the {split} split of {self.name} has {len(images)} images, {num_samples} were asked for")
        generator = torch.Generator().manual_seed(key(0, "reference", split))
        index = torch.randperm(len(images), generator=generator)[:num_samples]
        for first in range(rank * chunk_size, num_samples, world_size * chunk_size):
            yield first, images.batch(index[first : first + chunk_size])

    # Inside ----------------------------------------------------------------------------------------------------------

    def _split(self, split: str) -> ImageSet:
        self.setup()
        if split not in self.splits:
            raise ValueError(f"{self.name} has no split {split!r}: {nearest(split, self.splits)}")
        return self.splits[split]

    def _evaluation_loader(self, split: str) -> DataLoader[Batch]:
        images = self._split(split)
        return self._loader(Evaluation(images), _Strided(len(images), self.batch_size, *self._rank_and_world()))

    def _loader(self, dataset: Dataset[Batch], sampler: _Sampler) -> DataLoader[Batch]:
        return DataLoader(
            dataset,
            batch_size=None,  # the sampler gives whole batches
            sampler=sampler,
            num_workers=self.num_workers,
            persistent_workers=False,
            pin_memory=torch.cuda.is_available(),
        )

    def _run_seed(self) -> int:
        return int(os.environ.get("PL_GLOBAL_SEED", "0")) if self.seed is None else self.seed

    def _rank_and_world(self) -> tuple[int, int]:
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)

    def _next_image(self) -> int:
        """Position of the next image in the training stream."""
        if self.trainer is None:
            return self._images_before
        batches = self.trainer.fit_loop.epoch_loop.batch_progress.total.ready
        if self._batches_before is None:
            self._batches_before = batches if self._images_before else 0
        _, world = self._rank_and_world()
        return self._images_before + (batches - self._batches_before) * self.batch_size * world

    def _batches_left(self, length: int) -> int:
        """Batches left in the epoch: all, unless the run was resumed in the middle of it."""
        if self.trainer is None:
            return length
        return length - self.trainer.fit_loop.epoch_loop.batch_progress.current.ready % length
