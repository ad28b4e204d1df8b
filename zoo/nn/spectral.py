"""Spectral normalization of layers that can be pickled, which those of PyTorch refuse."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

__all__ = ["normalize"]


def normalize(layer: nn.Module) -> None:
    """Divide a layer's weights by their largest singular value, found by one power iteration in each pass.

    Args:
        layer: a convolution or a linear map; others stay as they are.
    """
    if isinstance(layer, nn.Conv2d | nn.Linear):
        spectral_norm(layer)  # gives the layer a class of its own
        type(layer).__reduce__ = _reduced  # type: ignore[assignment, method-assign]


def _reduced(layer: nn.Module) -> tuple[Any, ...]:
    """What pickle keeps of a normalized layer."""
    return _normalized, (isinstance(layer, nn.Linear),), layer.__dict__


def _normalized(is_linear: bool) -> nn.Module:
    """A normalized layer whose state pickle replaces."""
    with torch.random.fork_rng(devices=[]):  # its first weights draw nothing that anyone sees
        layer = nn.Linear(1, 1) if is_linear else nn.Conv2d(1, 1, 1)
        normalize(layer)
    return layer
