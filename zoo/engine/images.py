"""Images as pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

__all__ = ["dequantized", "from_levels", "image_grid", "to_levels"]


def to_levels(images: Tensor) -> Tensor:
    """Images in [-1, 1] as 8-bit values.

    Shape:
        Input: any; output: the same, uint8.
    """
    import torch

    return ((images.detach().float().cpu() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def dequantized(images: Tensor, seed: int, first: int = 0) -> Tensor:
    """Images whose 8-bit values are spread evenly over their steps: (level + u) / 256 in [0, 1], u from U(0, 1).

    Args:
        images: values in [-1, 1].
        seed: seed of the draws.
        first: global index of the first image: the draws of image i depend on (seed, first + i) only.

    Shape:
        images: (N, C, H, W); output: the same, in [-1, 1].

    References:
        Theis, van den Oord and Bethge 2016, "A note on the evaluation of generative models", section 3.1.
    """
    from zoo.engine import rng

    u = rng.uniform(images.shape, rng.key(seed, "dequantize"), first, device=images.device, dtype=images.dtype)
    return (((images + 1) * 127.5).round() + u) / 128 - 1


def from_levels(levels: Tensor) -> Tensor:
    """8-bit values as images in [-1, 1]: the same float32 values on every device.

    Shape:
        Input: any, uint8; output: the same, float32.
    """
    import torch

    if levels.device.type == "cpu":
        return levels.float().div_(127.5).sub_(1)
    # CUDA would multiply by the reciprocal of a Python number: 111 of the 256 values would differ in their last bit.
    half = torch.full((), 127.5, dtype=torch.float32, device=levels.device)
    return levels.div(half).sub_(1)


def image_grid(images: Tensor, columns: int, gap: int = 2) -> Image.Image:
    """Images side by side on white.

    Args:
        images: values in [-1, 1].
        columns: images per row.
        gap: white pixels between and around them.

    Shape:
        images: (N, 1 or 3, H, W).
    """
    import torch
    from PIL import Image

    levels = to_levels(images).expand(-1, 3, -1, -1)
    n, _, height, width = levels.shape
    rows = -(-n // columns)
    sheet = torch.full((3, rows * (height + gap) + gap, columns * (width + gap) + gap), 255, dtype=torch.uint8)
    for i, image in enumerate(levels):
        top, left = (i // columns) * (height + gap) + gap, (i % columns) * (width + gap) + gap
        sheet[:, top : top + height, left : left + width] = image
    return Image.fromarray(sheet.permute(1, 2, 0).numpy())
