"""Keyed draws on a GPU are those of the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.device_work import DeviceWork
from zoo.engine import rng
from zoo.engine.images import from_levels
from zoo.engine.keyed_kernels import kernels

pytestmark = pytest.mark.cuda

DRAWS: dict[str, Callable[[torch.device], Tensor]] = {
    "uniform": lambda device: rng.uniform((1000, 257), 7, 3, device=device),
    "uniform in float64": lambda device: rng.uniform((1000, 257), 7, 3, device=device, dtype=torch.float64),
    "uniform between": lambda device: rng.uniform((1000, 257), 7, 3, low=-1, high=1, device=device),
    "integers": lambda device: rng.integers(1000, (1000, 257), 7, 3, device=device),
    "mask": lambda device: rng.keep_mask((1000, 257), 0.8, 7, 3, device=device),
    "large key": lambda device: rng.integers(1000, (1000, 257), 2**63 - 5, 2**40, device=device),
}


@pytest.mark.parametrize("name", DRAWS)
def test_same_bits(name: str, device: torch.device) -> None:
    drawn = DRAWS[name](device)
    assert drawn.device.type == device.type
    assert torch.equal(drawn.cpu(), DRAWS[name](torch.device("cpu")))


def test_normal_draws_are_at_most_one_rounding_apart(device: torch.device, record_property: Any) -> None:
    """The bits below are the same; logarithm, root and cosine are each device's own, in float64."""
    here, there = (rng.normal((4000, 257), 7, 3, device=place) for place in (torch.device("cpu"), device))
    different = here != there.cpu()
    record_property("normal draws that differ, of a million", int(different.sum()))
    apart = (here.view(torch.int32) - there.cpu().view(torch.int32)).abs().max()
    assert apart <= 1
    assert different.float().mean() < 1e-5


def test_no_draw_waits_for_the_gpu(device: torch.device) -> None:
    if device.type != "cuda":
        pytest.skip("a CPU has nothing to wait for")
    torch.cuda.set_sync_debug_mode("error")
    try:
        for draw in DRAWS.values():
            draw(device)
        rng.normal((10, 3), 7, device=device)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("name", DRAWS)
def test_a_draw_is_at_most_three_kernels(name: str, device: torch.device) -> None:
    if device.type != "cuda":
        pytest.skip("a CPU has no kernels")
    assert kernels() is not None
    DRAWS[name](device)
    with DeviceWork(1) as work:
        DRAWS[name](device)
        torch.cuda.synchronize()
    assert name == "uniform in float64" or work.per_step["kernels_per_step"] <= 3


def test_8_bits_are_scaled_to_the_bits_of_the_cpu(device: torch.device) -> None:
    given = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(from_levels(given.to(device)).cpu(), from_levels(given))
