"""What ranks do on a GPU in a step: on fake tensors, with collectives that give back what they get."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from torch import nn

from tests.fake_cuda import Watch, on_fake_cuda
from zoo.engine import cross_rank
from zoo.engine.distributed import MultiNetStrategy


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    """The second of two ranks, on a GPU."""
    monkeypatch.setattr(cross_rank, "world_size", lambda: 2)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(dist, "get_rank", lambda: 1)
    monkeypatch.setattr(cross_rank, "all_reduce", lambda x: x)
    monkeypatch.setattr(dist, "all_reduce", lambda *_, **__: SimpleNamespace(wait=lambda: None))
    with on_fake_cuda() as watch:
        yield watch


def test_rows_and_statistics_of_all_ranks_wait_for_nothing(watch: Watch) -> None:
    layer = cross_rank.CrossRankBatchNorm(3).to("cuda")
    watch.waits.clear()
    assert layer(torch.zeros(4, 3, 2, 2, device="cuda")).device.type == "cuda"
    assert cross_rank.all_gather_rows(torch.zeros(4, 5, device="cuda")).shape == (8, 5)
    assert cross_rank.all_gather_rows(torch.zeros(4, 1, dtype=torch.int64, device="cuda")).dtype == torch.int64
    cross_rank.global_mean(torch.zeros((), device="cuda"), 3)
    assert not watch.waits


def test_an_average_of_gradients_waits_for_nothing(watch: Watch) -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)).to("cuda")
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    for p in network.parameters():
        p.grad = torch.zeros_like(p)
    strategy = MultiNetStrategy(bucket_mb=1e-5)
    watch.waits.clear()
    strategy._to_reduce = {id(optimizer)}
    strategy.reduce_gradients(optimizer)
    assert not strategy._to_reduce
    assert not watch.waits
