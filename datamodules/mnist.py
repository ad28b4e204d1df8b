"""MNIST in torchvision's layout: four gzipped IDX files under `<data_dir>/MNIST/raw`."""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, Unpack

import numpy as np
import torch
from torch import Tensor

from zoo.datamodules.base.draws import uniform_by_index
from zoo.datamodules.base.files import fetch
from zoo.datamodules.base.image_set import ImageSet, on_levels
from zoo.datamodules.base.labelled import LabelledStream
from zoo.datamodules.base.module import DataOptions, ImageDataModule
from zoo.datamodules.base.pictures import resize
from zoo.datamodules.base.stream import TrainingStream
from zoo.engine.images import from_levels
from zoo.engine.rng import key

__all__ = ["MNIST"]

BINARIZE = ("none", "dynamic", "fixed")


def read_idx(path: Path, md5: str | None = None) -> np.ndarray[Any, Any]:
    """A gzipped IDX file of bytes.

    Args:
        path: the file.
        md5: sum of the unpacked content (mirrors pack the same content differently); None does not check.

    Raises:
        ValueError: the file is truncated, of another format, or has other content.
    """
    try:
        data = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is truncated or no gzip file ({error}): fetch it again") from error
    if md5 is not None and hashlib.md5(data).hexdigest() != md5:
        raise ValueError(f"{path} is not the published file (its MD5 sum differs): fetch it again, or set verify=False")
    if len(data) < 8 or data[:3] != b"\0\0\x08":
        raise ValueError(f"{path} is not an IDX file of bytes: fetch it again")
    shape = tuple(np.frombuffer(data, ">i4", data[3], 4).tolist())
    body = np.frombuffer(data, np.uint8, offset=4 + 4 * data[3])
    if len(body) != np.prod(shape):
        raise ValueError(f"{path} is truncated ({len(body)} of {int(np.prod(shape))} values): fetch it again")
    return body.reshape(shape).copy()


def scale(images: np.ndarray[Any, Any], size: int) -> np.ndarray[Any, Any]:
    """Gray images of 28 x 28 at another size: padded with black up to 32, resized with antialiasing otherwise.

    Shape:
        images: (N, 28, 28) uint8; output: (N, 1, size, size) uint8.
    """
    images = images[:, None]
    return np.pad(images, ((0, 0), (0, 0), (2, 2), (2, 2))) if size == 32 else resize(images, size)


@on_levels
def binarized(image: Tensor, seed: int, epoch: int, index: Tensor, *, purpose: str) -> Tensor:
    """Each pixel 255 with its gray value as the probability, else 0; a pure function.

    Args:
        image: (N, C, H, W) uint8, or in [-1, 1].
        seed: seed of the draw.
        epoch: how many times the images were seen before.
        index: (N,) numbers of the images.
        purpose: name of the split.
    """
    draws = uniform_by_index(index, image[0].numel(), key(seed, "binarize", purpose, epoch)).view_as(image)
    gray = from_levels(image) if image.dtype == torch.uint8 else image
    return ((gray + 1) / 2 > draws).byte().mul_(255)


