"""Random changes of images, differentiable in the images and keyed by image."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.engine import rng

__all__ = ["diff_augment", "random_affine", "random_shift"]


def diff_augment(x: Tensor, key: rng.Key, first: int = 0, *, colors: bool = True) -> Tensor:
    """DiffAugment: random brightness, saturation, contrast, translation and cutout, differentiable in the images.

    Args:
        x: images in [-1, 1].
        key: key of the draws (see `zoo.engine.rng`).
        first: global index of the first image.
        colors: change brightness, saturation and contrast, too.

    Shape:
        Input and output: (N, C, S, S).

    References:
        Zhao et al. 2020, "Differentiable Augmentation for Data-Efficient GAN Training", section 3.3 and appendix.
    """
    n, size = len(x), x.shape[3]
    draws = rng.uniform((n, 7), key, first, device=x.device).to(x.dtype)
    brightness, saturation, contrast = draws[:, :3].view(n, 3, 1, 1, 1).unbind(1)
    shift, cut = draws[:, 3:].view(n, 2, 2).unbind(1)  # along both axes at once: each operation is a kernel
    if colors:
        x = x + (brightness - 0.5)
        gray = x.mean(1, keepdim=True)
        x = torch.lerp(gray, x, 2 * saturation)
        mean = x.mean((1, 2, 3), keepdim=True)
        x = torch.lerp(mean, x, contrast + 0.5)

    places = torch.arange(size, device=x.device)
    # Translation by up to an eighth of the image, zeros moved in.
    reach = size // 8
    start = (shift * (2 * reach + 1)).floor().long() - reach
    source = places + start.unsqueeze(2)  # (N, 2, S): where each row, and each column, comes from
    inside = (source >= 0) & (source < size)
    rows, columns = source.clamp(0, size - 1).unbind(1)
    sample = torch.arange(n, device=x.device).view(n, 1, 1)
    moved = x.permute(0, 2, 3, 1)[sample, rows.unsqueeze(2), columns.unsqueeze(1)].permute(0, 3, 1, 2)

    # Cutout of a square of half the side, anywhere.
    offset = places - ((cut * (size + 1)).floor().long() - size // 4).unsqueeze(2)
    hidden = (offset >= 0) & (offset < size // 2)
    (in_row, in_column), (cut_row, cut_column) = inside.unbind(1), hidden.unbind(1)
    kept = in_row.unsqueeze(2) & in_column.unsqueeze(1) & ~(cut_row.unsqueeze(2) & cut_column.unsqueeze(1))
    return moved * kept.unsqueeze(1)


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
    turn, slant, sizes, moves = draws.split([1, 1, 2, 2], 1)
    angle = math.radians(rotation) * turn
    cos, sin, (wide, high) = angle.cos(), angle.sin(), (1 + scale * sizes).split(1, 1)
    along, across = torch.cat([cos, sin], 1), torch.cat([-sin, cos], 1)
    columns = [along * wide, along * (shear * slant) + across * high, shift * moves]
    grid = F.affine_grid(torch.stack(columns, 2), list(x.shape), align_corners=False)
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
