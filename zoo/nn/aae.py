"""Parts of the AAE: the settings of its phases, and the priors of two dimensions that have a part for each class."""

from __future__ import annotations

import math
from collections.abc import ItemsView, Iterator, KeysView, Mapping
from dataclasses import dataclass
from keyword import iskeyword
from typing import Any, Literal

import torch
from torch import Tensor, nn

from zoo.engine import rng
from zoo.nn.schedules import Decay

__all__ = ["PARTS", "NamedNetworks", "Phase", "Prior", "draw_parts", "falls_at", "mixture", "swiss_roll"]

Prior = Literal["gaussian", "mixture", "swiss_roll"]

PARTS = 10
"""Parts of the mixture and of the Swiss roll."""


@dataclass(frozen=True)
class Phase:
    """The networks that learn in a phase, and how; momentum and schedule are those of SGD in the paper's appendix A."""

    networks: tuple[str, ...]
    learning_rate: float
    momentum: float
    decay: Decay


class NamedNetworks(nn.ModuleDict):
    """Networks by names that may be words of Python, such as "class".

    Graphs of `torch.export` are Python code, in which such a word cannot name a module: there it has a `_` behind it.
    State dicts have the names themselves.
    """

    def __init__(self, networks: Mapping[str, nn.Module]) -> None:
        super().__init__({_attribute(name): network for name, network in networks.items()})
        hooks: Any = self
        hooks.register_state_dict_post_hook(_save_under_names)
        hooks.register_load_state_dict_pre_hook(_load_from_names)

    def __getitem__(self, name: str) -> nn.Module:
        return super().__getitem__(_attribute(name))

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def keys(self) -> KeysView[str]:
        """The names."""
        return dict(self.items()).keys()

    def items(self) -> ItemsView[str, nn.Module]:
        """Names and networks."""
        found = super().items()
        return {key[:-1] if iskeyword(key[:-1]) else key: network for key, network in found}.items()


def _attribute(name: str) -> str:
    return f"{name}_" if iskeyword(name) else name


def _renamed(state: dict[str, Any], old: str, new: str) -> None:
    for key in [key for key in state if key.startswith(old)]:
        state[new + key.removeprefix(old)] = state.pop(key)


def _save_under_names(module: NamedNetworks, state: dict[str, Any], prefix: str, local: Any) -> None:
    for name in module:
        _renamed(state, f"{prefix}{_attribute(name)}.", f"{prefix}{name}.")


def _load_from_names(module: NamedNetworks, state: dict[str, Any], prefix: str, *_: Any) -> None:
    for name in module:
        _renamed(state, f"{prefix}{name}.", f"{prefix}{_attribute(name)}.")


def falls_at(first: int, second: int) -> Decay:
    """A step size that falls to a tenth at each of two epochs."""
    return Decay("milestones", unit="epochs", milestones={first: 0.1, second: 0.01})


def mixture(draws: Tensor, part: Tensor) -> Tensor:
    """Ten Gaussians like the petals of a flower.

    Args:
        draws: two draws from N(0, 1) each.
        part: the Gaussian of each, 0 to 9.

    Shape:
        draws: (N, 2); part: (N,); output: (N, 2).

    References:
        Makhzani et al. 2015, figure 4; deviations 0.5 and 0.05 along and across, centers 1.4 from the origin.
    """
    along, across = 0.5 * draws[:, 0] + 1.4, 0.05 * draws[:, 1]
    angle = part * (2 * math.pi / PARTS)
    return torch.stack([along * angle.cos() - across * angle.sin(), along * angle.sin() + across * angle.cos()], 1)


def swiss_roll(draws: Tensor, part: Tensor) -> Tensor:
    """A spiral, cut into ten parts of equal area.

    Args:
        draws: a draw from U(0, 1) each.
        part: the part of each, 0 to 9.

    Shape:
        draws, part: (N,); output: (N, 2).

    References:
        Makhzani et al. 2015, figure 4.
    """
    u = ((draws + part) / PARTS).sqrt()
    angle = 4 * math.pi * u
    return torch.stack([3 * u * angle.cos(), 3 * u * angle.sin()], 1)


def draw_parts(
    prior: Prior,
    n: int,
    key: rng.Key,
    first: int = 0,
    part: Tensor | None = None,
    *,
    device: torch.device | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Codes from the mixture or the Swiss roll; row i depends on (key, first + i) only.

    Args:
        prior: "mixture" or "swiss_roll".
        n: number of codes.
        key: key of the draws (see `zoo.engine.rng`).
        first: global index of the first code.
        part: the part of each code, -1 for a random one; None draws all at random.
        device: device of the codes.
        dtype: type of the codes.

    Shape:
        part: (n,); output: (n, 2).
    """
    drawn = rng.integers(PARTS, (n,), key + 1, first, device=device)
    part = drawn if part is None else torch.where(part >= 0, part, drawn)
    if prior == "mixture":
        return mixture(rng.normal((n, 2), key, first, device=device, dtype=dtype), part)
    return swiss_roll(rng.uniform((n,), key, first, device=device, dtype=dtype), part)
