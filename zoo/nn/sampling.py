"""Exact sampling, sub-pixel after sub-pixel: what a sampler is, the naive one, and how a level is drawn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

__all__ = ["NaiveSampler", "Sampler", "pick"]


class Sampler(Protocol):
    """Gives the distribution of the next sub-pixel, from the images so far."""

    def start_row(self, x: Tensor, row: int) -> None:
        """Prepare a row; all rows above are final.

        Shape:
            x: (N, C, H, W) images in [-1, 1].
        """
        ...

    def logits(self, x: Tensor, row: int, column: int, channel: int) -> Tensor:
        """Logits of a sub-pixel; called once for each, in raster order.

        Shape:
            x: (N, C, H, W) images in [-1, 1]; only earlier sub-pixels may be read; output: (N, K).
        """
        ...


class NaiveSampler:
    """Runs the whole model anew for every sub-pixel: the oracle of all faster samplers.

    Args:
        forward: logits (N, K, C, H, W) of images.
    """

    def __init__(self, forward: Callable[[Tensor], Tensor]) -> None:
        self.forward = forward

    def start_row(self, x: Tensor, row: int) -> None:
        """Nothing is kept from row to row."""

    def logits(self, x: Tensor, row: int, column: int, channel: int) -> Tensor:
        """Logits of a sub-pixel, taken from the logits of all."""
        return self.forward(x)[:, :, channel, row, column]


def pick(logits: Tensor, u: Tensor, temperature: float = 1.0) -> Tensor:
    """Levels drawn by inversion of the distribution function.

    Args:
        logits: those of one sub-pixel; a single logit is that of level 1.
        u: uniform draws in [0, 1).
        temperature: divides the logits.

    Shape:
        logits: (N, K); u: (N,); output: (N,) int64.
    """
    if temperature != 1:
        logits = logits / temperature
    if logits.size(1) == 1:
        return (u < logits[:, 0].sigmoid()).long()
    cumulative = logits.softmax(1).cumsum(1)
    # The last sum is 1 up to rounding: the draw must not lie above it.
    return torch.searchsorted(cumulative, u[:, None].contiguous(), right=True)[:, 0].clamp_(max=logits.size(1) - 1)
