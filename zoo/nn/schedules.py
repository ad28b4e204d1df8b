"""How a learning rate changes in training: one object for all papers, a function of the step or epoch alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from zoo.nn.options import OptionGroup

__all__ = ["Decay"]


@dataclass(frozen=True)
class Decay(OptionGroup):
    """The factor of a learning rate after t steps or epochs, counted from 0.

    linear:      1 up to `constant`, then on a straight line to `final` over `length`
    exponential: final ** (t / length)
    milestones:  the factor given for the last milestone that t has reached, 1 before the first
    repeated:    1 / divisor ** (t // every)

    Each is multiplied by (t + 1) / `warmup` until t + 1 reaches `warmup`.
    """

    kind: Literal["linear", "exponential", "milestones", "repeated"]
    """Form of the fall."""
    unit: Literal["steps", "epochs"] = "steps"
    """What t counts."""
    warmup: int = 0
    """Steps or epochs over which the rate rises from 0."""
    constant: int = 0
    """linear: steps or epochs before the fall."""
    length: int = 0
    """linear, exponential: steps or epochs of the fall; 0 takes the whole run."""
    final: float = 0.0
    """linear, exponential: factor at the end of the fall."""
    divisor: float = 2.0
    """repeated: number that each fall divides the rate by."""
    every: int = 1
    """repeated: steps or epochs between two falls."""
    milestones: Mapping[int, float] = field(default_factory=dict)
    """milestones: factor from each step or epoch on."""

    def __post_init__(self) -> None:
        # JSON makes strings of keys.
        object.__setattr__(self, "milestones", {int(t): factor for t, factor in self.milestones.items()})
        if self.kind not in ("linear", "exponential", "milestones", "repeated"):
            raise ValueError(f"decay: kind must be linear, exponential, milestones or repeated, not {self.kind!r}")
        if self.kind == "exponential" and self.final <= 0:
            raise ValueError(f"decay: an exponential fall needs a final factor above 0, not {self.final}")
        if min(self.warmup, self.constant, self.length) < 0 or self.every < 1:
            raise ValueError("decay: warmup, constant and length must be at least 0, every at least 1")

    @property
    def follows_the_run(self) -> bool:
        """Whether the fall takes as long as the run."""
        return self.kind in ("linear", "exponential") and not self.length

    def __call__(self, t: int, total: float = math.inf) -> float:
        """Factor of the learning rate.

        Args:
            t: steps or epochs done.
            total: those of the whole run, where `length` is 0.
        """
        return self.rate(1.0, t, total)

    def rate(self, initial: float, t: int, total: float = math.inf) -> float:
        """The learning rate that starts as `initial`; further arguments as for a call."""
        length, share = self.length or total, 1.0
        if self.kind == "linear":
            share = 1 - (1 - self.final) * min(1.0, max(0, t - self.constant) / length)
        elif self.kind == "exponential":
            share = self.final ** (t / length) if math.isfinite(length) else 1.0
        elif self.kind == "milestones":
            reached = [step for step in self.milestones if step <= t]
            share = self.milestones[max(reached)] if reached else 1.0
        else:
            initial = initial / self.divisor ** (t // self.every)
        return initial * (share * (min(1.0, (t + 1) / self.warmup) if self.warmup else 1.0))
