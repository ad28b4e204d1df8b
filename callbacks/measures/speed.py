"""How fast a model makes images."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

from zoo.callbacks.base import Result, Samples, from_rank_zero
from zoo.callbacks.measures.evaluation import Evaluation
from zoo.callbacks.measures.registry import measure
from zoo.engine.devices import name_of

__all__ = ["calls_per_second", "sampling_speed"]


@measure(needs=Samples, better="higher", num_samples=64)
def sampling_speed(at: Evaluation) -> Result:
    """Images per second of `sample(num_samples)`: the median of repeated calls, see `calls_per_second`.

    Rank zero measures for all ranks. On CUDA products are in full float32, as for all measures; the data are not used.
    `num_samples` is the number of images of one call.
    """
    number, found = at.num_samples or 1, (0.0, "", 0)
    if at.rank == 0:
        rate = calls_per_second(lambda: at.model.sample(number, seed=at.seed), at.device)
        found = (number * rate, name_of(at.device), torch.get_num_threads())
    value, device, threads = from_rank_zero(found)  # no weights in the protocol: their values do not matter
    protocol = f"{at.name}[batch={number}, device={device}, threads={threads}]"
    return Result(value, protocol, metric=at.name, seconds=time.monotonic() - at.start)


def calls_per_second(call: Callable[[], object], device: torch.device, seconds: float = 1.0) -> float:
    """How often a function can be called in a second.

    The first call is a warm-up, the rate is the median of those that follow until `seconds` have passed. A first call
    that takes longer than that is itself the measurement: a second one would not differ by much.

    Args:
        call: the function.
        device: the device that works on it; on CUDA the clock is read when the device has finished.
        seconds: see above.
    """

    def duration() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - start

    first = duration()
    if first > seconds:
        return 1 / first
    durations = [duration()]
    while sum(durations) < seconds:
        durations.append(duration())
    return 1 / statistics.median(durations)
