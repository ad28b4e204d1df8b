"""Pictures: from files of any kind to square uint8 arrays, in parallel; other sizes."""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import IO, Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch.nn import functional as F
from tqdm import tqdm

__all__ = ["decode_all", "eight_bits", "resize", "square"]

_WHITE = (255, 255, 255, 255)


def square(
    file: str | os.PathLike[str] | IO[bytes],
    size: int,
    *,
    channels: int = 3,
    half: int | None = None,
    squeeze: bool = False,
) -> np.ndarray[Any, Any]:
    """The central square of a picture of any mode and size, resized with antialiasing, transparency on white.

    Values of more than 8 bits are scaled: 16 bits from 0..65535, floats from 0..1, 0..255 or 0..65535.

    Args:
        file: path or open file.
        size: side of the result.
        channels: 3 for color, 1 for gray.
        half: take the left half (0) or the right half (1) of the picture instead of the whole.
        squeeze: scale the sides of the whole picture to a square, instead of cutting out the central square.

    Shape:
        Output: (channels, size, size) uint8.

    Raises:
        OSError: no file, or no picture.
        ValueError: not a regular file, or values of a range that cannot be told.
    """
    if isinstance(file, str | os.PathLike):
        _require_regular(file)
    with Image.open(file) as opened:
        opened.draft(None, (2 * size, 2 * size))  # JPEG: decode at a fraction of its size where that is enough
        picture = ImageOps.exif_transpose(opened)
        picture.load()
    if half is not None:
        width = picture.width // 2
        picture = picture.crop((half * width, 0, (half + 1) * width, picture.height))
    picture = eight_bits(picture)
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


def _require_regular(file: str | os.PathLike[str]) -> None:
    """Refuse what is no file before it is opened: a named pipe would be waited for."""
    try:
        mode = os.stat(file).st_mode
    except FileNotFoundError as error:
        raise FileNotFoundError("it is a link that leads nowhere" if os.path.islink(file) else "no file") from error
    if not stat.S_ISREG(mode):
        raise ValueError("it is a folder, a named pipe, a socket or a device, not a file")


def eight_bits(picture: Image.Image) -> Image.Image:
    """A gray picture of 16 or 32 bits, or of floats, scaled to 8 bits; others as they are.

    Args:
        picture: the picture.

    Raises:
        ValueError: values of a range that cannot be told.
    """
    if not picture.mode.startswith("I") and picture.mode != "F":
        return picture
    # convert() would cut, not scale.
    values = np.asarray(picture, np.float64)
    low, high = values.min(), values.max()
    if picture.mode == "F":
        # Also refuses NaN. Between 1 and 16 lie overshoots of 0..1 as well as the darkest of 0..255.
        if not 0 <= low <= high <= 65535 or 1 < high < 16:
            raise ValueError(f"its values go from {low:g} to {high:g}: save them as 0..1, 0..255 or 0..65535")
        values = values * 255 if high <= 1 else values if high <= 255 else values / 257
    elif high > 255 or picture.mode.startswith("I;16"):
        if not 0 <= low <= high <= 65535:
            raise ValueError(f"its values go from {low:g} to {high:g}: save them as 0..255 or 0..65535")
        if 0 < high <= 4095:  # would be all but black
            raise ValueError(f"its 16-bit values end at {high:g}, as 12-bit ones do: scale them to 0..65535")
        values = values / 257
    return Image.fromarray(values.round().clip(0, 255).astype(np.uint8))


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
        description: text of the progress bar.
        failed: called with the number of a job and its error; an error that this function raises ends the work.
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
