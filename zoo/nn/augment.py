"""Random changes of images, differentiable in the images and keyed by image."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.engine import rng

__all__ = ["diff_augment", "random_affine", "random_shift"]


def diff_augment(x: Tensor, key: rng.Key, first: int = 0) -> Tensor:
    """DiffAugment: random brightness, saturation, contrast, translation and cutout, differentiable in the images.

    Args:
        x: images in [-1, 1].
        key: key of the draws (see `zoo.engine.rng`).
        first: global index of the first image.

    Shape:
        Input and output: (N, C, H, W).

    References:
        Zhao et al. 2020, "Differentiable Augmentation for Data-Efficient GAN Training", section 3.3 and appendix.
    """
    n, _, height, width = x.shape
    draws = rng.uniform((n, 7), key, first, device=x.device).to(x.dtype).view(n, 7, 1, 1, 1).unbind(1)
    brightness, saturation, contrast, shift_y, shift_x, cut_y, cut_x = draws
    x = x + (brightness - 0.5)
    gray = x.mean(1, keepdim=True)
    x = torch.lerp(gray, x, 2 * saturation)
    mean = x.mean((1, 2, 3), keepdim=True)
    x = torch.lerp(mean, x, contrast + 0.5)

    rows = torch.arange(height, device=x.device).view(1, 1, height, 1)
    columns = torch.arange(width, device=x.device).view(1, 1, 1, width)

    # Translation by up to an eighth of the image, zeros moved in.
    reach_y, reach_x = height // 8, width // 8
    from_row = rows + ((shift_y * (2 * reach_y + 1)).floor().long() - reach_y)
    from_column = columns + ((shift_x * (2 * reach_x + 1)).floor().long() - reach_x)
    inside = (from_row >= 0) & (from_row < height) & (from_column >= 0) & (from_column < width)
    sample = torch.arange(n, device=x.device).view(n, 1, 1)
    moved = x.permute(0, 2, 3, 1)[
        sample,
        from_row.clamp(0, height - 1).view(n, height, 1),
        from_column.clamp(0, width - 1).view(n, 1, width),
    ].permute(0, 3, 1, 2)
    x = moved * inside

    # Cutout of a square of half the side, anywhere.
    center_y, center_x = (cut_y * (height + 1)).floor().long(), (cut_x * (width + 1)).floor().long()
    top, left = center_y - height // 4, center_x - width // 4
    hidden = (rows >= top) & (rows < top + height // 2) & (columns >= left) & (columns < left + width // 2)
    return x * ~hidden


def random_affine(
    x: Tensor,
    key: rng.Key,
    first: int = 0,
    *,
    rotation: float = 20.0,
    shear: float = 0.4,
    scale: float = 0.15,
    shift: float = 1 / 7,
) -> Tensor:
    """Images turned, sheared, scaled and moved at random, differentiable in the images.

    Each amount is drawn uniformly between its bound and minus that; outside the image lie zeros.

    Args:
        x: images.
        key: key of the draws (see `zoo.engine.rng`).
        first: global index of the first image.
        rotation: in degrees.
        shear: horizontal movement per height.
        scale: of each axis, relative to 1.
        shift: along each axis, relative to half a side.

    Shape:
        Input and output: (N, C, H, W).
    """
    exact = x if x.dtype == torch.float64 else x.float()  # half precision would move places by a pixel
    draws = rng.uniform((len(x), 6), key, first, low=-1.0, high=1.0, device=x.device).to(exact.dtype)
    turn, slant, wide, high, right, down = draws.unbind(1)
    angle = math.radians(rotation) * turn
    cos, sin, slant, wide, high = angle.cos(), angle.sin(), shear * slant, 1 + scale * wide, 1 + scale * high
    rows = [
        torch.stack([cos * wide, cos * slant - sin * high, shift * right], 1),
        torch.stack([sin * wide, sin * slant + cos * high, shift * down], 1),
    ]
    grid = F.affine_grid(torch.stack(rows, 1), list(x.shape), align_corners=False)
    return F.grid_sample(exact, grid, align_corners=False).to(x.dtype)


def random_shift(x: Tensor, pixels: int, key: rng.Key, first: int = 0) -> Tensor:
    """Images moved at random by whole pixels, what is uncovered filled with the border: differentiable in the images.

    Args:
        x: images.
        pixels: largest movement along each axis.
        key: key of the draws (see `zoo.engine.rng`).
        first: global index of the first image.

    Shape:
        Input and output: (N, C, H, W).
    """
    height, width = x.shape[2:]
    start = rng.integers(2 * pixels + 1, (len(x), 2), key, first, device=x.device) - pixels
    rows = (start[:, :1] + torch.arange(height, device=x.device)).clamp(0, height - 1)
    columns = (start[:, 1:] + torch.arange(width, device=x.device)).clamp(0, width - 1)
    image, channel = torch.arange(len(x), device=x.device), torch.arange(x.shape[1], device=x.device)
    return x[image[:, None, None, None], channel[:, None, None], rows[:, None, :, None], columns[:, None, None, :]]
