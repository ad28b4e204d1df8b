"""Images of two domains without pairs: two emoji vendors, two folders, halves of pictures, trainA/trainB trees.

Order of training: each domain has a stream (see `zoo.datamodules.base.stream`) with a seed of its own. Position p of
the run holds image p of the one stream and image p of the other. So training sees all images of a domain equally often,
each time next to another partner, on any number of ranks and after a resume.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, Unpack

import numpy as np
import torch
from torch import Tensor

from zoo.datamodules.base.draws import cropped_and_mirrored
from zoo.datamodules.base.image_set import Batch, ImageSet
from zoo.datamodules.base.module import ImageDataModule, ReadingOptions
from zoo.datamodules.base.pictures import square
from zoo.datamodules.base.stream import TrainingStream
from zoo.datamodules.base.translation import TranslationTask
from zoo.datamodules.emoji import Emoji
from zoo.datamodules.image_folder import ImageFolder
from zoo.engine.rng import key

__all__ = ["Pairs", "Unpaired", "UnpairedStream"]

DOMAINS = ("a", "b")


class Pairs(ImageSet):
    """The same split of two domains: batches hold `image_a` and `image_b`.

    Args:
        a: images of the one domain.
        b: images of the other.
        training: the images of both domains for training, larger and with augmentation; None takes `a` and `b`.
    """

    def __init__(self, a: ImageSet, b: ImageSet, training: tuple[ImageSet, ImageSet] | None = None) -> None:
        super().__init__([])
        self.a, self.b, self.training = a, b, training or (a, b)

    def __len__(self) -> int:
        # Evaluation takes no image twice: it leaves out the last images of the larger domain.
        return min(len(self.a), len(self.b))

    def levels(self, index: Tensor, **options: Any) -> Batch:
        """A batch of this split, not augmented; arguments as for `ImageSet`."""
        return {f"image_{name}": images.served(index)["image"] for name, images in (("a", self.a), ("b", self.b))}


class UnpairedStream(TrainingStream):
    """The training streams of two domains, each in an order of its own.

    Args:
        images: the training split.
        seed: seed of both orders and of augmentation.
    """

    def __init__(self, images: Pairs, seed: int) -> None:
        super().__init__(images, seed)
        # NOTE(paper): the authors draw the images of one domain with replacement; here each comes once in its epoch.
        self.streams = [
            TrainingStream(part, key(seed, "domain", name)) for name, part in zip(DOMAINS, images.training, strict=True)
        ]

    def levels(self, positions: range) -> Batch:
        """The batch at positions of the run, of both domains."""
        parts = zip(DOMAINS, self.streams, strict=True)
        return {f"image_{name}": stream.levels(positions)["image"] for name, stream in parts}


class Unpaired(ImageDataModule):
    """Images of two domains, unpaired.

    Batches hold `image_a` and `image_b` (N, C, H, W). In training each domain has an order of its own; an epoch has as
    many images as the larger domain. Without a `data_dir` the domains are emoji of two vendors, split by emoji. For
    these and for halves of pictures, `val` and `test` hold true pairs, to measure with.

    Training takes a random square of a larger image and mirrors at random, drawn for (seed, epoch, image). Evaluation
    takes whole images.

    Args:
        data_dir: folder with `trainA`, `trainB`, `testA`, `testB`; with `data_dir_b`, folder with pictures of domain a;
            with `side_by_side`, folder with pictures that show both domains.
        data_dir_b: folder with pictures of domain b.
        cache_dir: folder for rendered and decoded images; None is `$ZOO_HOME/data` or `~/.cache/generative-zoo/data`.
        image_size: side of the images.
        image_channels: 3 for color, 1 for gray pictures of folders, as the authors' code takes them too.
        batch_size: images of each domain per batch and device.
        vendor_a: vendor of the emoji of domain a, without a `data_dir`.
        vendor_b: vendor of the emoji of domain b.
        fit_to_frame: scale every emoji to the frame, as in `Emoji`.
        side_by_side: the left half of each picture shows domain a, the right half domain b.
        load_size: side of the training images before the crop; None is 286/256 of `image_size`, as in CycleGAN's paper.
        flip: mirror training images with probability 1/2.
        on_error: "refuse" or "skip" files that cannot be read, as in `ImageFolder`.
        val_share: share of the validation split, if there is no folder for it.
        test_share: share of the test split, if there is no folder for it.

    Raises:
        ValueError: options that exclude each other.
    """

    def __init__(
        self,
        data_dir: str | os.PathLike[str] | None = None,
        data_dir_b: str | os.PathLike[str] | None = None,
        *,
        cache_dir: str | os.PathLike[str] | None = None,
        image_size: int = 256,
        image_channels: int = 3,
        batch_size: int = 1,
        vendor_a: str = "openmoji",
        vendor_b: str = "noto",
        fit_to_frame: bool = False,
        side_by_side: bool = False,
        load_size: int | None = None,
        flip: bool = True,
        on_error: Literal["refuse", "skip"] = "refuse",
        val_share: float = 0.1,
        test_share: float = 0.1,
        **options: Unpack[ReadingOptions],
    ) -> None:
        super().__init__(data_dir, cache_dir=cache_dir, image_size=image_size, batch_size=batch_size, **options)
        if fit_to_frame and data_dir is not None:
            raise ValueError("fit_to_frame is for emoji: leave it out, or data_dir")
        if image_channels not in (1, 3):
            raise ValueError(f"image_channels must be 1 or 3, not {image_channels}")
        if image_channels != 3 and data_dir is None:
            raise ValueError(f"emoji have 3 channels: leave image_channels {image_channels} out, or give a data_dir")
        if data_dir is None and (data_dir_b is not None or side_by_side):
            raise ValueError(f"{'side_by_side' if side_by_side else 'data_dir_b'} needs a data_dir")
        if data_dir_b is not None and side_by_side:
            raise ValueError("side_by_side takes both domains from the pictures of data_dir: leave data_dir_b out")
        self.load_size = round(image_size * 286 / 256) if load_size is None else load_size
        if self.load_size < image_size:
            raise ValueError(f"load_size must be at least image_size {image_size}, not {load_size}")
        self.data_dir_b = None if data_dir_b is None else Path(data_dir_b).expanduser()
        self.vendors, self.fit_to_frame = (vendor_a, vendor_b), fit_to_frame
        self.side_by_side = side_by_side
        self.flip = flip
        self.image_channels = image_channels
        self.folder_options: dict[str, Any] = {"on_error": on_error, "image_channels": image_channels}
        self.shares: dict[str, Any] = {"val_share": val_share, "test_share": test_share}
        if self.data_dir is None:
            if vendor_a == vendor_b:
                raise ValueError(f"vendor_a and vendor_b must differ, both are {vendor_a!r}")
            self.license = Emoji(vendors=self.vendors).license  # names the nearest vendor if one is unknown
            domains = list(self.vendors)
        elif self.data_dir_b is not None:
            domains = [self.data_dir.resolve().name, self.data_dir_b.resolve().name]
        else:
            domains = ["A", "B"]
        self.class_names = {"domain": domains}
        single = self.data_dir is not None and self.data_dir_b is None
        self.name = f"{self.data_dir.resolve().name if single and self.data_dir else '2'.join(domains)}{image_size}"
        self.name += "-fit" if fit_to_frame else ""
        self.name += "-grey" if image_channels == 1 else ""

    def prepare_data(self) -> None:
        """Render or decode the images that the cache lacks."""
        self.open()

    def open(self) -> dict[str, ImageSet]:
        """The splits of both domains, and the training images at the larger size."""
        a, b = (self._domain(domain, self.image_size) for domain in DOMAINS)
        larger = (a, b)
        if self.load_size > self.image_size:
            larger = (self._domain("a", self.load_size), self._domain("b", self.load_size))
        augment = partial(cropped_and_mirrored, size=self.image_size, flip=self.flip)
        first, second = (replace(domain["train"], augment=augment) for domain in larger)
        pairs: dict[str, ImageSet] = {split: Pairs(a[split], b[split]) for split in ("val", "test")}
        return {"train": Pairs(a["train"], b["train"], (first, second)), **pairs}

    def stream(self) -> TrainingStream:
        """The training stream of both domains for the run's seed."""
        return UnpairedStream(self._training, self.run_seed)

    @property
    def domain_names(self) -> list[str]:
        """Names of the domains a and b."""
        return self.class_names["domain"]

    def translation_batches(
        self, num_samples: int, chunk_size: int, *, split: str = "test", rank: int = 0, world_size: int = 1
    ) -> Iterator[TranslationTask]:
        """The images of `reference_batches`, from a to b and from b to a; arguments as there."""
        aligned = self.side_by_side or self.data_dir is None
        chunks = self.reference_batches(num_samples, chunk_size, split=split, rank=rank, world_size=world_size)
        for _, batch in chunks:
            for origin, (source, target) in enumerate((("a", "b"), ("b", "a"))):
                image, other = batch[f"image_{source}"], batch[f"image_{target}"]
                paired = torch.full((len(image),), aligned)
                origins = torch.full((len(image),), origin)
                yield TranslationTask(image, origins, 1 - origin, source, target, paired, other[paired])

    @property
    def num_train(self) -> int:
        """Number of training images of the larger domain."""
        return max(map(len, self._training.training))

    @property
    def _training(self) -> Pairs:
        images = self.split("train")
        assert isinstance(images, Pairs)
        return images

    def _domain(self, domain: str, size: int) -> dict[str, ImageSet]:
        """The splits of one domain at one size."""
        number = DOMAINS.index(domain)
        options: dict[str, Any] = {"cache_dir": self.cache_dir, "image_size": size}
        if self.data_dir is None:
            return Emoji(vendors=[self.vendors[number]], fit_to_frame=self.fit_to_frame, **options).open()
        options |= self.folder_options
        if self.side_by_side:
            return Half(self.data_dir, number, **options, **self.shares).open()
        if self.data_dir_b is not None:
            return ImageFolder((self.data_dir, self.data_dir_b)[number], **options, **self.shares).open()

        folders = {split: self.data_dir / f"{split}{domain.upper()}" for split in ("train", "val", "test")}
        if not folders["train"].is_dir():
            raise FileNotFoundError(
                f"there is no folder {folders['train']}: data_dir must hold trainA and trainB; or give data_dir_b, "
                "or side_by_side=True for pictures of both domains"
            )
        given = {split: folders[split] for split in ("val", "test") if folders[split].is_dir()}
        options |= self.shares | {f"{split}_share": 0.0 for split in given}
        splits = ImageFolder(folders["train"], **options).open()
        options |= {"val_share": 0.0, "test_share": 0.0}
        for split, folder in given.items():
            splits[split] = ImageFolder(folder, **options).open()["train"]
        return splits


class Half(ImageFolder):
    """The left (0) or the right half (1) of each picture of a folder; arguments as for `ImageFolder`."""

    def __init__(self, data_dir: str | os.PathLike[str], half: int, **options: Any) -> None:
        super().__init__(data_dir, **options)
        self.half = half
        self.name = f"{self.name}-{('left', 'right')[half]}"

    # NOTE(paper): the authors' code squeezes pictures that are not square, here their central square is cut out.
    def _square(self, name: str) -> np.ndarray[Any, Any]:
        return square(self.folder / name, self.image_size, channels=self.image_channels, half=self.half)
