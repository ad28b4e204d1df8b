"""Looking at a model without disturbing its training: a measured value, the model at rest, one value on all ranks."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from zoo.engine import devices

__all__ = ["Result", "evaluating", "from_rank_zero", "rank_and_world"]


@dataclass(frozen=True)
class Result:
    """A measured value with its protocol.

    Attributes:
        value: the value.
        protocol: how the value was made: features, images, weights and the like.
        metric: short name.
        seconds: duration of the measurement.
        error: standard error of the value over the images, as if they were independent.
        chance: what knowing nothing of the image gives, such as always naming the most frequent class.
        count: number of images that were counted, where the value is a share of them.
        deviation: deviation of the value over seeds, where it is a mean over several.
    """

    value: float
    protocol: str
    metric: str = "fd"
    seconds: float = 0.0
    error: float | None = None
    chance: float | None = None
    count: int | None = None
    deviation: float | None = None


@contextmanager
def evaluating(model: nn.Module, seed: int) -> Iterator[None]:
    """Evaluation mode, no gradients, exact products, and random numbers from `seed` inside the context.

    Afterwards the mode of every submodule and the random generators of torch (CPU and the model's device), numpy and
    Python are as before.

    Args:
        model: the model to evaluate.
        seed: seed of the generators inside.
    """
    modes = [(module, module.training) for module in model.modules()]
    numpy_state, python_state = np.random.get_state(), random.getstate()
    places = {parameter.device for parameter in model.parameters()} or {torch.device("cpu")}
    own = {id(generator): generator for place in places for generator in devices.generators(place)}
    generators = list(own.values())
    states = [generator.get_state() for generator in generators]
    try:
        for module, _ in modes:
            module.training = False
        for generator in generators:
            generator.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)
        with torch.no_grad(), devices.exact_kernels():
            yield
    finally:
        for module, training in modes:
            module.training = training
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)
        np.random.set_state(numpy_state)
        random.setstate(python_state)


def rank_and_world() -> tuple[int, int]:
    """Rank of this process and number of processes: (0, 1) where nothing is distributed."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_available() and dist.is_initialized() else (0, 1)


def from_rank_zero(value: Any) -> Any:
    """Rank zero's value of a small object, on all ranks; every rank must call this.

    Args:
        value: this rank's own value.
    """
    if rank_and_world()[1] == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]
