"""Metrics of the neighbourhoods of features: precision and recall, density and coverage, authenticity.

Distances are |x|^2 + |y|^2 - 2 x.y in float64, of rows from which the mean of the real ones is subtracted: in float32
the difference of large squares decides wrongly which of two near neighbours is nearer. Distances below a millionth of
the rows' lengths are rounding errors of the extractor and count as 0, so copies lie at 0. Distances are made in blocks
of 2,048 x 2,048 (32 MiB), of a set to itself only above the diagonal; about 360 MiB are needed beside the rows, however
many these are.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from zoo.callbacks.metrics.bank import FeatureBank

__all__ = [
    "Authenticity",
    "DensityCoverage",
    "PrecisionRecall",
    "authenticity",
    "density_coverage",
    "manifold_metrics",
    "precision_recall",
]

BLOCK = 2048


class _Rows:
    """Rows of which blocks are wanted in float64, with a center subtracted."""

    def __init__(self, rows: Tensor, center: Tensor) -> None:
        self.rows, self.center = rows, center

    def block(self, first: int) -> tuple[Tensor, Tensor]:
        """Rows from one on, and their squared lengths."""
        part = self.rows[first : first + BLOCK].double() - self.center
        return part, part.square().sum(1)


def _squared(x: tuple[Tensor, Tensor], y: tuple[Tensor, Tensor]) -> Tensor:
    """Squared distances of two blocks of rows."""
    lengths = x[1][:, None] + y[1]
    squared = torch.addmm(lengths, x[0], y[0].T, alpha=-2)
    return squared.masked_fill_(squared < 1e-12 * lengths, 0)


def _nearest(rows: _Rows, k: int) -> Tensor:
    """Squared distances of each row to its k nearest other rows, the nearest first, (N, k)."""
    n = len(rows.rows)
    best = torch.full((n, k), torch.inf, dtype=torch.float64, device=rows.center.device)

    def keep(first: int, found: Tensor) -> None:
        near = found.topk(min(k, found.shape[1]), largest=False).values
        mine = best[first : first + BLOCK]
        mine.copy_(torch.cat([mine, near], 1).topk(k, largest=False).values)

    for i in range(0, n, BLOCK):
        x = rows.block(i)
        for j in range(i, n, BLOCK):
            squared = _squared(x, rows.block(j))
            if i == j:
                squared.fill_diagonal_(torch.inf)  # a row is not its own neighbour
            else:
                keep(j, squared.T)
            keep(i, squared)
    return best


def _blocks(x: _Rows, y: _Rows) -> Iterator[tuple[slice, slice, Tensor]]:
    """Blocks of squared distances of two sets, with their places."""
    for i in range(0, len(x.rows), BLOCK):
        part = x.block(i)
        for j in range(0, len(y.rows), BLOCK):
            squared = _squared(part, y.block(j))
            yield slice(i, i + squared.shape[0]), slice(j, j + squared.shape[1]), squared


def manifold_metrics(real: Tensor, fake: Tensor, *, k: int = 3, k_density: int = 5) -> dict[str, Tensor]:
    """`precision`, `recall`, `density`, `coverage` and `authenticity` from one pass over the distances.

    A row's ball reaches to its k-th nearest other row of its own set.

    precision:    share of generated images in the ball of a real one (k)
    recall:       share of real images in the ball of a generated one (k)
    density:      mean number of balls of real images in which a generated image lies, divided by k (k_density)
    coverage:     share of real images with a generated image in their ball (k_density)
    authenticity: share of generated images that are farther from the nearest real image than that one is from the real
                  image nearest to it; copies of training images are not

    Args:
        real: features of real images; for authenticity those that the model was trained on.
        fake: features of generated images.
        k: neighbours of precision and recall.
        k_density: neighbours of density and coverage.

    Shape:
        real: (M, d); fake: (N, d); outputs: scalars, float64.

    Raises:
        ValueError: a set has not enough rows for so many neighbours.

    References:
        Kynkäänniemi et al. 2019, "Improved precision and recall metric for assessing generative models"; Naeem et al.
        2020, "Reliable fidelity and diversity metrics for generative models"; Alaa et al. 2022, "How faithful is your
        synthetic data?", section 4.
    """
    for side, rows, least in (("real", real, max(k, k_density)), ("generated", fake, k)):
        if len(rows) <= least:
            raise ValueError(f"{least} nearest neighbours need {least + 1} {side} images, got {len(rows)}")
    center = real.mean(0, dtype=torch.float64)
    x, y = _Rows(real, center), _Rows(fake, center)
    near = _nearest(x, max(k, k_density))
    ball, wide_ball, nearest = near[:, k - 1 : k], near[:, k_density - 1 : k_density], near[:, 0]
    fake_ball = _nearest(y, k)[:, k - 1]
    inside = torch.zeros(len(fake), dtype=torch.bool, device=center.device)
    reached, covered = (torch.zeros(len(real), dtype=torch.bool, device=center.device) for _ in range(2))
    balls = torch.zeros((), dtype=torch.int64, device=center.device)
    least_distance = torch.full((len(fake),), torch.inf, dtype=torch.float64, device=center.device)
    spacing = torch.zeros_like(least_distance)
    for at, columns, squared in _blocks(x, y):
        inside[columns] |= (squared <= ball[at]).any(0)
        reached[at] |= (squared <= fake_ball[columns]).any(1)
        within = squared < wide_ball[at]
        balls += within.sum()
        covered[at] |= within.any(1)
        distance, which = squared.min(0)
        closer = distance < least_distance[columns]
        least_distance[columns] = torch.where(closer, distance, least_distance[columns])
        spacing[columns] = torch.where(closer, nearest[at][which], spacing[columns])
    return {
        "precision": inside.double().mean(),
        "recall": reached.double().mean(),
        "density": balls.double() / (k_density * len(fake)),
        "coverage": covered.double().mean(),
        "authenticity": (least_distance > spacing).double().mean(),
    }


def precision_recall(real: Tensor, fake: Tensor, k: int = 3) -> tuple[Tensor, Tensor]:
    """`precision` and `recall` of `manifold_metrics`.

    Args:
        real: features of real images.
        fake: features of generated images.
        k: number of the neighbour to which a ball reaches.

    Shape:
        real: (M, d); fake: (N, d); outputs: scalars.
    """
    found = manifold_metrics(real, fake, k=k, k_density=k)
    return found["precision"], found["recall"]


def density_coverage(real: Tensor, fake: Tensor, k: int = 5) -> tuple[Tensor, Tensor]:
    """`density` and `coverage` of `manifold_metrics`.

    Args:
        real: features of real images.
        fake: features of generated images.
        k: number of the neighbour to which a ball reaches.

    Shape:
        real: (M, d); fake: (N, d); outputs: scalars.
    """
    found = manifold_metrics(real, fake, k=1, k_density=k)
    return found["density"], found["coverage"]


def authenticity(train: Tensor, fake: Tensor) -> Tensor:
    """`authenticity` of `manifold_metrics`.

    Args:
        train: features of the images that the model was trained on.
        fake: features of generated images.

    Shape:
        train: (M, d); fake: (N, d); output: scalar.
    """
    return manifold_metrics(train, fake, k=1, k_density=1)["authenticity"]


class PrecisionRecall(FeatureBank):
    """`precision_recall` of all features that were added.

    Args:
        k: number of the neighbour to which a ball reaches.
        kwargs: options of `torchmetrics.Metric`.
    """

    higher_is_better = True

    def __init__(self, k: int = 3, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.k = k

    def compute(self) -> tuple[Tensor, Tensor]:
        """Precision and recall."""
        return precision_recall(self.rows(real=True), self.rows(real=False), self.k)


class DensityCoverage(FeatureBank):
    """`density_coverage` of all features that were added.

    Args:
        k: number of the neighbour to which a ball reaches.
        kwargs: options of `torchmetrics.Metric`.
    """

    higher_is_better = True

    def __init__(self, k: int = 5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.k = k

    def compute(self) -> tuple[Tensor, Tensor]:
        """Density and coverage."""
        return density_coverage(self.rows(real=True), self.rows(real=False), self.k)


class Authenticity(FeatureBank):
    """`authenticity` of all features that were added; the real images are those that the model was trained on."""

    higher_is_better = True

    def compute(self) -> Tensor:
        """The share of generated images that are no copies."""
        return authenticity(self.rows(real=True), self.rows(real=False))
