"""CelebA, aligned and cropped, in torchvision's layout under `<data_dir>/celeba/`."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import Any, ClassVar, Unpack

import numpy as np
import torch
from PIL import Image

from zoo.datamodules.base.draws import mirrored
from zoo.datamodules.base.files import check_md5, fetch, write_array
from zoo.datamodules.base.image_set import ImageSet
from zoo.datamodules.base.module import DataOptions, ImageDataModule
from zoo.datamodules.base.pictures import decode_all, square

__all__ = ["CelebA"]

FOLDER, ARCHIVE = "img_align_celeba", "img_align_celeba.zip"
ATTRIBUTES, PARTITION = "list_attr_celeba.txt", "list_eval_partition.txt"
WIDTH = 178  # shorter side of the pictures


class CelebA(ImageDataModule):
    """CelebA: 202,599 photographs of faces, 178 x 218, with 40 attributes.

    Splits are the published ones: 162,770 for training, 19,867 for validation, 19,962 for testing. The central
    178 x 178 of a picture, or less, is resized. Batches hold `image` (N, 3, H, W) and `attributes` (N, 40) float, 0 or
    1; their names are in `class_names["attributes"]`.

    Args:
        data_dir: folder that holds (or gets) `celeba/` with `list_attr_celeba.txt`, `list_eval_partition.txt`, and the
            pictures either in the folder `img_align_celeba/` or in `img_align_celeba.zip`, which is read in place.
        image_size: side of the images; decoded once per size and crop.
        crop: side of the central square that is cut out before resizing; 108 is the face alone.
        flip: mirror training images with probability 1/2, drawn anew in every epoch.
        verify: check the MD5 sums of the lists, and of the archive before it is decoded.

    Raises:
        ValueError: a crop that is empty or larger than the pictures.

    References:
        Liu, Luo, Wang and Tang 2015, Deep learning face attributes in the wild.
    """

    license = "LicenseRef-CelebA-non-commercial-research"
    files: ClassVar[dict[str, tuple[str, str]]] = {  # number on Google Drive, MD5 sum
        ATTRIBUTES: ("0B7EVK8r0v71pblRyaVFSWGxPY0U", "75e246fa4810816ffd6ee81facbd244c"),
        PARTITION: ("0B7EVK8r0v71pY0NSMzRuSXJEVkk", "d32c9cbf5e040fd4025c592c306e6668"),
        ARCHIVE: ("0B7EVK8r0v71pZjFTYXZWM3FlRnM", "00d2c5bc6d35e252742224ab0c1e8fcb"),
    }

    def __init__(
        self,
        data_dir: str | os.PathLike[str] = "data",
        *,
        image_size: int = 64,
        crop: int = WIDTH,
        flip: bool = False,
        verify: bool = True,
        **options: Unpack[DataOptions],
    ) -> None:
        super().__init__(data_dir, image_size=image_size, **options)
        if not 1 <= crop <= WIDTH:
            raise ValueError(f"crop must lie in 1..{WIDTH}, not {crop}")
        self.folder = Path(data_dir).expanduser() / "celeba"
        self.crop = crop
        self._cut = "" if crop == WIDTH else f"-crop{crop}"
        self.name = f"{self.name}{self._cut}"
        self.flip = flip
        self.verify = verify

    def prepare_data(self) -> None:
        """Fetch missing files, and decode all pictures into the cache."""

        def download(file: str, folder: str) -> None:
            from torchvision.datasets.utils import download_file_from_google_drive

            download_file_from_google_drive(self.files[file][0], folder, file, self.files[file][1])

        unpacked = (self.folder / FOLDER).is_dir()
        fetch("CelebA", self.folder, [file for file in self.files if file != ARCHIVE or not unpacked], download)
        names, *_ = self._lists()
        self._decoded(names)

    def open(self) -> dict[str, ImageSet]:
        """Read the lists and map the decoded images."""
        names, attributes, partition = self._lists()
        array = np.load(self._decoded(names), mmap_mode="r")
        return {
            split: ImageSet(
                [array],
                {"attributes": attributes},
                torch.from_numpy(np.flatnonzero(partition == i)),
                mirrored if self.flip and split == "train" else None,
            )
            for i, split in enumerate(("train", "val", "test"))
        }

    def _lists(self) -> tuple[list[str], torch.Tensor, np.ndarray[Any, Any]]:
        """Names of the pictures, their attributes (n, 40) and the number of their split (n,)."""
        for name in (ATTRIBUTES, PARTITION):
            if not (self.folder / name).is_file():
                raise FileNotFoundError(f"{self.folder / name} is missing: put it there, or set data_dir")
            if self.verify:
                check_md5(self.folder / name, self.files[name][1])
        try:
            _, heads, *rows = (self.folder / ATTRIBUTES).read_text().splitlines()
            names = [row.split()[0] for row in rows]
            values = np.array([row.split()[1:] for row in rows], np.int64)
            splits = dict(row.split() for row in (self.folder / PARTITION).read_text().splitlines())
            partition = np.array([int(splits[name]) for name in names])
            self.class_names = {"attributes": heads.split()}
            if values.shape != (len(names), len(heads.split())):
                raise ValueError(f"{values.shape[1]} values for {len(heads.split())} attributes")
        except (ValueError, IndexError, KeyError) as error:
            raise ValueError(f"the lists in {self.folder} are damaged or do not fit together ({error})") from error
        return names, torch.from_numpy(values > 0).float(), partition

    def _decoded(self, names: list[str]) -> Path:
        """The file of all decoded pictures, (n, 3, size, size) uint8; made if missing."""
        # Other lists (a part of the data set) have another file.
        digest = blake2b("\n".join(names).encode(), digest_size=4).hexdigest()
        path = self.cache_dir / "celeba" / f"{self.image_size}{self._cut}-{digest}.npy"
        shape = (len(names), 3, self.image_size, self.image_size)
        write_array(path, shape, lambda out: self._decode(names, out))
        return path

    def _decode(self, names: list[str], out: np.ndarray[Any, Any]) -> None:
        folder, archive = self.folder / FOLDER, self.folder / ARCHIVE

        def failed(i: int, error: Exception) -> None:
            place = folder if folder.is_dir() else archive
            raise ValueError(f"{place}: {names[i]} is missing or cannot be read ({error}): fetch it again") from error

        def decode_with(read: Callable[[str], Any]) -> None:
            decode_all(
                names,
                lambda name: self._square(read(name)),
                out,
                description=f"Decoding CelebA at {self.image_size} px",
                failed=failed,
            )

        if folder.is_dir():
            decode_with(lambda name: folder / name)
            return
        if not archive.is_file():
            raise FileNotFoundError(f"{folder} is missing: put it or {ARCHIVE} there, or set data_dir")
        if self.verify:
            check_md5(archive, self.files[ARCHIVE][1])
        try:
            opened = zipfile.ZipFile(archive)
        except (zipfile.BadZipFile, OSError) as error:
            raise ValueError(f"{archive} is damaged ({error}): fetch it again") from error
        with opened:
            decode_with(lambda name: io.BytesIO(opened.read(f"{FOLDER}/{name}")))

    def _square(self, file: Any) -> np.ndarray[Any, Any]:
        """The central square of a picture at the size of the images: (3, size, size) uint8."""
        if self.crop == WIDTH:
            return square(file, self.image_size)
        pixels, start = square(file, WIDTH), (WIDTH - self.crop) // 2
        pixels = pixels[:, start : start + self.crop, start : start + self.crop].transpose(1, 2, 0)
        size = (self.image_size, self.image_size)
        # NOTE(paper): the code of DCGAN and StarGAN resizes bilinearly.
        return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)).transpose(2, 0, 1)
