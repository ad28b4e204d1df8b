"""Processes that torchrun starts again find each other, though the store still holds the failed ones' addresses."""

from __future__ import annotations

import os
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist

from tests.ranks import on_ranks
from zoo.engine.distributed import MultiNetStrategy
from zoo.engine.restarts import advice


def meet(port: int, attempt: int) -> float:
    """Sum over the ranks of an attempt, in the store of the launcher."""
    os.environ |= {
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": str(attempt),
        "GROUP_WORLD_SIZE": "1",
    }
    from lightning.pytorch import Trainer

    run = Trainer(accelerator="cpu", devices=2, strategy=MultiNetStrategy(timeout=timedelta(seconds=20)), logger=False)
    run.strategy.setup_environment()
    value = torch.tensor(float(dist.get_rank() + attempt))
    dist.all_reduce(value)
    return value.item()


@pytest.mark.slow
def test_restarted_processes_find_each_other() -> None:
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    for attempt in range(3):
        assert on_ranks(2, meet, store.port, attempt) == [1.0 + 2 * attempt] * 2


def test_where_that_is_not_possible_the_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = RuntimeError("Gloo connectFullMesh failed with timed out connecting: SO_ERROR: Connection refused")
    assert advice(lost) is None
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1" in str(advice(lost))
    assert advice(RuntimeError("out of memory")) is None
