"""Images per second: a model of known speed, the protocol, and what the measurement leaves alone."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.monitoring.test_measures import Images
from zoo.callbacks.measures import MEASURES, calls_per_second, evaluation, speed
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


def test_rank_zero_measures_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another rank draws nothing and has the value, the device and the threads of rank zero."""
    model = Sleeper()
    monkeypatch.setattr(evaluation, "rank_and_world", lambda: (1, 2))
    monkeypatch.setattr(speed, "from_rank_zero", lambda own: (99.0, "its device", 7))
    found = MEASURES["sampling_speed"](model, Images())
    assert (found.value, model.calls) == (99, 0)
    assert found.protocol == "sampling_speed[batch=64, device=its device, threads=7]"


def test_the_clock_is_read_when_a_gpu_has_finished(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    clock = iter(range(100))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: events.append("wait"))
    monkeypatch.setattr(time, "perf_counter", lambda: [events.append("clock"), float(next(clock))][1])
    assert calls_per_second(lambda: events.append("call"), torch.device("cuda"), seconds=2.0) == 1
    assert events == ["wait", "clock", "call", "wait", "clock"] * 3
