"""The base of all DataModules: options, splits, loaders, reference images for metrics."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypedDict

from zoo.datamodules.base.image_set import Batch, ImageSet
from zoo.datamodules.base.loader import Loader, TrainLoader
from zoo.datamodules.base.position import RunPosition
from zoo.datamodules.base.pyramid import halved
from zoo.datamodules.base.stream import EvaluationDataset, MultiResolutionStream, TrainingStream
from zoo.engine.files import cache_home, nearest
from zoo.engine.rng import key, permutation

__all__ = ["DataOptions", "ImageDataModule", "ReadingOptions"]


class ReadingOptions(TypedDict, total=False):
    """Options that every DataModule has, with the same default everywhere."""

    num_workers: int
    seed: int | None


class DataOptions(ReadingOptions, total=False):
    """Options of a DataModule that has the usual cache folder and batch size.

    `ImageDataModule` documents all options and holds their defaults. A data set that has a default of its own declares
    the option in its own constructor.
    """

    cache_dir: str | os.PathLike[str] | None
    batch_size: int


class ImageDataModule(RunPosition):
    """Base of all DataModules. A subclass opens its splits in `open` and describes them.

    Batches are dicts: `image` (N, C, H, W) float32 in [-1, 1], and the fields of the data set.

    Args:
        data_dir: folder that holds the data set; None where the package carries the data.
        cache_dir: folder for decoded or rendered images; None is `$ZOO_HOME/data` or `~/.cache/generative-zoo/data`.
        image_size: side of the images.
        batch_size: images per batch and device; in training a model that grows has its own.
        num_workers: loader processes per device; 0 loads in the training process.
        seed: seed of the training order, of augmentation and of all other draws; None takes the seed of the run
            (`seed_everything`), else 0.

    Attributes:
        name: name of the data set with its size, as protocol strings have it, such as `fashionmnist32`.
        class_names: names of the values of each label field.
        image_channels: channels of the images.
        license: SPDX expression of the data's license, or "none stated".
        value_range: least and largest value of images.
        splits: the opened splits.
    """

    license: str = "none stated"
    image_channels: int = 3
    value_range = (-1, 1)
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
        super().__init__(batch_size, num_workers, seed)
        if not 8 <= image_size <= 1024:
            raise ValueError(f"image_size must lie in 8..1024, not {image_size}")
        self.data_dir = None if data_dir is None else Path(data_dir).expanduser()
        self.cache_dir = cache_home() / "data" if cache_dir is None else Path(cache_dir).expanduser()
        self.image_size = image_size
        self.name = f"{type(self).__name__.lower()}{image_size}"
        self.class_names: dict[str, list[str]] = {}
        self.splits: dict[str, ImageSet] = {}
        self._resolutions: dict[int, ImageSet] = {}
        self._loaders: list[Loader] = []

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # Type checkers read `**options: Unpack[DataOptions]`. The command line is to follow the options to the
        # constructor above: it has the defaults, which --help and config.yaml show and a TypedDict cannot hold.
        annotations = cls.__init__.__annotations__
        if "Unpack[" in str(annotations.get("options")):
            del annotations["options"]

    def __repr__(self) -> str:
        """Name, image size, splits, classes and license, as far as they are known; nothing is read or rendered."""
        channels = getattr(self, "image_channels", None)
        size = f"{self.image_size}x{self.image_size}"
        images = [f"images {size if channels is None else f'{channels}x{size}'}"]
        images += [f"{name} {len(split):,}" for name, split in self.splits.items()] or ["splits not opened yet"]
        classes = [f"{len(names)} of {field}" for field, names in self.class_names.items()]
        parts = [*images, *([f"classes: {', '.join(classes)}"] if classes else []), f"license: {self.license}"]
        return f"{type(self).__name__}({self.name}: {', '.join(parts)})"

    __str__ = __repr__  # Lightning's asks for all loaders

    # The data set ----------------------------------------------------------------------------------------------------

    @abstractmethod
    def open(self) -> dict[str, ImageSet]:
        """Open the splits `train`, `val` and `test` (called once per process)."""

    def stream(self) -> TrainingStream:
        """The training stream for the run's seed."""
        return TrainingStream(self.split("train"), self.run_seed)

    def at_resolution(self, resolution: int) -> ImageSet:
        """The training images at a lower resolution, made once; large files are kept in `cache_dir`.

        Args:
            resolution: `image_size`, or a half, a quarter, ...: each pixel is the mean of 2 x 2 of the next higher one.

        Raises:
            ValueError: another resolution.
        """
        if resolution == self.image_size:
            return self.split("train")
        if resolution not in self._resolutions:
            ratio, rest = divmod(self.image_size, resolution)
            if rest or ratio.bit_count() != 1:
                raise ValueError(
                    f"the model asks for images of {resolution} pixels; those of {self.name} come from "
                    f"{self.image_size} by halving: set image_size of model and data alike"
                )
            higher = self.at_resolution(2 * resolution)
            arrays = [halved(array, self.cache_dir) for array in higher.arrays]
            self._resolutions[resolution] = replace(higher, arrays=arrays)
        return self._resolutions[resolution]

    @property
    def num_train(self) -> int:
        """Number of training images."""
        return len(self.split("train"))

    def split(self, name: str) -> ImageSet:
        """A split by name; without a Trainer this first fetches or renders missing files.

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

    # Lightning's hooks -----------------------------------------------------------------------------------------------

    def setup(self, stage: str | None = None) -> None:
        """Open the splits; a fit starts at the first image (a checkpoint, if any, is read after this)."""
        if stage == "fit":
            self.rewind()
        self.split("train")
        if stage == "fit" and self.schedule is not None:
            self._scheduled_images()  # now, not in the middle of training

    def teardown(self, stage: str | None = None) -> None:
        """End loader processes."""
        for loader in self._loaders:
            loader.close()
        self._loaders.clear()

    def on_exception(self, exception: BaseException) -> None:
        """End loader processes of a fit that fails or is stopped, too."""
        self.teardown()

    def train_dataloader(self) -> Loader:
        """Batches of the training stream, from the position of the run."""
        stream = self.stream()
        if self.schedule is None:
            return self._opened(TrainLoader(self, stream))
        if type(stream) is not TrainingStream:
            raise ValueError(f"{type(self).__name__} cannot serve a model that grows with these settings")
        return self._opened(TrainLoader(self, MultiResolutionStream(self._scheduled_images(), self.run_seed)))

    def _scheduled_images(self) -> dict[int, ImageSet]:
        """The training images at all resolutions from the schedule's first one."""
        assert self.schedule is not None
        first, _, _ = self.schedule(0)
        resolutions = [first]
        while resolutions[-1] < self.image_size:
            resolutions.append(2 * resolutions[-1])
        return {resolution: self.at_resolution(resolution) for resolution in reversed(resolutions)}

    def val_dataloader(self) -> Loader | list[Loader]:
        """The validation split, each image once; nothing where the data set has none."""
        self.split("train")
        return self.evaluation_loader("val") if "val" in self.splits else []

    def test_dataloader(self) -> Loader:
        """The test split, each image once."""
        return self.evaluation_loader("test")

    def predict_dataloader(self) -> Loader:
        """The test split, each image once."""
        return self.evaluation_loader("test")

    def evaluation_loader(self, split: str) -> Loader:
        """A split in its own order, not augmented; rank r has images r, r + world, ...: no image twice, none missing.

        Args:
            split: name of the split.
        """
        images, (rank, world), size = self.split(split), self.rank_and_world, self.batch_size
        own = range(rank, len(images), world)
        plan = [own[i : i + size] for i in range(0, len(own), size)]
        dataset = EvaluationDataset(images)
        loader = Loader(dataset, lambda: plan, len(plan), num_workers=self.num_workers, pin_memory=self.pin_memory)
        return self._opened(loader)

    def _opened(self, loader: Loader) -> Loader:
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
        index = permutation(len(images), key(0, "reference", split))[:num_samples]
        for first in range(rank * chunk_size, num_samples, world_size * chunk_size):
            yield first, images.batch(index[first : first + chunk_size])
