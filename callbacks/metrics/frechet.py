"""Fréchet distance between two sets of features, each modeled as a Gaussian.

    |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2))

with means m and unbiased covariances S (Heusel et al. 2017, "GANs trained by a two time-scale update rule", eq. 6).
Everything here is float64. With Inception features this is FID; with any others it is not, and must not be called so.
"""

from __future__ import annotations

import warnings
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from zoo.callbacks.metrics.bank import FeatureBank
from zoo.engine.devices import double

__all__ = [
    "FrechetInfinity",
    "FrechetMetric",
    "frechet_distance_of",
    "frechet_infinity",
    "gaussian_distance",
    "moments_of",
]


def _factor(covariance: Tensor) -> Tensor:
    """F with F F^T = covariance: by Cholesky, or by eigenvectors where the covariance is singular."""
    factor, failed = torch.linalg.cholesky_ex(covariance)
    pivots = factor.diagonal().square()
    tolerance = len(covariance) * torch.finfo(covariance.dtype).eps
    if not failed and pivots.min() > tolerance * covariance.diagonal().max():
        return cast(Tensor, factor)
    try:
        values, vectors = torch.linalg.eigh(covariance)
    except RuntimeError:  # torch.linalg.LinAlgError
        # On some CPUs its divide and conquer gives up on matrices of very low rank; numpy's is of another make.
        found = np.linalg.eigh(covariance.cpu().numpy())
        values, vectors = (torch.from_numpy(part).to(covariance.device) for part in found)
    # Eigenvalues below the rounding error are zeros; the square root would blow that error up to its square root.
    kept = values > tolerance * values[-1].clamp(min=0)
    return cast(Tensor, vectors[:, kept] * values[kept].sqrt())


def gaussian_distance(mean_a: Tensor, covariance_a: Tensor, mean_b: Tensor, covariance_b: Tensor) -> Tensor:
    """Fréchet distance between two Gaussians.

    Args:
        mean_a: mean of the first.
        covariance_a: covariance of the first; may be singular.
        mean_b: mean of the second.
        covariance_b: covariance of the second; may be singular.

    Shape:
        means: (d,); covariances: (d, d); output: scalar.
    """
    # With S = F F^T, tr (S1 S2)^(1/2) is the sum of the square roots of the eigenvalues of F1^T S2 F1, which are the
    # singular values of F1^T F2: taken from there, their error is a rounding error and not the square root of one.
    return _distance(mean_a, covariance_a, _factor(covariance_a), mean_b, covariance_b)


def _distance(mean_a: Tensor, covariance_a: Tensor, factor_a: Tensor, mean_b: Tensor, covariance_b: Tensor) -> Tensor:
    """`gaussian_distance` where the first covariance is factored already."""
    cross = factor_a.T @ _factor(covariance_b)
    root = torch.linalg.svdvals(cross).sum() if cross.numel() else cross.sum()
    distance = (mean_a - mean_b).square().sum() + covariance_a.trace() + covariance_b.trace() - 2 * root
    return distance.clamp(min=0)


