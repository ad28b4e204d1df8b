"""The shared base of all DataModules: options, splits, where the run is, loaders, references for metrics."""

from __future__ import annotations

import difflib
import os
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar, cast

import lightning as L
import torch
from lightning.pytorch.loops.progress import _ProcessedTracker

from zoo.datamodules.pyramid import halved
from zoo.datamodules.stream import Batch, Evaluation, ImageSet, Levels, Loader, Scheduled, Stream, TrainLoader, key

__all__ = ["Batch", "ImageDataModule", "ImageSet", "default_cache_dir", "key", "nearest"]

_AnyLoader = TypeVar("_AnyLoader", bound=Loader)


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of an error message: the nearest known name, or all of them."""
    known = list(known)
    close = difflib.get_close_matches(name, known, 1)
    return f"did you mean {close[0]!r}?" if close else f"take one of {', '.join(known)}"


def default_cache_dir() -> Path:
    """Where decoded and rendered images are kept: `$ZOO_HOME/data`, else `~/.cache/generative-zoo/data`."""
    home = os.environ.get("ZOO_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "generative-zoo")
    return Path(home).expanduser() / "data"


class ImageDataModule(L.LightningDataModule):
    """Base of all DataModules. Subclasses open their splits in `open` and say what they are.

    Batches are dicts: `image` (N, C, H, W) float32 in [-1, 1], and the fields of the data set.

    Args:
        data_dir: folder that holds the data set; None where the package carries it.
        cache_dir: folder for decoded or rendered images; None is `$ZOO_HOME/data` or `~/.cache/generative-zoo/data`.
        image_size: side of the images.
        batch_size: images per batch and device; in training a model that grows has its own.
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
        self._levels: dict[int, ImageSet] = {}
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

    def level(self, size: int) -> ImageSet:
        """The training images at a smaller size, made once; large ones are kept in `cache_dir`.

        Args:
            size: `image_size`, or a half, a quarter, ... of it: each pixel is the mean of 2 x 2 of the next larger one.

        Raises:
            ValueError: another size.
        """
        if size == self.image_size:
            return self.split("train")
        if size not in self._levels:
            if size > self.image_size or self.image_size % size or (self.image_size // size).bit_count() > 1:
                raise ValueError(
                    f"the model asks for images of {size} pixels; those of {self.name} come from {self.image_size} by "
                    "halving: set image_size of model and data alike"
                )
            larger = self.level(2 * size)
            self._levels[size] = replace(larger, arrays=[halved(array, self.cache_dir) for array in larger.arrays])
        return self._levels[size]

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
    def schedule(self) -> Callable[[int], tuple[int, float, int]] | None:
        """The schedule of the trained model, if it has one."""
        model = None if self.trainer is None else self.trainer.lightning_module
        return model.schedule if isinstance(model, Scheduled) else None

    @property
    def images_seen(self) -> int:
        """Training images seen in the run, over all ranks: position of the next one in the stream."""
        if (schedule := self.schedule) is not None:
            while self._batches < self._counted:
                self._images, self._batches = self._images + schedule(self._images)[2], self._batches + 1
            return self._images
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
        if stage == "fit" and self.schedule is not None:
            self._scheduled_levels()  # now, not in the middle of training

    def teardown(self, stage: str | None = None) -> None:
        """End loader processes."""
        for loader in self._loaders:
            loader.close()
        self._loaders.clear()

    def train_dataloader(self) -> Loader:
        """Batches of the training stream, from where the run is."""
        stream = self.stream()
        if self.schedule is None:
            return self._opened(TrainLoader(self, stream))
        if type(stream) is not Stream:
            raise ValueError(f"{type(self).__name__} cannot serve a model that grows with these settings")
        return self._opened(TrainLoader(self, Levels(self._scheduled_levels(), self.run_seed)))

    def _scheduled_levels(self) -> dict[int, ImageSet]:
        """The training images at all sizes from the schedule's first one."""
        assert self.schedule is not None
        first, _, _ = self.schedule(0)
        sizes = [first]
        while sizes[-1] < self.image_size:
            sizes.append(2 * sizes[-1])
        return {size: self.level(size) for size in reversed(sizes)}

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
