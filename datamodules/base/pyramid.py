"""Images at half their size: the lower resolutions that a model that grows is trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from zoo.datamodules.base.files import write_array

__all__ = ["halved"]

CHUNK = 2**26  # bytes that are read at once
FOLDER = "levels-even"  # the name tells how means are rounded


def halved(images: np.ndarray[Any, Any], cache_dir: Path) -> np.ndarray[Any, Any]:
    """Images at half their size: the mean of 2 x 2 pixels, rounded half to even, which keeps the brightness.

    Images mapped from a file become a file in the folder `levels-even` of the cache; others stay in memory.

    Args:
        images: in memory, or mapped from a file whose name tells its content.
        cache_dir: the cache.

    Shape:
        images: (N, C, 2H, 2W) uint8; output: (N, C, H, W) uint8.
    """
    n, channels, height, width = images.shape
    shape = (n, channels, height // 2, width // 2)
    if not isinstance(images, np.memmap):
        out = np.empty(shape, np.uint8)
        _fill(images, out)
        return out
    source = Path(str(images.filename))
    folder = "" if source.parent.name == FOLDER else f"{source.parent.name}-"
    path = cache_dir / FOLDER / f"{folder}{source.stem}-{height // 2}.npy"
    write_array(path, shape, lambda out: _fill(images, out))
    result: np.ndarray[Any, Any] = np.load(path, mmap_mode="r")
    return result


def _fill(images: np.ndarray[Any, Any], out: np.ndarray[Any, Any]) -> None:
    # NOTE(paper): the reference halves unrounded values and rounds each resolution once; here each one is made
    # from the rounded values of the next higher one.
    size = max(1, CHUNK // images[:1].nbytes)
    for start in range(0, len(images), size):
        x = np.asarray(images[start : start + size]).astype(np.uint16)
        x = x[..., ::2, :] + x[..., 1::2, :]
        total = x[..., ::2] + x[..., 1::2]
        out[start : start + size] = (total + 1 + ((total >> 2) & 1)) >> 2  # a quarter of the total, half to even