def moments_of(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and unbiased covariance of features in float64, a block of rows at a time.

    Args:
        rows: the features.

    Shape:
        rows: (N, d); outputs: (d,) and (d, d).

    Raises:
        ValueError: there are fewer than two.
    """
    if len(rows) < 2:
        raise ValueError(f"a covariance needs two images, got {len(rows)}")
    total = torch.stack([double(part).sum(0) for part in rows.split(4096)]).sum(0)
    mean = total / len(rows)
    outer = torch.zeros(len(mean), len(mean), dtype=mean.dtype, device=mean.device)
    for part in rows.split(4096):
        centered = double(part) - mean
        outer.addmm_(centered.T, centered)
    return mean, outer / (len(rows) - 1)


def frechet_distance_of(real: Tensor, fake: Tensor) -> Tensor:
    """Fréchet distance between two sets of features, `FrechetMetric` of them; warns where a covariance is singular.

    Args:
        real: features of real images.
        fake: features of generated images.

    Shape:
        real: (M, d); fake: (N, d); output: scalar, float64.
    """
    _warn_of_few(min(len(real), len(fake)), real.shape[1])
    return gaussian_distance(*moments_of(real), *moments_of(fake))


def frechet_infinity(
    real: Tensor, fake: Tensor, *, points: int = 15, least: int | None = None, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Fréchet distance that infinitely many generated images would have, extrapolated from subsets of them.

    The distance falls with the number N of generated images about as a + b / N; `a` of a linear fit is the value, and
    the error of the fit its standard error. The real images are all taken, so their part of the bias stays.

    Args:
        real: features of real images.
        fake: features of generated images.
        points: number of subsets, their sizes evenly spaced up to all images.
        least: size of the smallest; None for 5,000, or half of the images where these are fewer than 10,000.
        seed: seed of the subsets.

    Shape:
        real: (M, d); fake: (N, d); outputs: value and standard error, scalars, float64.

    Raises:
        ValueError: there are fewer images than the smallest subset has, a subset has at most d of them, or there are
            fewer than three subsets.

    References:
        Chong and Forsyth 2020, "Effectively unbiased FID and Inception Score and where to find them", section 4.
    """
    n, d = fake.shape
    least = min(5000, n // 2) if least is None else least
    if not d < least < n:
        raise ValueError(
            f"an extrapolation with {d} features needs subsets of more than {d} images and more images than those of "
            f"the smallest subset; the smallest has {least} of {n}: take {2 * d + 2} images"
        )
    if points < 3:
        raise ValueError(f"a line with an error needs at least three subsets, not {points}")
    _warn_of_few(len(real), d)
    mean, covariance = moments_of(real)
    factor = _factor(covariance)
    draws = torch.Generator().manual_seed(seed)
    sizes = torch.linspace(least, n, points, dtype=torch.float64).long()
    values = []
    for size in sizes.tolist():
        rows = fake[torch.randperm(n, generator=draws)[:size].to(fake.device)]
        values.append(_distance(mean, covariance, factor, *moments_of(rows)))
    y, x = torch.stack(values), 1 / sizes.to(mean)
    spread = (x - x.mean()).square().sum()
    slope = ((x - x.mean()) * (y - y.mean())).sum() / spread
    value = y.mean() - slope * x.mean()
    # The subsets share images, so their distances scatter less than those of new images would: a lower bound.
    variance = (y - value - slope * x).square().sum() / (points - 2)
    return value, (variance * (1 / points + x.mean().square() / spread)).sqrt()


def _warn_of_few(images: int, features: int) -> None:
    if images <= features:
        warnings.warn(
            f"{images} images for {features} features: the covariance is singular and the distance far too large; "
            f"compare only with values from as many images, or take more than {features}",
            stacklevel=3,
        )


class FrechetInfinity(FeatureBank):
    """`frechet_infinity` of all features that were added.

    Args:
        points: number of subsets.
        seed: seed of the subsets.
        kwargs: options of `torchmetrics.Metric`.
    """

    higher_is_better = False

    def __init__(self, points: int = 15, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.points, self.seed = points, seed

    def compute(self) -> tuple[Tensor, Tensor]:
        """The extrapolated distance, and its standard error."""
        return frechet_infinity(self.rows(real=True), self.rows(real=False), points=self.points, seed=self.seed)


class FrechetMetric(Metric):
    """Fréchet distance between the features of real and of generated images.

    The states are counts, sums and sums of outer products in float64, added over ranks: how images are split over
    batches and ranks changes the value only by rounding errors (1e-13 or so).

    Args:
        num_features: length of a feature vector.
        kwargs: options of `torchmetrics.Metric`.

    Shape:
        features: (N, num_features); output: scalar, float64.
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False
    plot_lower_bound = 0.0

    real_count: Tensor
    real_sum: Tensor
    real_outer: Tensor
    fake_count: Tensor
    fake_sum: Tensor
    fake_outer: Tensor

    def __init__(self, num_features: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_features = num_features
        for side in ("real", "fake"):
            for name, shape in (("count", ()), ("sum", (num_features,)), ("outer", (num_features, num_features))):
                self.add_state(f"{side}_{name}", torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, features: Tensor, real: bool) -> None:
        """Add images.

        Args:
            features: their features.
            real: they are real images, not generated ones.

        Raises:
            ValueError: the features have another shape, or are not finite.
        """
        if features.ndim != 2 or features.shape[1] != self.num_features:
            raise ValueError(f"features must be (N, {self.num_features}), not {tuple(features.shape)}")
        features = features.detach().to(self.real_sum.device).to(self.real_sum.dtype)
        total = features.sum(0)
        if not total.isfinite().all():
            raise ValueError(f"features of {'real' if real else 'generated'} images are not finite")
        side = "real" if real else "fake"
        getattr(self, f"{side}_count").add_(len(features))
        getattr(self, f"{side}_sum").add_(total)
        getattr(self, f"{side}_outer").addmm_(features.T, features)

    def moments(self, real: bool) -> tuple[Tensor, Tensor]:
        """Mean and unbiased covariance of one side.

        Args:
            real: the side of the real images, not of the generated ones.

        Raises:
            ValueError: it has fewer than two images.
        """
        side = "real" if real else "fake"
        count, total, outer = (getattr(self, f"{side}_{name}") for name in ("count", "sum", "outer"))
        if count < 2:
            raise ValueError(f"a covariance needs two {'real' if real else 'generated'} images, got {int(count)}")
        mean = total / count
        return mean, (outer - torch.outer(total, mean)) / (count - 1)

    def compute(self) -> Tensor:
        """The distance; warns where a covariance cannot have full rank."""
        _warn_of_few(int(min(self.real_count, self.fake_count)), self.num_features)
        return gaussian_distance(*self.moments(real=True), *self.moments(real=False))

    def real_state(self) -> dict[str, Tensor]:
        """States of the real side, added over ranks; every rank must call this."""
        with self.sync_context(should_sync=True):
            return {name: getattr(self, f"real_{name}").clone() for name in ("count", "sum", "outer")}

    def load_real_state(self, state: dict[str, Tensor]) -> None:
        """Set the states of the real side; where there are several ranks, on one of them.

        Args:
            state: states as `real_state` gives them.
        """
        for name, value in state.items():
            setattr(self, f"real_{name}", value.to(self.real_sum))
        # Else a metric that has seen no generated images yet would count as never updated.
        self._update_count += 1
        self._computed = None
