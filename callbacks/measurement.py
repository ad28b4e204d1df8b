"""What all measures share: the model at rest, this rank's share of the images, the protocol."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from lightning.fabric.utilities.apply_func import move_data_to_device
from torch import nn

from zoo import pretrained
from zoo.callbacks import base
from zoo.callbacks.base import Result

__all__ = ["CHUNK", "Run", "digest", "judge_of"]

CHUNK = 250


class Run:
    """One measurement: the model at rest, its device, this rank's share, the clock."""

    def __init__(self, model: Any, datamodule: Any, protocol: type | None, asker: str, seed: int) -> None:
        if protocol is not None:
            base.require(model, protocol, asker)
        base.require(datamodule, base.HasReference, asker)
        self.model, self.datamodule, self.seed = model, datamodule, seed
        self.device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
        distributed = dist.is_available() and dist.is_initialized()
        self.rank, self.world = (dist.get_rank(), dist.get_world_size()) if distributed else (0, 1)
        self.start = time.monotonic()

    def size(self, split: str, num_samples: int | None) -> int:
        """Number of images to take of a split: at most all."""
        whole = len(self.datamodule.split(split))
        return whole if num_samples is None else min(num_samples, whole)

    def batches(self, split: str, num: int, chunk: int = 0, datamodule: Any = None) -> Iterator[tuple[int, Any]]:
        """This rank's chunks of a split, on the model's device."""
        source = self.datamodule if datamodule is None else datamodule
        for first, batch in source.reference_batches(
            num, chunk or CHUNK, split=split, rank=self.rank, world_size=self.world
        ):
            yield first, move_data_to_device(batch, self.device)

    def chunks(self, num: int, chunk: int = 0) -> Iterator[tuple[int, int]]:
        """(first, size) of this rank's chunks of a number of draws."""
        chunk = chunk or CHUNK
        for first in range(self.rank * chunk, num, self.world * chunk):
            yield first, min(chunk, num - first)

    def named(self, split: str, num: int) -> str:
        """A set of real images, as protocols name it."""
        return f"{self.datamodule.name}-{split}-{num}"

    def result(self, metric: str, value: Any, **protocol: Any) -> Result:
        """The value with its protocol."""
        averaged = any(network.endswith("_ema") for network in getattr(self.model, "inference_networks", ()))
        parts = [f"{key}={text}" for key, text in protocol.items()] + [f"weights={'ema' if averaged else 'raw'}"]
        value = base.from_rank_zero(float(value))
        return Result(value, f"{metric}[{', '.join(parts)}]", metric, time.monotonic() - self.start)


def judge_of(judge: str | nn.Module, device: torch.device, asker: str, option: str) -> tuple[Any, str]:
    """A network that judges images, and its name.

    Args:
        judge: name of a published checkpoint, path of one, or a module.
        device: where it is to be.
        asker: name of the measure, for the message.
        option: name of the option that gives it, for the message.

    Raises:
        ValueError: none is given.
    """
    if isinstance(judge, nn.Module):
        return judge.to(device), type(judge).__name__
    if not judge:
        raise ValueError(f"{asker} needs {option}=...: the name of a published one, or a path")
    found = pretrained.load(judge, device=device)
    return found, judge if "." not in judge else type(found).__name__


def digest(network: nn.Module) -> str:
    """Eight digits that tell a network's weights from others.

    Args:
        network: the network.
    """
    found = hashlib.sha256()
    for tensor in network.state_dict().values():
        found.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:8]
