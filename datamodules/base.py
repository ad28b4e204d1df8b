"""The shared base of all DataModules: splits as arrays, an endless keyed training stream, unpadded evaluation.

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
from typing import Any, TypeVar, cast

import lightning as L
import numpy as np
import torch
from lightning.pytorch.loops.progress import _ProcessedTracker
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

__all__ = ["Batch", "ImageDataModule", "ImageSet", "default_cache_dir", "key", "nearest"]

Batch = dict[str, Any]
_AnyLoader = TypeVar("_AnyLoader", bound="Loader")


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
        dataset: gives a whole batch for a range of positions.
        plan: the ranges of one pass, asked for when the first batch of the pass is fetched.
        length: batches of a whole pass.
        num_workers: loader processes.
        pin_memory: put batches into page-locked memory, from where a GPU can fetch them.
    """

    def __init__(
        self,
        dataset: Dataset[Batch],
        plan: Callable[[], Iterable[range]],
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
        """End the loader processes."""
        self._loader._iterator = None


class _Plan(Sampler[range]):
    def __init__(self, plan: Callable[[], Iterable[range]]) -> None:
        self.plan = plan

    def __iter__(self) -> Iterator[range]:
        return iter(self.plan())


class TrainLoader(Loader):
    """This rank's batches of the training stream, from where the run is to the end of the epoch.

    Its length is that of a whole epoch, as Lightning counts from the epoch's start after a resume too.

    Args:
        module: knows where the run is.
        stream: the training stream.
    """

    def __init__(self, module: ImageDataModule, stream: Stream) -> None:
        self.module = module
        length = len(stream.images) // module.global_batch_size
        super().__init__(stream, self._rest, length, num_workers=module.num_workers, pin_memory=module.pin_memory)

    def _rest(self) -> list[range]:
        (rank, world), size = self.module.rank_and_world, self.module.batch_size
        first = self.module.images_seen
        left = range(self.length - self.module.batches_into_epoch)
        if self.module.overfitting:  # the same batches in every epoch
            first = self.module.batches_into_epoch * size * world
        return [range(start, start + size) for k in left for start in (first + (k * world + rank) * size,)]

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

    licence: str = "none stated"
    # A rank may have no image of a small evaluation split; no training loader is ever empty.
    allow_zero_length_dataloader_with_multiple_devices = True

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
        if num_workers < 0:
            raise ValueError(f"num_workers must be at least 0, not {num_workers}")
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
        self._loaders: list[Loader] = []
        self._restored_seed: int | None = None
        # Images seen when the trainer had counted so many batches.
        self._images, self._batches = 0, 0

    # What a data set says --------------------------------------------------------------------------------------------

    @abstractmethod
    def open(self) -> dict[str, ImageSet]:
        """Open the splits `train`, `val` and `test` (called once per process)."""

    def stream(self) -> Stream:
        """The training stream for the run's seed."""
        return Stream(self.split("train"), self.run_seed)

    @property
    def num_train(self) -> int:
        """Number of training images."""
        return len(self.split("train"))

    def split(self, name: str) -> ImageSet:
        """A split by name; without a Trainer this fetches or renders first what is missing.

        Args:
            name: `train`, `val` or `test`, or one of the data set's own.

        Raises:
            ValueError: there is no such split.
        """
        if not self.splits:
            if self.trainer is None:
                self.prepare_data()
            self.splits = self.open()
        if name not in self.splits:
            raise ValueError(f"{self.name} has no split {name!r}: {nearest(name, self.splits)}")
        return self.splits[name]

    # Where the run is ------------------------------------------------------------------------------------------------

    @property
    def run_seed(self) -> int:
        """Seed of order and augmentation: the given one, else that of the resumed run, else of `seed_everything`."""
        given = self._restored_seed if self.seed is None else self.seed
        return int(os.environ.get("PL_GLOBAL_SEED", "0")) if given is None else given

    @property
    def rank_and_world(self) -> tuple[int, int]:
        """This process's number among all, and how many there are."""
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)

    @property
    def global_batch_size(self) -> int:
        """Images per step over all ranks.

        Raises:
            ValueError: larger than the training split.
        """
        images, (_, world) = self.num_train, self.rank_and_world
        if self.batch_size * world > images:
            raise ValueError(
                f"batch_size {self.batch_size} on {world} device(s) is larger than the {images} training images "
                f"of {self.name}: take at most {images // world}"
            )
        return self.batch_size * world

    @property
    def images_seen(self) -> int:
        """Training images seen in the run, over all ranks: position of the next one in the stream."""
        return self._images + (self._counted - self._batches) * self.global_batch_size

    @property
    def batches_into_epoch(self) -> int:
        """Batches of the present epoch that are done: 0 unless the run was resumed in the middle of it."""
        return 0 if self.trainer is None else self.trainer.fit_loop.epoch_loop.batch_progress.current.ready

    @property
    def overfitting(self) -> bool:
        """Whether the Trainer was told to overfit a few batches."""
        return self.trainer is not None and bool(getattr(self.trainer, "overfit_batches", 0))

    @property
    def pin_memory(self) -> bool:
        """Whether batches go to a GPU."""
        if self.trainer is None:
            return torch.cuda.is_available()
        return self.trainer.strategy.root_device.type == "cuda"

    @property
    def _counted(self) -> int:
        # `processed`: a batch whose step was interrupted is done again. Loaders fetch ahead, so they cannot count.
        if self.trainer is None:
            return self._batches
        return cast(_ProcessedTracker, self.trainer.fit_loop.epoch_loop.batch_progress.total).processed

    def count(self) -> None:
        """Count a training batch, where there is no Trainer that does."""
        if self.trainer is None:
            self._images += self.batch_size

    # Lightning's hooks -----------------------------------------------------------------------------------------------

    def setup(self, stage: str | None = None) -> None:
        """Open the splits; a fit starts at the first image (a checkpoint, if any, is read after this)."""
        if stage == "fit":
            self._images, self._batches, self._restored_seed = 0, 0, None
        self.split("train")

    def teardown(self, stage: str | None = None) -> None:
        """End loader processes."""
        for loader in self._loaders:
            loader.close()
        self._loaders.clear()

    def train_dataloader(self) -> Loader:
        """Batches of the training stream, from where the run is."""
        return self._opened(TrainLoader(self, self.stream()))

    def val_dataloader(self) -> Loader:
        """The validation split, each image once."""
        return self.evaluation_loader("val")

    def test_dataloader(self) -> Loader:
        """The test split, each image once."""
        return self.evaluation_loader("test")

    def predict_dataloader(self) -> Loader:
        """The test split, each image once."""
        return self.evaluation_loader("test")

    def evaluation_loader(self, split: str) -> Loader:
        """A split in its own order, not augmented; this rank has images rank, rank + world, ... none twice, none lost.

        Args:
            split: name of the split.
        """
        images, (rank, world), size = self.split(split), self.rank_and_world, self.batch_size
        own = range(rank, len(images), world)
        plan = [own[i : i + size] for i in range(0, len(own), size)]
        loader = Loader(
            Evaluation(images), lambda: plan, len(plan), num_workers=self.num_workers, pin_memory=self.pin_memory
        )
        return self._opened(loader)

    def state_dict(self) -> dict[str, Any]:
        """Where the run is in the training stream."""
        return {"seed": self.run_seed, "images_seen": self.images_seen, "batches": self._counted}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on after the images that were seen, with any batch size and number of ranks."""
        self._restored_seed = state_dict["seed"]
        self._images, self._batches = state_dict["images_seen"], state_dict["batches"]

    def _opened(self, loader: _AnyLoader) -> _AnyLoader:
        self._loaders.append(loader)
        return loader

    # For metrics -----------------------------------------------------------------------------------------------------

    def reference_batches(
        self, num_samples: int, chunk_size: int, *, split: str = "train", rank: int = 0, world_size: int = 1
    ) -> Iterator[tuple[int, Batch]]:
        """A fixed random subset of a split, without augmentation, in chunks by global index.

        Args:
            num_samples: images in the subset, the same for every run and seed.
            chunk_size: images per chunk; the last one may be smaller.
            split: name of the split.
            rank: this rank gets chunks rank, rank + world_size, ...
            world_size: number of ranks.

        Yields:
            Index of the chunk's first image in the subset, and its batch.

        Raises:
            ValueError: an unknown split, or one with fewer images.
        """
        images = self.split(split)
        if num_samples > len(images):
            raise ValueError(f"the {split} split of {self.name} has {len(images)} images, {num_samples} were asked for")
        generator = torch.Generator().manual_seed(key(0, "reference", split))
        index = torch.randperm(len(images), generator=generator)[:num_samples]
        for first in range(rank * chunk_size, num_samples, world_size * chunk_size):
            yield first, images.batch(index[first : first + chunk_size])
