"""CIFAR-10 in torchvision's layout: `<data_dir>/cifar-10-batches-py/`, or the archive of that folder."""

from __future__ import annotations

import codecs
import hashlib
import io
import os
import pickle
import tarfile
from pathlib import Path
from typing import Any, ClassVar, Unpack

import numpy as np
import torch

from zoo.datamodules.base.draws import mirrored
from zoo.datamodules.base.files import fetch
from zoo.datamodules.base.image_set import ImageSet
from zoo.datamodules.base.module import DataOptions, ImageDataModule
from zoo.datamodules.base.pictures import resize

__all__ = ["CIFAR10"]

FOLDER, ARCHIVE = "cifar-10-batches-py", "cifar-10-python.tar.gz"


class _Unpickler(pickle.Unpickler):
    """Builds arrays and plain types, and refuses everything else that a pickle may ask for."""

    _ALLOWED: ClassVar[dict[str, Any]] = {
        "_reconstruct": np.empty(0).__reduce__()[0],
        "ndarray": np.ndarray,
        "dtype": np.dtype,
        "encode": codecs.encode,
    }

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] not in ("numpy", "_codecs") or name not in self._ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no CIFAR file needs")
        return self._ALLOWED[name]


class CIFAR10(ImageDataModule):
    """CIFAR-10: 32 x 32 color photographs of ten kinds of things.

    45,000 training, 5,000 validation (the last ones of the training files) and 10,000 test images, or all 50,000 for
    training with `val_share=0`. Batches hold `image` (N, 3, H, W) and `label` (0 to 9).

    Args:
        data_dir: folder that holds (or gets) `cifar-10-batches-py/` or `cifar-10-python.tar.gz`, read in place.
        image_size: 32; other sizes are resized with antialiasing.
        flip: mirror training images with probability 1/2, drawn anew in every epoch.
        verify: check the MD5 sums of the files.
        val_share: share of the training files that is kept for validation.

    Raises:
        ValueError: the share leaves nothing to train on.

    References:
        Krizhevsky 2009, Learning multiple layers of features from tiny images.
    """

    files: ClassVar[dict[str, str]] = {
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        "test_batch": "40351d587109b95175f43aff81a1287e",
    }
    labels: ClassVar[list[str]] = [
        *("airplane", "automobile", "bird", "cat", "deer"),
        *("dog", "frog", "horse", "ship", "truck"),
    ]

    def __init__(
        self,
        data_dir: str | os.PathLike[str] = "data",
        *,
        image_size: int = 32,
        flip: bool = False,
        verify: bool = True,
        val_share: float = 0.1,
        **options: Unpack[DataOptions],
    ) -> None:
        super().__init__(data_dir, image_size=image_size, **options)
        self.folder = Path(data_dir).expanduser()
        self.flip = flip
        self.verify = verify
        self.val_share = val_share
        self.class_names = {"label": self.labels}

    def prepare_data(self) -> None:
        """Fetch the archive, if neither it nor the folder is there."""

        def download(file: str, folder: str) -> None:
            from torchvision.datasets import CIFAR10 as Published
            from torchvision.datasets.utils import download_url

            download_url(Published.url, folder, file, Published.tgz_md5)

        if not (self.folder / FOLDER).is_dir():
            fetch("CIFAR10", self.folder, [ARCHIVE], download)

    def open(self) -> dict[str, ImageSet]:
        """Read the files, of the folder or within the archive."""
        parts = {name: self._batch(name, data) for name, data in self._contents().items()}
        images, labels = (
            np.concatenate([part[i] for name, part in parts.items() if name != "test_batch"]) for i in (0, 1)
        )
        test = parts["test_batch"]
        kept = len(images) - int(self.val_share * len(images))  # 45,000 of 50,000 by default
        rows = torch.arange(len(images))
        train = resize(images, self.image_size)
        return {
            "train": ImageSet(
                [train], {"label": torch.from_numpy(labels)}, rows[:kept], mirrored if self.flip else None
            ),
            "val": ImageSet([train], {"label": torch.from_numpy(labels)}, rows[kept:]),
            "test": ImageSet([resize(test[0], self.image_size)], {"label": torch.from_numpy(test[1])}),
        }

    def _contents(self) -> dict[str, bytes]:
        folder, archive = self.folder / FOLDER, self.folder / ARCHIVE
        if folder.is_dir():
            for name in self.files:
                if not (folder / name).is_file():
                    raise FileNotFoundError(f"{folder / name} is missing: put {', '.join(self.files)} there")
            return {name: (folder / name).read_bytes() for name in self.files}
        if not archive.is_file():
            raise FileNotFoundError(f"{folder} is missing: put it or {ARCHIVE} there, or set data_dir")
        try:
            with tarfile.open(archive) as tar:
                return {name: tar.extractfile(f"{FOLDER}/{name}").read() for name in self.files}  # type: ignore[union-attr]
        except (tarfile.TarError, OSError, EOFError, KeyError, AttributeError) as error:
            raise ValueError(f"{archive} is damaged ({error}): fetch it again") from error

    def _batch(self, name: str, data: bytes) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Images (n, 3, 32, 32) uint8 and labels (n,) of a file."""
        path = self.folder / FOLDER / name
        if self.verify and hashlib.md5(data, usedforsecurity=False).hexdigest() != self.files[name]:
            raise ValueError(
                f"{path} is not the published file (its MD5 sum differs): fetch it again, or set verify=False"
            )
        try:
            content = _Unpickler(io.BytesIO(data), encoding="latin1").load()
            images = np.asarray(content["data"], np.uint8).reshape(-1, 3, 32, 32)
            labels = np.asarray(content["labels"], np.int64)
        except Exception as error:  # a damaged pickle raises anything
            raise ValueError(f"{path} is damaged or no CIFAR-10 file ({error}): fetch it again") from error
        if len(images) != len(labels):
            raise ValueError(f"{path} is damaged ({len(images)} images, {len(labels)} labels): fetch it again")
        return images, labels
