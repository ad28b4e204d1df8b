"""Shapes: white squares, ellipses and hearts on black, drawn by code from five known factors.

For measures of disentanglement, which need the true factors of an image. Images are drawn when a batch asks for them,
from signed distances d to the outline: the gray value of a pixel is the share of its area inside, clamp(1/2 - d, 0, 1)
with d in pixels.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor

from zoo.datamodules.base.image_set import ImageSet
from zoo.datamodules.base.module import DataOptions, ImageDataModule
from zoo.engine.images import from_levels
from zoo.engine.rng import key, permutation

__all__ = ["Shapes"]

# In units of half an image: every shape lies within the image, at any place and angle.
HALF_SIDES = (0.125, 0.25)
CENTERS = (-0.53, 0.53)
REACH = 0.4  # from the center to the end of the largest ellipse
CHUNK = 64  # images drawn at once: their coordinates stay in the processor's cache


def square(x: Tensor, y: Tensor, half: Tensor) -> Tensor:
    """Signed distance to a square of half a side `half`."""
    x, y = x.abs() - half, y.abs() - half
    return torch.hypot(x.clamp(min=0), y.clamp(min=0)) + torch.maximum(x, y).clamp(max=0)


def ellipse(x: Tensor, y: Tensor, half: Tensor) -> Tensor:
    """Signed distance, to first order, to an ellipse twice as long as high, of the square's area."""
    b = half * math.sqrt(2 / math.pi)
    u, v = x / (2 * b), y / b
    # f / |grad f| of f = r - 1 with r^2 = u^2 + v^2.
    r = torch.hypot(u, v)
    return (r - 1) * r / (torch.hypot(u / 2, v) / b).clamp(min=1e-6)


def heart(x: Tensor, y: Tensor, half: Tensor) -> Tensor:
    """Signed distance to a square on its tip with a disc over each upper side, of the square's area; y points down."""
    side = half * math.sqrt(4 / (1 + math.pi / 4))
    # The origin is the centroid; that of a half-disc lies 2 / (3 pi) sides beyond its straight edge.
    y = -y + side * (0.5 + 2 / (3 * math.pi)) / math.sqrt(2) * (math.pi / 4) / (1 + math.pi / 4)
    x, quarter = x.abs(), side / math.sqrt(8)
    disc = torch.hypot(x - quarter, y - quarter) - side / 2
    turned = square((x + y) / math.sqrt(2), (x - y) / math.sqrt(2), side / 2)
    return torch.minimum(disc, turned)


# Each with the angle after which it looks the same.
OUTLINES = {"square": (square, 90), "ellipse": (ellipse, 180), "heart": (heart, 360)}


def _window(center: Tensor, window: Tensor, pixels: int) -> tuple[Tensor, Tensor]:
    """The pixels around a center along one axis: their numbers, and their distances from the center."""
    first = ((center + 1) * (pixels / 2) - len(window) / 2).round().long().clamp(0, pixels - len(window))
    numbers = first[:, None] + window
    return numbers, (numbers + 0.5) * (2 / pixels) - 1 - center[:, None]


def draw(factors: Tensor, sizes: tuple[int, ...], pixels: int) -> Tensor:
    """Images of factor values.

    Args:
        factors: (N, 5) shape, scale, rotation, x and y.
        sizes: number of values of each factor.
        pixels: side of the images.

    Shape:
        Output: (N, 1, pixels, pixels) uint8.
    """
    image = torch.zeros(len(factors), 1, pixels, pixels, dtype=torch.uint8)
    scales, places = torch.linspace(*HALF_SIDES, sizes[1]), torch.linspace(*CENTERS, sizes[3])
    # Only a window around the shape is drawn: the reach to both sides, half a pixel of its edge, and the rounding.
    window = torch.arange(min(pixels, math.ceil(REACH * pixels) + 2))
    for number, (outline, period) in enumerate(OUTLINES.values()):
        for rows in (factors[:, 0] == number).nonzero().flatten().split(CHUNK):
            _, scale, rotation, x, y = factors[rows].T
            columns, right = _window(places[x], window, pixels)
            lines, down = _window(places[y], window, pixels)
            right, down = right[:, None, :], down[:, :, None]
            angle = (rotation * (math.radians(period) / sizes[2]))[:, None, None]
            cos, sin = angle.cos(), angle.sin()
            distance = outline(cos * right + sin * down, cos * down - sin * right, scales[scale][:, None, None])
            inside = (0.5 - distance * (pixels / 2)).clamp_(0, 1)
            image[rows[:, None, None], 0, lines[:, :, None], columns[:, None, :]] = inside.mul_(255).round_().byte()
    return image


