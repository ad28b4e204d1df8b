"""What every measure is given: a model, a DataModule, this rank's share of the images, and the name of the protocol."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

import torch
from lightning.fabric.utilities.apply_func import move_data_to_device
from torch import nn
from torchmetrics import Metric

from zoo import pretrained
from zoo.callbacks.base import Result, from_rank_zero, rank_and_world
from zoo.engine import devices

__all__ = ["Evaluation", "load_evaluator"]

M = TypeVar("M", bound=Metric)


@dataclass
class Evaluation:
    """One measurement of a model.

    Args:
        name: name of the measure.
        model: the model.
        data: the DataModule.
        split: split of the images.
        num_samples: number of images, or of the model's draws; None for all images of the split.
        seed: seed of what the measure draws.

    Attributes:
        device: device of the model.
        rank: rank of this process.
        world_size: number of processes, each of which computes its share.
    """

    chunk: ClassVar[int] = 250
    """Images or draws at a time."""

    name: str
    model: Any
    data: Any
    split: str = "test"
    num_samples: int | None = None
    seed: int = 0
    start: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.device = next((parameter.device for parameter in self.model.parameters()), torch.device("cpu"))
        self.rank, self.world_size = rank_and_world()

    def count(self, split: str | None = None, num: int | None = None) -> int:
        """Number of images: `num` of a split, at most all of them; by default those that are measured."""
        split, num = (self.split, self.num_samples) if split is None else (split, num)
        whole = len(self.data.split(split))
        return whole if num is None else min(num, whole)

    def images(self, split: str | None = None, num: int | None = None) -> str:
        """Name of a set of images in protocols, such as mnist28-test-10000; arguments as in `count`."""
        return f"{self.data.name}-{split or self.split}-{self.count(split, num)}"

    def batches(
        self, split: str | None = None, num: int | None = None, *, chunk: int | None = None
    ) -> Iterator[tuple[int, Any]]:
        """This rank's chunks of images with the index of the first, on the model's device; arguments as in `count`."""
        return self.batches_of(self.data, split or self.split, self.count(split, num), chunk)

    def batches_of(self, data: Any, split: str, num: int, chunk: int | None = None) -> Iterator[tuple[int, Any]]:
        """The same of any DataModule."""
        share = {"rank": self.rank, "world_size": self.world_size}
        for first, batch in data.reference_batches(num, chunk or self.chunk, split=split, **share):
            yield first, move_data_to_device(batch, self.device)

    def draws(self, chunk: int | None = None) -> Iterator[tuple[int, int]]:
        """Index of the first and size of this rank's chunks of `num_samples` draws."""
        num, chunk = self.num_samples or 0, chunk or self.chunk
        for first in range(self.rank * chunk, num, self.world_size * chunk):
            yield first, min(chunk, num - first)

    def placed(self, metric: M) -> M:
        """A metric on the model's device; on the CPU, with what it is given, if the device has no float64."""
        if devices.has_float64(self.device):
            return metric.to(self.device)
        update, place = metric.update, torch.device("cpu")

        def moved(*args: Any, **options: Any) -> None:
            update(*move_data_to_device(args, place), **move_data_to_device(options, place))

        metric.update = moved  # type: ignore[method-assign]
        return metric.to(place)

    def in_float64(self, metric: M) -> M:
        """A metric whose states are float64, where `placed` puts it."""
        self.placed(metric).set_dtype(torch.float64)  # in this order: `to` would take it back
        return metric

    @property
    def weights(self) -> str:
        """Whether the model's weights are an average over training: ema, or raw."""
        averaged = any(network.endswith("_ema") for network in getattr(self.model, "inference_networks", ()))
        return "ema" if averaged else "raw"

    def result(self, value: Any, name: str | None = None, /, **protocol: Any) -> Result:
        """The value of rank zero with its protocol, `name[key=fact, ..., weights=...]`.

        Args:
            value: the value, a number or a scalar tensor; or a dict of it with what else a `Result` holds (`error`,
                `chance`, `count`), as the metrics give it.
            name: name of the value where it is not that of the measure.
            protocol: facts on which the value depends, in the order of the text.
        """
        name = name or self.name
        protocol.setdefault("weights", self.weights)
        text = ", ".join(f"{key}={fact}" for key, fact in protocol.items())
        numbers = {k: float(v) for k, v in (value if isinstance(value, dict) else {"value": value}).items()}
        found: dict[str, Any] = from_rank_zero(numbers)
        if "count" in found:
            found["count"] = int(found["count"])
        return Result(
            found.pop("value"), f"{name}[{text}]", metric=name, seconds=time.monotonic() - self.start, **found
        )


def load_evaluator(evaluator: str | nn.Module, device: torch.device, caller: str, option: str) -> tuple[Any, str]:
    """A network that evaluates images, and its name with a digest of its weights, as protocols name it.

    Args:
        evaluator: name of a published checkpoint, path of one, or a module.
        device: where the network is to be.
        caller: name of the measure, for the message.
        option: name of the option that gives the network, for the message.

    Raises:
        ValueError: none is given.
    """
    if isinstance(evaluator, nn.Module):
        network, name = evaluator.to(device), type(evaluator).__name__
    elif evaluator:
        network = pretrained.load(evaluator, device=device)
        name = type(network).__name__ if "." in evaluator else evaluator
    else:
        raise ValueError(f"{caller} needs {option}=...: the name of a published one, or a path")
    digest = hashlib.sha256()
    for tensor in network.state_dict().values():
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return network, f"{name}@{digest.hexdigest()[:8]}"
