"""Parts of the AAE: the settings of its phases, and the priors of two dimensions that have a part for each class."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from zoo.engine import rng
from zoo.nn.schedules import Decay

__all__ = ["PARTS", "Phase", "Prior", "draw_parts", "falls_at", "mixture", "swiss_roll"]

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
