"""Images per second: a model of known speed, the protocol, and what the measurement leaves alone."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.monitoring.test_measures import Images
from tests.ranks import on_ranks
from zoo.callbacks.measures import MEASURES, calls_per_second
from zoo.engine.devices import name_of


class Sleeper(nn.Module):
    """Takes 10 ms for an image."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.calls = 0

    def sample(self, n: int, *, seed: int | None = None, first: int = 0, **conditions: Any) -> Tensor:
        self.calls += 1
        assert not self.training
        torch.rand(3)  # careless
        time.sleep(n / 100)
        return torch.zeros(n, 1, 4, 4)


def test_a_model_of_known_speed() -> None:
    model, state = Sleeper().train(), torch.get_rng_state()
    found = MEASURES["sampling_speed"](model, Images(), num_samples=20)
    assert 20 < found.value <= 100  # a loaded machine is slower, none is faster
    assert 3 <= model.calls <= 7  # a warm-up, then a second
    device, threads = name_of("cpu"), torch.get_num_threads()
    assert found.protocol == f"sampling_speed[batch=20, device={device}, threads={threads}]"
    assert found.metric == "sampling_speed"
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)
    assert MEASURES["sampling_speed"].better == "higher"
    assert MEASURES["sampling_speed"].num_samples == 64


def test_what_takes_long_is_done_once() -> None:
    calls: list[int] = []
    rate = calls_per_second(lambda: [calls.append(1), time.sleep(0.05)], torch.device("cpu"), seconds=0.02)
    assert len(calls) == 1
    assert 5 < rate <= 20


def on_rank() -> tuple[float, int]:
    import torch.distributed as dist

    dist.init_process_group("gloo")
    model = Sleeper()
    return MEASURES["sampling_speed"](model, Images(), num_samples=101).value, model.calls


@pytest.mark.slow
def test_rank_zero_measures_for_all() -> None:
    (value, calls), (other, none) = on_ranks(2, on_rank)
    assert value == other > 0
    assert (calls, none) == (1, 0)
