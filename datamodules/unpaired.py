"""Images of two domains without pairs: two emoji vendors, two folders, halves of pictures, trainA/trainB trees.

The training order. Each domain is a stream of its own (see `zoo.datamodules.stream`) with its own seed: position p of
the run holds image number p of the one stream and image number p of the other. So each image of a domain is seen
equally often, beside another one each time, and ranks and resumed runs go on where they should.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from zoo.datamodules import pictures
from zoo.datamodules.base import ImageDataModule, ImageSet
from zoo.datamodules.emoji import Emoji
from zoo.datamodules.image_folder import ImageFolder
from zoo.datamodules.stream import Batch, Stream, key
from zoo.datamodules.translation import TranslationTask

__all__ = ["Pairs", "Unpaired", "UnpairedStream"]

DOMAINS = ("a", "b")


class Pairs(ImageSet):
    """The same split of two domains, image beside image: batches hold `image_a` and `image_b`.

    Args:
        a: images of the one domain.
        b: images of the other.
        training: the two as training has them, larger and with their augmentation; None takes `a` and `b`.
    """

    def __init__(self, a: ImageSet, b: ImageSet, training: tuple[ImageSet, ImageSet] | None = None) -> None:
        super().__init__([])
        self.a, self.b, self.training = a, b, training or (a, b)

    def __len__(self) -> int:
        # None twice: of domains of different size the larger one's last images are left out of evaluation.
        return min(len(self.a), len(self.b))

    def batch(self, index: Tensor, **options: Any) -> Batch:
        """A batch of this split, not augmented; arguments as for `ImageSet`."""
        return {f"image_{name}": images.batch(index)["image"] for name, images in (("a", self.a), ("b", self.b))}


class UnpairedStream(Stream):
    """The endless training stream of two domains.

    Args:
        images: the training split.
        seed: seed of both orders and of augmentation.
    """

    def __init__(self, images: Pairs, seed: int) -> None:
        super().__init__(images, seed)
        # NOTE(paper): the authors draw the images of one domain with replacement; here each comes once in its epoch.
        self.streams = [
            Stream(part, key(seed, "domain", name)) for name, part in zip(DOMAINS, images.training, strict=True)
        ]

    def __getitem__(self, positions: range) -> Batch:
        parts = zip(DOMAINS, self.streams, strict=True)
        return {f"image_{name}": stream[positions]["image"] for name, stream in parts}


class Unpaired(ImageDataModule):
    """Images of two domains, unpaired.

    Batches hold `image_a` and `image_b` (N, 3, H, W). In training the two are in orders of their own; an epoch has as
    many images as the larger domain. Without a `data_dir` the domains are emoji of two vendors, split by emoji; then,
    and for halves of pictures, `val` and `test` hold true pairs, to measure with.

    Training images are made larger than `image_size`, of which a random square is taken, and mirrored at random: a
    function of (seed, epoch, image). Evaluation has whole images.

    Args:
        data_dir: folder with `trainA`, `trainB`, `testA`, `testB`; or with pictures of domain a, if there is
            `data_dir_b`; or with pictures that hold both domains, if `side_by_side`.
        data_dir_b: folder with pictures of domain b.
        cache_dir: folder for rendered and decoded images.
        image_size: side of the images.
        batch_size: images of each domain per batch and device.
        num_workers: loader processes per device.
        seed: seed of the training orders and of augmentation; None takes that of the run.
        vendor_a: vendor of emoji of domain a, without a `data_dir`.
        vendor_b: vendor of emoji of domain b.
        fit: scale every emoji to the frame, as in `Emoji`.
        side_by_side: each picture's left half is of domain a and its right half of domain b.
        load_size: side of the training images before the crop; None is 286/256 of `image_size`, as in CycleGAN's paper.
        flip: mirror training images with probability 1/2.
        on_error: what to do with a file that cannot be read, as for `ImageFolder`.
        val_share: share of the validation split, where no folder gives it.
        test_share: share of the test split, where no folder gives it.

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
        batch_size: int = 1,
        num_workers: int = 0,
        seed: int | None = None,
        vendor_a: str = "openmoji",
        vendor_b: str = "noto",
        fit: bool = False,
        side_by_side: bool = False,
        load_size: int | None = None,
        flip: bool = True,
        on_error: Literal["refuse", "skip"] = "refuse",
        val_share: float = 0.1,
        test_share: float = 0.1,
    ) -> None:
        super().__init__(
            data_dir,
            cache_dir=cache_dir,
            image_size=image_size,
            batch_size=batch_size,
            num_workers=num_workers,
            seed=seed,
        )
        if fit and data_dir is not None:
            raise ValueError("fit is for emoji: leave it out, or data_dir")
        if data_dir is None and (data_dir_b is not None or side_by_side):
            raise ValueError(f"{'side_by_side' if side_by_side else 'data_dir_b'} needs a data_dir")
        if data_dir_b is not None and side_by_side:
            raise ValueError("side_by_side takes both domains from the pictures of data_dir: leave data_dir_b out")
        self.load_size = round(image_size * 286 / 256) if load_size is None else load_size
        if self.load_size < image_size:
            raise ValueError(f"load_size must be at least image_size {image_size}, not {load_size}")
        self.data_dir_b = None if data_dir_b is None else Path(data_dir_b).expanduser()
        self.vendors, self.fit = (vendor_a, vendor_b), fit
        self.side_by_side = side_by_side
        self.flip = flip
        self.folder_options: dict[str, Any] = {"on_error": on_error}
        self.shares: dict[str, Any] = {"val_share": val_share, "test_share": test_share}
        if self.data_dir is None:
            if vendor_a == vendor_b:
                raise ValueError(f"vendor_a and vendor_b must differ, both are {vendor_a!r}")
            self.licence = Emoji(vendors=self.vendors).licence  # knows the vendors, and names the nearest if need be
            domains = list(self.vendors)
        elif self.data_dir_b is not None:
            domains = [self.data_dir.resolve().name, self.data_dir_b.resolve().name]
        else:
            domains = ["A", "B"]
        self.class_names = {"domain": domains}
        single = self.data_dir is not None and self.data_dir_b is None
        self.name = f"{self.data_dir.resolve().name if single and self.data_dir else '2'.join(domains)}{image_size}"
        self.name += "-fit" if fit else ""

    def prepare_data(self) -> None:
        """Render or decode what is not in the cache yet."""
        self.open()

    def open(self) -> dict[str, ImageSet]:
        """The splits of both domains, and the training images at the larger size."""
        a, b = (self._domain(domain, self.image_size) for domain in DOMAINS)
        larger = (a, b)
        if self.load_size > self.image_size:
            larger = (self._domain("a", self.load_size), self._domain("b", self.load_size))
        augment = partial(augmented, size=self.image_size, flip=self.flip)
        first, second = (replace(domain["train"], augment=augment) for domain in larger)
        pairs: dict[str, ImageSet] = {split: Pairs(a[split], b[split]) for split in ("val", "test")}
        return {"train": Pairs(a["train"], b["train"], (first, second)), **pairs}

    def stream(self) -> Stream:
        """The training stream of both domains for the run's seed."""
        return UnpairedStream(self._training, self.run_seed)

    @property
    def domain_names(self) -> list[str]:
        """Names of the domains a and b."""
        return self.class_names["domain"]

    def translation_batches(
        self, num_samples: int, chunk_size: int, *, split: str = "test", rank: int = 0, world_size: int = 1
    ) -> Iterator[TranslationTask]:
        """The images of `reference_batches`, those of a with the target b and those of b with a; arguments as there."""
        aligned = self.side_by_side or self.data_dir is None
        chunks = self.reference_batches(num_samples, chunk_size, split=split, rank=rank, world_size=world_size)
        for _, batch in chunks:
            for origin, (source, target) in enumerate((("a", "b"), ("b", "a"))):
                image, other = batch[f"image_{source}"], batch[f"image_{target}"]
                assert isinstance(image, Tensor) and isinstance(other, Tensor)  # noqa: PT018
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
            return Emoji(vendors=[self.vendors[number]], fit=self.fit, **options).open()
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

    def _square(self, name: str) -> np.ndarray[Any, Any]:
        return pictures.square(self.folder / name, self.image_size, channels=self.image_channels, half=self.half)


def augmented(image: Tensor, seed: int, epoch: int, index: Tensor, *, size: int, flip: bool) -> Tensor:
    """A random square of each image, mirrored with probability 1/2 if asked for.

    Shape:
        image: (N, C, H, W); index: (N,); output: (N, C, size, size).
    """
    if image.size(2) > size:
        image = pictures.cropped(image, seed, epoch, index, size=size)
    return pictures.mirrored(image, seed, epoch, index) if flip else image
