"""A folder of pictures in the place of a model or of a data set, as other projects leave them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from zoo.datamodules.base.folders import picture_names
from zoo.engine.rng import key, permutation

__all__ = ["PictureFolder"]


class PictureFolder(nn.Module):
    """Pictures of one folder at their own size, in color: the generated images of another project, or its real ones.

    Their order is a fixed random one, so that fewer images than there are make a random subset.

    Args:
        folder: the folder; folders in it count too.

    Raises:
        FileNotFoundError: there is no such folder, or no picture in it.
        ValueError: the pictures are of several sizes.
    """

    makes_images = True

    def __init__(self, folder: str | Path) -> None:
        super().__init__()
        self.folder = Path(folder).expanduser()
        self.paths = [self.folder / name for name in picture_names(self.folder)]
        self.name = self.folder.resolve().name
        sizes: dict[tuple[int, int], Path] = {}
        for path in self.paths:
            with self._opened(path) as picture:
                sizes.setdefault(picture.size, path)
        if len(sizes) > 1:
            (one, first), (other, second), *_ = sizes.items()
            raise ValueError(
                f"the pictures of {self.folder} are of several sizes ({first.name} {one[0]} x {one[1]}, {second.name} "
                f"{other[0]} x {other[1]}): take `--data ImageFolder`, which makes squares of one size of them"
            )
        order = permutation(len(self.paths), key(0, "reference", "pictures"))
        self.paths = [self.paths[i] for i in order.tolist()]

    def split(self, name: str) -> list[Path]:
        """All pictures, whatever the split."""
        return self.paths

    def images(self, first: int, count: int) -> Tensor:
        """Pictures by index; after the last one the first ones come again.

        Args:
            first: index of the first.
            count: number of pictures.

        Shape:
            Output: (count, 3, H, W) in [-1, 1].
        """
        arrays = []
        for i in range(first, first + count):
            with self._opened(self.paths[i % len(self.paths)]) as picture:
                arrays.append(np.asarray(picture.convert("RGB")))
        return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float() / 127.5 - 1

    def reference_batches(
        self, num_samples: int, chunk_size: int, *, split: str = "all", rank: int = 0, world_size: int = 1
    ) -> Iterator[tuple[int, Any]]:
        """Index of the first picture and `image` of every `world_size`-th chunk."""
        for first in range(rank * chunk_size, num_samples, world_size * chunk_size):
            yield first, {"image": self.images(first, min(chunk_size, num_samples - first))}

    def real_and_fake(self, batch: Any, *, seed: int, first: int) -> tuple[Tensor, Tensor]:
        """Images of a batch, and as many pictures of the folder."""
        real: Tensor = batch["image"]
        return real, self.images(first, len(real)).to(real.device)

    def real_images(self, batch: Any) -> Tensor:
        """Images of a batch."""
        real: Tensor = batch["image"]
        return real

    @staticmethod
    def _opened(path: Path) -> Image.Image:
        try:
            return Image.open(path)
        except OSError as error:
            raise ValueError(f"{path} cannot be read as a picture: mend or remove it") from error