class MNIST(ImageDataModule):
    """MNIST: 28 x 28 gray digits.

    50,000 training, 10,000 validation (the last ones of the training file) and 10,000 test images. Batches hold `image`
    (N, 1, H, W) and `label` (0 to 9).

    With `num_labelled` training is semi-supervised: the label of the other training images is -1, and batches hold
    `labelled` = {image, label}, a batch with a size of its own, drawn with replacement from the labelled images.
    Evaluation has all labels.

    Args:
        data_dir: folder that holds (or gets) `MNIST/raw/*.gz`.
        image_size: 28; 32 pads with black; other sizes are resized with antialiasing.
        binarize: "none" leaves gray values. "dynamic" draws each training pixel anew in every epoch, with its gray
            value as the probability, and draws validation and test images once with seed 0. "fixed" reads
            Larochelle's files `binarized_mnist_{train,valid,test}.amat` from data_dir (no labels; 28 pixels).
        num_labelled: number of training images with labels, equally many of each class, or all 50,000. The seed of the
            run chooses them; a smaller set lies within a larger one. None: all images have labels, and batches hold no
            `labelled`.
        labelled_batch_size: images in `labelled` per batch and device.
        verify: check the MD5 sums of the files' contents.

    References:
        LeCun et al. 1998; Salakhutdinov and Murray 2008 (dynamic binarization); Larochelle and Murray 2011 (fixed).
    """

    license = "CC-BY-SA-3.0"
    image_channels = 1
    files: ClassVar[dict[str, str]] = {
        "train-images-idx3-ubyte.gz": "6bbc9ace898e44ae57da46a324031adb",
        "train-labels-idx1-ubyte.gz": "a25bea736e30d166cdddb491f175f624",
        "t10k-images-idx3-ubyte.gz": "2646ac647ad5339dbf082846283269ea",
        "t10k-labels-idx1-ubyte.gz": "27ae3e4e09519cfbb04c329615203637",
    }
    labels: ClassVar[list[str]] = [str(digit) for digit in range(10)]

    def __init__(
        self,
        data_dir: str | os.PathLike[str] = "data",
        *,
        image_size: int = 28,
        binarize: Literal["none", "dynamic", "fixed"] = "none",
        num_labelled: int | None = None,
        labelled_batch_size: int = 100,
        verify: bool = True,
        **options: Unpack[DataOptions],
    ) -> None:
        super().__init__(data_dir, image_size=image_size, **options)
        if binarize not in BINARIZE:
            raise ValueError(f"unknown binarize {binarize!r}: take one of {', '.join(BINARIZE)}")
        if binarize == "fixed" and (image_size != 28 or type(self) is not MNIST):
            raise ValueError("binarize='fixed' exists for MNIST at 28 pixels only")
        classes = len(self.labels)
        if num_labelled is not None and binarize == "fixed":
            raise ValueError("num_labelled needs labels, and binarize='fixed' has none: take 'dynamic' or 'none'")
        if num_labelled is not None and num_labelled % classes:
            raise ValueError(f"num_labelled must be a multiple of the {classes} classes, not {num_labelled}")
        self.binarize = binarize
        self.num_labelled = num_labelled
        self.labelled_batch_size = labelled_batch_size
        self.verify = verify
        if binarize != "none":
            self.name = f"{self.name}-{binarize}"
        self.class_names = {} if binarize == "fixed" else {"label": self.labels}

    @property
    def folder(self) -> Path:
        """Where the files lie: `<data_dir>/<name>/raw`."""
        assert self.data_dir is not None
        return self.data_dir / type(self).__name__ / "raw"

    def prepare_data(self) -> None:
        """Fetch the files that are missing."""
        if self.binarize == "fixed":
            return

        def download(file: str, folder: str) -> None:
            from torchvision import datasets
            from torchvision.datasets.utils import download_url

            published = getattr(datasets, type(self).__name__)
            download_url(published.mirrors[0] + file, folder, file, dict(published.resources)[file])

        fetch(type(self).__name__, self.folder, self.files, download)

    def open(self) -> dict[str, ImageSet]:
        """Read the files in place."""
        if self.binarize == "fixed":
            return self._open_fixed()
        images, labels = {}, {}
        for part in ("train", "t10k"):
            images[part] = scale(self._read(f"{part}-images-idx3-ubyte.gz"), self.image_size)
            labels[part] = torch.from_numpy(self._read(f"{part}-labels-idx1-ubyte.gz").astype(np.int64))
        held = len(images["train"]) // 6  # 10,000 of 60,000
        rows = torch.arange(len(images["train"]))
        fields: dict[str, Tensor | list[str]] = {"label": labels["train"]}
        splits = {
            "train": ImageSet([images["train"]], fields, rows[:-held]),
            "val": ImageSet([images["train"]], fields, rows[-held:]),
            "test": ImageSet([images["t10k"]], {"label": labels["t10k"]}),
        }
        if self.binarize == "dynamic":
            for name, split in splits.items():
                split.augment, split.always = partial(binarized, purpose=name), True
        return splits

    def stream(self) -> TrainingStream:
        """The training stream for the run's seed; with `num_labelled`, with few labels."""
        if self.num_labelled is None:
            return super().stream()
        return LabelledStream(self.split("train"), self.run_seed, self.num_labelled, self.labelled_batch_size)

    def _open_fixed(self) -> dict[str, ImageSet]:
        assert self.data_dir is not None
        splits = {}
        for split, name in (("train", "train"), ("val", "valid"), ("test", "test")):
            path = self.data_dir / f"binarized_mnist_{name}.amat"
            if not path.exists():
                raise FileNotFoundError(
                    f"{path} is missing: binarize='fixed' reads Larochelle's binarized_mnist_{{train,valid,test}}.amat "
                    "from there; binarize='dynamic' needs no further files"
                )
            text = np.frombuffer(path.read_bytes(), np.uint8)
            values = text[text > ord(" ")] - ord("0")  # single digits between blanks
            if len(values) == 0 or len(values) % 784 or values.max() > 1:
                raise ValueError(f"{path} does not hold rows of 784 zeros and ones: fetch it again")
            splits[split] = ImageSet([(values * 255).reshape(-1, 1, 28, 28)])
        return splits

    def _read(self, name: str) -> np.ndarray[Any, Any]:
        path = self.folder / name
        if not path.exists():
            raise FileNotFoundError(f"{path} is missing: put {', '.join(self.files)} there, or set data_dir")
        return read_idx(path, self.files[name] if self.verify else None)
