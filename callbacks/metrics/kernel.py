"""Kernel distance between two sets of features; with Inception features this is KID.

    MMD^2 = mean k(x, x') + mean k(y, y') - 2 mean k(x, y)     over x != x', y != y'; k(x, y) = (x.y / d + 1)^3

an estimate without bias, so it may be negative.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.callbacks.metrics.bank import FeatureBank
from zoo.engine.devices import double

__all__ = ["KernelDistance", "kernel_distance"]

STRIP = 128
"""Rows of a kernel matrix that are computed together."""


def kernel_distance(
    real: Tensor,
    fake: Tensor,
    *,
    subsets: int = 100,
    subset_size: int = 1000,
    degree: int = 3,
    gamma: float | None = None,
    coef: float = 1.0,
    seed: int = 2020,
) -> tuple[Tensor, Tensor]:
    """Squared maximum mean discrepancy with the kernel (gamma x.y + coef)^degree: mean and deviation over subsets.

    The subsets are those of torch-fidelity with the same seed. Everything is float64: the value is the small difference
    of kernels of size 1 and more.

    Args:
        real: features of real images.
        fake: features of generated images.
        subsets: number of subsets of each side.
        subset_size: rows per subset, drawn without replacement.
        degree: power of the kernel.
        gamma: factor of the scalar product; None for 1 / d.
        coef: summand of the kernel.
        seed: seed of the subsets.

    Shape:
        real: (M, d); fake: (N, d); outputs: scalars.

    Raises:
        ValueError: there are fewer rows than a subset has.

    References:
        Binkowski, Sutherland, Arbel and Gretton 2018, "Demystifying MMD GANs", section 3 and appendix.
    """
    for side, rows in (("real", real), ("generated", fake)):
        if len(rows) < subset_size:
            raise ValueError(
                f"a kernel distance of subsets of {subset_size} needs as many {side} images, got {len(rows)}"
            )
    draws = np.random.RandomState(seed)
    gamma = 1 / real.shape[1] if gamma is None else gamma

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        return (x @ y.T).mul_(gamma).add_(coef).pow_(degree)

    def within(rows: Tensor) -> Tensor:
        """Sum over all pairs of different rows: of what lies left of the diagonal nothing is computed."""
        total = rows.new_zeros(())
        for i in range(0, subset_size, STRIP):
            strip = kernel(rows[i : i + STRIP], rows[i:])
            square = strip[:, : len(strip)]
            total += 2 * strip.sum() - square.sum() - square.trace()
        return total / (subset_size * (subset_size - 1))

    values = []
    for _ in range(subsets):
        y, x = (
            double(rows[torch.from_numpy(draws.choice(len(rows), subset_size, replace=False)).to(rows.device)])
            for rows in (fake, real)
        )
        values.append(within(x) + within(y) - 2 * kernel(x, y).mean())
    found = torch.stack(values)
    return found.mean(), found.std(correction=0)


class KernelDistance(FeatureBank):
    """`kernel_distance` of all features that were added.

    Args:
        subsets: number of subsets.
        subset_size: rows per subset.
        seed: seed of the subsets.
        kwargs: options of `torchmetrics.Metric`.
    """

    higher_is_better = False

    def __init__(self, subsets: int = 100, subset_size: int = 1000, seed: int = 2020, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.subsets, self.subset_size, self.seed = subsets, subset_size, seed

    def compute(self) -> tuple[Tensor, Tensor]:
        """The mean over subsets, and their deviation."""
        sides = self.rows(real=True), self.rows(real=False)
        return kernel_distance(*sides, subsets=self.subsets, subset_size=self.subset_size, seed=self.seed)
