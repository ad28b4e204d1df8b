"""What ranks compute together."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from tests.ranks import on_ranks
from zoo.engine.cross_rank import global_mean, world_size

VALUES = torch.arange(1, 6, dtype=torch.float64)


def weighted(own: Tensor) -> tuple[float, float]:
    """The mean of 2 x over all ranks' values as each rank reports it, and its gradient in the factor."""
    factor = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    mean = global_mean((factor * own).sum(), len(own))
    (gradient,) = torch.autograd.grad(mean, factor)
    return mean.item(), gradient.item()


def on_a_rank(world: int) -> tuple[float, float]:
    """The first rank has none of the values, the others share them unevenly."""
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    assert world_size() == world
    return weighted(VALUES[2 * (rank - 1) : 2 * rank if rank < world - 1 else None] if rank else VALUES[:0])


def test_one_process_takes_the_mean_of_its_values() -> None:
    assert world_size() == 1
    assert weighted(VALUES) == pytest.approx((6.0, 3.0), rel=1e-12)
    assert weighted(VALUES[:0]) == (0.0, 0.0)


def test_the_average_over_ranks_is_the_mean_over_all_values() -> None:
    found = torch.tensor(on_ranks(3, on_a_rank, 3), dtype=torch.float64)
    assert found[0].tolist() == [0.0, 0.0]
    assert found.mean(0).tolist() == pytest.approx([6.0, 3.0], rel=1e-12)
