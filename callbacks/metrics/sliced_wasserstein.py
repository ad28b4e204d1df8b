"""Sliced Wasserstein distance between patches of two sets of images, at each level of their Laplacian pyramids."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.callbacks.metrics.ranks import AnyShare

__all__ = ["SlicedWasserstein", "laplacian_pyramid"]

SMALLEST = 16
PATCH = 7
SCALE = 1e3
"""Factor of the values, as in the paper."""


def _blurred(x: Tensor) -> Tensor:
    """Convolution of each channel with the binomial filter 1 4 6 4 1 in both directions, mirrored at the borders."""
    weight = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0], device=x.device, dtype=x.dtype) / 16
    channels = x.size(1)
    x = F.pad(x, (2, 2, 2, 2), mode="reflect")
    x = F.conv2d(x, weight.view(1, 1, 5, 1).expand(channels, 1, 5, 1), groups=channels)
    return F.conv2d(x, weight.view(1, 1, 1, 5).expand(channels, 1, 1, 5), groups=channels)


def _enlarged(x: Tensor) -> Tensor:
    """Images of twice the size: zeros between the pixels, then the filter."""
    y = x.new_zeros(*x.shape[:2], 2 * x.size(2), 2 * x.size(3))
    y[:, :, ::2, ::2] = x
    return 4 * _blurred(y)


def laplacian_pyramid(images: Tensor) -> list[Tensor]:
    """Differences of each size of an image from the next smaller one, down to 16 pixels; the last level is that size.

    Args:
        images: of any range.

    Shape:
        images: (N, C, S, S), S a power of two from 16; output: sides S, S / 2, ..., 16.

    References:
        Burt and Adelson 1983, "The Laplacian pyramid as a compact image code".
    """
    levels = [images]
    while levels[-1].size(2) > SMALLEST:
        smaller = _blurred(levels[-1])[:, :, ::2, ::2]
        levels[-1] = levels[-1] - _enlarged(smaller)
        levels.append(smaller)
    return levels


class SlicedWasserstein(AnyShare):
    """Sliced Wasserstein distance between patches of 7x7 pixels, times 1000, for each level of the pyramid.

    The patches of each set are normalized to mean 0 and deviation 1 per channel. In a random direction the distance of
    two sets of equal size is the mean distance of the sorted projections; the value is the mean over directions.
    Places are drawn by (seed, image), directions by the seed, so that any number of ranks finds the same value.

    Args:
        patches: patches per image and level.
        directions: directions per repeat.
        repeats: number of draws of directions.
        seed: seed of places and directions.
        sides: sides of the levels, see `sides_of`.

    References:
        Karras et al. 2018, section 5; Rabin et al. 2011, "Wasserstein barycenter and its application to texture
        mixing".
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False

    def __init__(
        self, patches: int = 128, directions: int = 128, repeats: int = 4, seed: int = 0, sides: tuple[int, ...] = ()
    ) -> None:
        super().__init__()
        self.patches, self.directions, self.repeats, self.seed = patches, directions, repeats, seed
        self.sides = sides
        for side in sides:
            for kind in ("real", "fake"):
                self.add_state(f"{kind}_{side}", [], dist_reduce_fx="cat")

    @staticmethod
    def sides_of(size: int) -> tuple[int, ...]:
        """Sides of the levels of images of a size.

        Raises:
            ValueError: the size is no power of two from 16.
        """
        if size < SMALLEST or size & (size - 1):
            raise ValueError(f"the Laplacian pyramid needs images of 16, 32, 64, ... pixels, not {size}")
        return tuple(size >> k for k in range((size // SMALLEST).bit_length()))

    def update(self, images: Tensor, *, real: bool, first: int) -> None:
        """Add images of one of the two sets.

        Args:
            images: the images.
            real: they are real images, not generated ones.
            first: number of the first image in its set.

        Shape:
            images: (N, C, S, S) in [-1, 1].
        """
        if len(images) == 0:
            return
        levels = ((images.float() + 1) * 127.5).round().clamp(0, 255)
        for side, level in zip(self.sides, laplacian_pyramid(levels), strict=True):
            corners = torch.stack([self._corners(first + i, real, side) for i in range(len(level))]).to(level.device)
            span = torch.arange(PATCH, device=level.device)
            rows, columns = (corners[..., axis, None] + span for axis in (0, 1))  # (N, patches, 7)
            number = torch.arange(len(level), device=level.device)[:, None, None, None]
            # (N, patches, 7, 7, C)
            found = level.permute(0, 2, 3, 1)[number, rows[..., :, None], columns[..., None, :]]
            getattr(self, f"{'real' if real else 'fake'}_{side}").append(found.flatten(0, 1))

    def _corners(self, index: int, real: bool, side: int) -> Tensor:
        generator = torch.Generator().manual_seed(((self.seed * 2 + real) * 1_000_003 + index) * 4_099 + side)
        return torch.randint(side - PATCH + 1, (self.patches, 2), generator=generator)

    def compute(self) -> dict[str, Tensor]:
        """The distance of each level, by its side, and their mean as `average`."""
        values = {}
        for side in self.sides:
            sets = []
            for kind in ("real", "fake"):
                found = getattr(self, f"{kind}_{side}")
                x = (torch.cat(list(found)) if isinstance(found, list) else found).double()
                deviation, mean = torch.std_mean(x, (0, 1, 2), correction=0)
                sets.append(((x - mean) / deviation).flatten(1))
            values[str(side)] = SCALE * self._distance(*sets)
        return values | {"average": torch.stack(list(values.values())).mean()}

    def _distance(self, a: Tensor, b: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed)
        distances = []
        for _ in range(self.repeats):
            directions = torch.randn(a.size(1), self.directions, generator=generator, dtype=torch.float64)
            for part in F.normalize(directions, dim=0).to(a.device).split(16, 1):  # few at once: they are many
                distances.append(((a @ part).sort(0).values - (b @ part).sort(0).values).abs().mean(0))
        return torch.cat(distances).mean()
