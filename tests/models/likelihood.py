"""What the tests of models of exact likelihood share."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor

from tests.contract import ModelContract
from zoo.base import Batch
from zoo.engine import rng


class LikelihoodContract(ModelContract):
    """A contract whose batches are images of any values."""

    size, channels = 6, 1

    def batch(self, n: int, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Batch:
        shape = n, self.channels, self.size, self.size
        return {"image": rng.uniform(shape, rng.key(seed, "batch"), low=-1, high=1, dtype=torch.float64).to(dtype)}


def wild(model: Any, std: float = 1.0) -> Any:
    """The model in float64 with weights that say something."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(std * torch.randn(p.shape, generator=generator))
    return model.double()


def all_images(num_levels: int, channels: int, height: int, width: int) -> Tensor:
    """Every image of a shape."""
    values = torch.linspace(-1, 1, num_levels, dtype=torch.float64).tolist()
    grid = list(itertools.product(values, repeat=channels * height * width))
    return torch.tensor(grid, dtype=torch.float64).view(-1, channels, height, width)


def binary_images(n: int, size: int, channels: int = 1) -> Tensor:
    """Random images of two levels."""
    return torch.where(torch.rand(n, channels, size, size, dtype=torch.float64) > 0.5, 1.0, -1.0)
