"""Pictures: from files of any kind to square uint8 arrays, in parallel; other sizes; mirroring."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import IO, Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from zoo.datamodules.stream import key

__all__ = ["cropped", "decode_all", "mirrored", "resize", "square", "uniform"]

_WHITE = (255, 255, 255, 255)


def square(
    file: str | os.PathLike[str] | IO[bytes],
    size: int,
    *,
    channels: int = 3,
    half: int | None = None,
    squeeze: bool = False,
) -> np.ndarray[Any, Any]:
    """A picture of any mode and size: its centre square, resized with antialiasing, transparency on white.

    Args:
        file: path or open file.
        size: side of the result.
        channels: 3 for colour, 1 for grey.
        half: take the left half (0) or the right half (1) of the picture for the whole.
        squeeze: the whole picture, its sides scaled to the square, rather than its middle square.

    Shape:
        Output: (channels, size, size) uint8.
    """
    with Image.open(file) as opened:
        opened.draft(None, (2 * size, 2 * size))  # JPEG: decode at a fraction of its size where that is enough
        picture = ImageOps.exif_transpose(opened)
        picture.load()
    if half is not None:
        width = picture.width // 2
        picture = picture.crop((half * width, 0, (half + 1) * width, picture.height))
    if picture.mode.startswith("I") or picture.mode == "F":  # 16 bits and more: convert() would cut, not scale
        values = np.asarray(picture, np.float64)
        if values.max() > 255 or picture.mode.startswith("I;16"):
            values = values / 257
        picture = Image.fromarray(values.round().clip(0, 255).astype(np.uint8))
    if picture.has_transparency_data:
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, _WHITE), picture.convert("RGBA"))
    picture = picture.convert("RGB" if channels == 3 else "L")
    if not squeeze:
        side = min(picture.size)
        left, top = (picture.width - side) // 2, (picture.height - side) // 2
        # Not resize(box=...): its filter would reach over the edge of the square.
        picture = picture.crop((left, top, left + side, top + side))
    picture = picture.resize((size, size), Image.Resampling.BICUBIC)
    pixels = np.asarray(picture).reshape(size, size, channels)
    return pixels.transpose(2, 0, 1)


def decode_all(
    jobs: Sequence[Any],
    decode: Callable[[Any], np.ndarray[Any, Any]],
    out: np.ndarray[Any, Any],
    *,
    description: str,
    failed: Callable[[int, Exception], None],
) -> None:
    """Fill `out` with decoded pictures, several at once, under a progress bar.

    Args:
        jobs: one per picture.
        decode: makes the pixels of a job; the codecs release Python's lock, so threads suffice.
        out: gets the pixels, in the order of the jobs.
        description: what the progress bar says.
        failed: is told the number of a job and its error; what it raises ends the work.
    """
    workers = os.cpu_count() or 1
    waiting: deque[tuple[int, Future[np.ndarray[Any, Any]]]] = deque()

    def take() -> None:
        i, future = waiting.popleft()
        try:
            out[i] = future.result()
        except Exception as error:  # Pillow raises many kinds for damaged files
            failed(i, error)
        bar.update()

    with (
        ThreadPoolExecutor(workers) as pool,
        tqdm(total=len(jobs), desc=description, unit="image", leave=False, disable=len(jobs) < 500) as bar,
    ):
        try:
            for i, job in enumerate(jobs):
                waiting.append((i, pool.submit(decode, job)))
                if len(waiting) > 4 * workers:  # not all at once: the results wait in memory
                    take()
            while waiting:
                take()
        finally:
            pool.shutdown(cancel_futures=True)


def resize(images: np.ndarray[Any, Any], size: int) -> np.ndarray[Any, Any]:
    """Images at another size, bilinear with antialiasing.

    Shape:
        images: (N, C, H, W) uint8; output: (N, C, size, size) uint8.
    """
    if images.shape[2:] == (size, size):
        return images
    out = np.empty((*images.shape[:2], size, size), np.uint8)
    for start in range(0, len(images), 1000):
        x = torch.from_numpy(images[start : start + 1000]).float()
        x = F.interpolate(x, (size, size), mode="bilinear", antialias=True)
        out[start : start + 1000] = x.round().clamp(0, 255).byte().numpy()
    return out


def uniform(index: Tensor, numbers: int, key: int) -> Tensor:
    """Numbers in [0, 1) for each image, a function of the key and the image's number.

    splitmix64 of a counter: much faster than a generator per image.

    Shape:
        index: (n,) int64; output: (n, numbers) float32.
    """
    counter = (index.numpy().astype(np.uint64)[:, None] << np.uint64(32)) + np.arange(numbers, dtype=np.uint64)
    x: np.ndarray[Any, Any] = counter * np.uint64(0x9E3779B97F4A7C15) + np.uint64(key)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    return torch.from_numpy((x >> np.uint64(40)).astype(np.float32) * np.float32(2**-24))


def mirrored(image: Tensor, seed: int, epoch: int, index: Tensor) -> Tensor:
    """Each image mirrored with probability 1/2, drawn for (seed, epoch, image).

    Shape:
        image: (N, C, H, W); index: (N,); output as image.
    """
    coin = uniform(index, 1, key(seed, "mirror", epoch)) < 0.5
    return torch.where(coin[:, :, None, None], image.flip(3), image)


def cropped(image: Tensor, seed: int, epoch: int, index: Tensor, *, size: int) -> Tensor:
    """A square of each image, its place drawn for (seed, epoch, image).

    Args:
        image: images.
        seed: seed of the draw.
        epoch: how often the images have been seen before.
        index: numbers of the images.
        size: side of the squares.

    Shape:
        image: (N, C, H, W); index: (N,); output: (N, C, size, size).
    """
    places = image.new_tensor([image.size(2) - size + 1, image.size(3) - size + 1])
    corners = (uniform(index, 2, key(seed, "crop", epoch)) * places).long().tolist()
    return torch.stack([x[:, y : y + size, z : z + size] for x, (y, z) in zip(image, corners, strict=True)])
