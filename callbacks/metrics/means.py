"""Means over images with their standard errors: of values, and of what is right or wrong."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from zoo.engine.devices import double

__all__ = ["Averaged", "MeanWithError", "ShareRight", "share"]


class Averaged(Metric):
    """A metric that is a mean over images; sums are float64 and added over ranks. Subclasses give values to `add`."""

    is_differentiable = False
    higher_is_better: bool | None = None
    full_state_update = False
    count: Tensor
    total: Tensor
    squares: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for name in ("count", "total", "squares"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def add(self, values: Tensor) -> None:
        """Add values of images.

        Shape:
            values: (N,).
        """
        values = double(values)
        self.count += values.numel()
        self.total += values.sum()
        self.squares += values.square().sum()

    def compute(self) -> dict[str, Tensor]:
        """`value`, the mean, and `error`, its standard error; not a number without values."""
        mean = self.total / self.count
        variance = (self.squares / self.count - mean.square()).clamp(min=0) * self.count / (self.count - 1)
        return {"value": mean, "error": (variance / self.count).sqrt()}


class MeanWithError(Averaged):
    """Mean of values and its standard error."""

    def update(self, values: Tensor) -> None:
        """Add values.

        Shape:
            values: (N,).
        """
        self.add(values)


def share(right: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """What `ShareRight` finds of one set.

    Args:
        right: whether each is right.
        targets: what each should have been.

    Shape:
        right, targets: (N,).
    """
    metric = ShareRight(int(targets.max()) + 1, sync_on_compute=False).to(right.device)  # those of all ranks are here
    metric.update(right, targets)
    return metric.compute()


class ShareRight(Metric):
    """Percentage of what is right, with its standard error, its number, and chance; counts are added over ranks.

    Args:
        num_targets: number of classes: chance is the share of the most frequent one, which is always named by who knows
            nothing; 0 for no classes.
        kwargs: options of `torchmetrics.Metric`.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    count: Tensor
    right: Tensor
    targets: Tensor

    def __init__(self, num_targets: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for name, shape in (("count", ()), ("right", ()), ("targets", (num_targets,))):
            self.add_state(name, torch.zeros(shape, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, right: Tensor, targets: Tensor | None = None) -> None:
        """Add judgements.

        Args:
            right: whether each is right.
            targets: what each should have been, where there are classes.

        Shape:
            right, targets: (N,).
        """
        self.count += right.numel()
        self.right += right.sum()
        if targets is not None:
            self.targets += targets.bincount(minlength=len(self.targets))

    def compute(self) -> dict[str, Tensor]:
        """`value`, `error`, `count` and, with classes, `chance`; percentages but for the number."""
        right = self.right.double() / self.count
        found = {"value": 100 * right, "error": 100 * (right * (1 - right) / self.count).sqrt(), "count": self.count}
        if len(self.targets):
            found["chance"] = 100 * self.targets.max().double() / self.count
        return found
