"""The loops that an architecture is measured beside: one module per architecture.

A module named like the architecture has four functions; `benchmarks.speed` finds it by its name:

- `model(settings)`: the zoo's model;
- `plain(model, settings, noise)`: a plain PyTorch loop of the same maths and the same options, from the same weights;
- `textbook(model, settings, noise)`: the loop of the reference as it is published, from the same weights;
- `networks(model, settings, noise)`: only the passes forward and backward of the same networks.

`noise(step)` gives the noise of a step; each of the last three returns a `Loop`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

Noise = Callable[[int], Tensor]


@dataclass(frozen=True)
class Settings:
    """What a measurement is made with."""

    image_size: int = 64
    batch_size: int = 64
    precision: Literal["32", "bf16"] = "32"
    channels_last: bool = True
    compile: bool = False
    device: str = "cpu"
    options: tuple[tuple[str, Any], ...] = ()
    """Further arguments of the model, such as a smaller width in tests."""

    def autocast(self) -> AbstractContextManager[Any]:
        """The context of the passes forward."""
        return torch.autocast(self.device, torch.bfloat16) if self.precision == "bf16" else nullcontext()


class Loop(Protocol):
    """A training loop that has been set up."""

    networks: dict[str, nn.Module]
    """Its networks, by the zoo's names, with parameters in the zoo's order."""

    def step(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Train on one batch; returns the losses, detached, by phase."""
        ...


def copy_parameters(source: nn.Module, target: nn.Module) -> None:
    """Copy parameters and buffers in order between networks of the same layers under other names."""
    for tensors in (nn.Module.parameters, nn.Module.buffers):
        pairs: Sequence[tuple[Tensor, Tensor]] = list(zip(tensors(source), tensors(target), strict=True))
        for a, b in pairs:
            if a.shape != b.shape:
                raise ValueError(f"the networks differ: {tuple(a.shape)} beside {tuple(b.shape)}")
            b.data = a.detach().clone(memory_format=torch.contiguous_format)