@dataclass
class Drawn(ImageSet):
    """A split whose images are drawn from its field `factors`.

    Attributes:
        sizes: number of values of each factor.
        pixels: side of the images.
    """

    sizes: tuple[int, ...] = ()
    pixels: int = 64

    def images(self, index: Tensor) -> Tensor:
        """Images of this split as uint8.

        Shape:
            index: (n,); output: (n, 1, H, W).
        """
        assert self.rows is not None
        return draw(self.tensor("factors")[self.rows[index]], self.sizes, self.pixels)


class Shapes(ImageDataModule):
    """White shapes on black: all 35,280 combinations of five factors, drawn with antialiasing.

    Batches hold `image` (N, 1, H, W) and `factors` (N, 5) int64, the number of each factor's value:

    - shape: 0 square, 1 ellipse, 2 heart, all of the same area at the same scale;
    - scale: 5 sizes, the sides from 1 to 2 times the smallest in equal steps;
    - rotation: 12 angles in equal steps, clockwise, over the period after which the shape looks the same (square 90,
      ellipse 180, heart 360 degrees), so that no two values look alike;
    - x and y: 14 places each of the centroid, from the left and from the top.

    A fixed permutation deals out the combinations: the first tenth for testing, the second for validation.

    Args:
        data_dir: not used; the images are drawn.
        image_size: side of the images, 16 to 128.

    Attributes:
        factor_names: names of the factors.
        factor_sizes: number of values of each factor.
        shape_names: names of the values of the first factor.
    """

    license = "Apache-2.0"
    image_channels = 1
    factor_names: ClassVar[tuple[str, ...]] = ("shape", "scale", "rotation", "x", "y")
    factor_sizes: ClassVar[tuple[int, ...]] = (len(OUTLINES), 5, 12, 14, 14)
    shape_names: ClassVar[tuple[str, ...]] = tuple(OUTLINES)

    def __init__(
        self,
        data_dir: str | os.PathLike[str] | None = None,
        *,
        image_size: int = 64,
        **options: Unpack[DataOptions],
    ) -> None:
        if data_dir is not None:
            raise ValueError("Shapes are drawn and take no data_dir")
        if not 16 <= image_size <= 128:
            raise ValueError(f"image_size of Shapes must lie in 16..128, not {image_size}")
        super().__init__(data_dir, image_size=image_size, **options)

    def open(self) -> dict[str, ImageSet]:
        """Number the combinations and deal them out."""
        factors = torch.cartesian_prod(*(torch.arange(size) for size in self.factor_sizes))
        order, tenth = permutation(len(factors), key(0, "shapes", "splits")), len(factors) // 10
        parts: dict[str, Any] = {"train": order[2 * tenth :], "val": order[tenth : 2 * tenth], "test": order[:tenth]}
        return {
            name: Drawn([], {"factors": factors}, rows, sizes=self.factor_sizes, pixels=self.image_size)
            for name, rows in parts.items()
        }

    def render(self, factors: Tensor) -> Tensor:
        """Images of any factor values.

        Args:
            factors: the values' numbers, int64.

        Shape:
            factors: (N, 5); output: (N, 1, H, W) float32 in [-1, 1], on the device of `factors`.

        Raises:
            ValueError: another shape or type, or a factor has no such value.
        """
        if factors.ndim != 2 or factors.shape[1] != len(self.factor_sizes) or factors.dtype != torch.int64:
            raise ValueError(
                f"factors must be int64 of shape (N, {len(self.factor_sizes)}) for {', '.join(self.factor_names)}, "
                f"not {str(factors.dtype).removeprefix('torch.')} of shape {tuple(factors.shape)}"
            )
        values = factors.cpu()
        for name, size, column in zip(self.factor_names, self.factor_sizes, values.T, strict=True):
            wrong = column[(column < 0) | (column >= size)]
            if len(wrong):
                raise ValueError(f"factor {name} has the values 0 to {size - 1}, not {int(wrong[0])}")
        image = draw(values, self.factor_sizes, self.image_size)
        return from_levels(image).to(factors.device)
