"""The loops that an architecture is compared with: one module per architecture.

A module named like the architecture has four functions; `benchmarks.speed` finds it by its name:

- `model(settings)`: the zoo's model;
- `plain(model, settings, noise)`: a plain PyTorch loop of the same maths and the same options, from the same weights;
- `textbook(model, settings, noise)`: the loop of the reference as it is published, from the same weights;
- `networks(model, settings, noise)`: only the passes forward and backward of the same networks.

A module of a model that learns from images of two domains says `UNPAIRED = True`.

`noise(step)` gives the random numbers of a step (`Draws`); each of the last three returns a `Loop`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from zoo.engine import rng


class Draws:
    """Random numbers of one step as a plain loop takes them, from torch's generator.

    A loop names the purpose of each draw as the zoo's model does, so that `KeyedDraws` can give it the same numbers.

    Args:
        device: where they are made.
        dtype: float32 or float64.
    """

    def __init__(self, device: str = "cpu", dtype: torch.dtype = torch.float32) -> None:
        self.options: dict[str, Any] = {"device": device, "dtype": dtype}

    def normal(self, purpose: str, *shape: int) -> Tensor:
        """Draws from N(0, 1)."""
        return torch.randn(shape, **self.options)

    def uniform(self, purpose: str, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Draws from U(low, high)."""
        return torch.empty(shape, **self.options).uniform_(low, high)

    def mask(self, purpose: str, *shape: int, keep: float) -> Tensor:
        """Draws that are 1 with the probability `keep`, else 0."""
        return torch.empty(shape, **self.options).bernoulli_(keep)

    def integers(self, purpose: str, *shape: int, high: int) -> Tensor:
        """Draws from {0, ..., high - 1}."""
        return torch.randint(high, shape, device=self.options["device"])

    def permutation(self, purpose: str, n: int) -> Tensor:
        """n numbers in a random order, on the CPU."""
        return torch.randperm(n)


class KeyedDraws(Draws):
    """The numbers that the zoo's model draws in a step.

    Args:
        seed: seed of the model.
        step: index of the batch.
        dtype: float32 or float64.
    """

    def __init__(self, seed: int, step: int, dtype: torch.dtype) -> None:
        super().__init__("cpu", dtype)
        self.seed, self.step = seed, step

    def normal(self, purpose: str, *shape: int) -> Tensor:
        """Draws from N(0, 1)."""
        return rng.normal(shape, rng.key(self.seed, purpose, self.step), **self.options)

    def uniform(self, purpose: str, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Draws from U(low, high)."""
        return rng.uniform(shape, rng.key(self.seed, purpose, self.step), low=low, high=high, **self.options)

    def mask(self, purpose: str, *shape: int, keep: float) -> Tensor:
        """Draws that are 1 with the probability `keep`, else 0."""
        drawn = rng.keep_mask(shape, keep, rng.key(self.seed, purpose, self.step))
        return drawn.to(self.options["dtype"])

    def integers(self, purpose: str, *shape: int, high: int) -> Tensor:
        """Draws from {0, ..., high - 1}."""
        return rng.integers(high, shape, rng.key(self.seed, purpose, self.step))

    def permutation(self, purpose: str, n: int) -> Tensor:
        """n numbers in a random order, on the CPU."""
        return rng.permutation(n, rng.key(self.seed, purpose, self.step))


Noise = Callable[[int], Draws]


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
    labelled: int = 0
    """Size of the batch of labelled images that comes with each batch, for models that learn from both."""
    unpaired: bool = False
    """Batches hold `image_a` and `image_b`."""
    patches: int = 0
    """Patches of each image; batches then also hold a mask and another image."""
    sentences: int = 0
    """Length of the embeddings of each image's own and a mismatched sentence."""

    def without_compile(self) -> None:
        """Refuse `compile` for a model that has no such option.

        Raises:
            ValueError: `compile` was asked for.
        """
        if self.compile:
            raise ValueError("this model has no option compile: leave out --compile")

    def autocast(self) -> AbstractContextManager[Any]:
        """The context of the passes forward."""
        return torch.autocast(self.device, torch.bfloat16) if self.precision == "bf16" else nullcontext()


class Loop(Protocol):
    """A training loop that has been set up."""

    networks: dict[str, nn.Module]
    """Its networks, by the zoo's names, with parameters in the zoo's order."""

    def step(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Train on one batch; returns the losses, detached, by phase (automatic optimization: "training")."""
        ...


def copy_parameters(source: nn.Module, target: nn.Module) -> None:
    """Copy parameters and buffers in order between networks of the same layers under other names."""
    for tensors in (nn.Module.parameters, nn.Module.buffers):
        pairs: Sequence[tuple[Tensor, Tensor]] = list(zip(tensors(source), tensors(target), strict=True))
        for a, b in pairs:
            if a.shape != b.shape:
                raise ValueError(f"the networks differ: {tuple(a.shape)} and {tuple(b.shape)}")
            b.data = a.detach().clone(memory_format=torch.contiguous_format)
