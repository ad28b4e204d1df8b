"""Disentanglement, the match of single code dimensions and single factors: the beta-VAE metric and the MIG."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics.utilities.data import dim_zero_cat

from zoo.callbacks.metrics.codes import fit_linear
from zoo.callbacks.metrics.means import share
from zoo.callbacks.metrics.ranks import AnyShare

__all__ = ["BetaVAEMetric", "MutualInformationGap", "mutual_information_gap"]


class BetaVAEMetric(AnyShare):
    """Accuracy in percent of a linear classifier that predicts the shared factor from mean differences of codes.

    A point is mean_l |mu(x_l) - mu(y_l)| over pairs of images that share the value of one factor, the point's class.

    References:
        Higgins et al. 2017, section 3, algorithm 1.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    points: list[Tensor]
    factors: list[Tensor]
    order: list[Tensor]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for name in ("points", "factors", "order"):
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(self, a: Tensor, b: Tensor, factor: Tensor, *, first: int = 0) -> None:
        """Add points.

        Args:
            a: codes of the first image of each pair.
            b: codes of the second.
            factor: number of the factor that the pairs of each point share.
            first: global index of the first point.

        Shape:
            a, b: (N, L, D); factor: (N,).
        """
        self.points.append((a - b).abs().mean(1))
        self.factors.append(factor)
        self.order.append(torch.arange(first, first + len(factor), device=factor.device))

    def compute(self) -> dict[str, Tensor]:
        """Accuracy in percent on the last third of the points, of a classifier fitted to the rest: see `ShareRight`."""
        order = dim_zero_cat(self.order).argsort()
        points, factors = dim_zero_cat(self.points)[order].double(), dim_zero_cat(self.factors)[order]
        train = 2 * len(points) // 3
        mean, std = points[:train].mean(0), points[:train].std(0).clamp(min=1e-8)
        points = (points - mean) / std
        found = fit_linear(points[:train], factors[:train])(points[train:]).argmax(1)
        return share(found == factors[train:], factors[train:])


def mutual_information_gap(codes: Tensor, factors: Tensor, bins: int = 20) -> Tensor:
    """Mean over factors v of (I(z_first; v) - I(z_second; v)) / H(v), for the two most informative dimensions.

    Args:
        codes: codes; each dimension is cut into bins of equal width.
        factors: values of the factors.
        bins: number of bins.

    Shape:
        codes: (N, D); factors: (N, F); output: scalar.

    References:
        Chen et al. 2018, "Isolating sources of disentanglement in VAEs", section 4.1; histograms as in Locatello et al.
        2019.
    """
    codes, n = codes.double(), len(codes)
    low, high = codes.min(0).values, codes.max(0).values
    binned = ((codes - low) / (high - low).clamp(min=1e-12) * bins).long().clamp(max=bins - 1)
    gaps = []
    for values in factors.T:
        size = int(values.max()) + 1
        p_v = torch.bincount(values, minlength=size).double() / n
        entropy = -torch.xlogy(p_v, p_v).sum()
        information = []
        for column in binned.T:
            joint = torch.bincount(column * size + values, minlength=bins * size).double().view(bins, size) / n
            product = joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True)
            information.append((torch.xlogy(joint, joint) - torch.xlogy(joint, product)).sum())
        first, second = torch.stack(information).topk(2).values if len(information) > 1 else (information[0], 0.0)
        gaps.append((first - second) / entropy)
    return torch.stack(gaps).mean()


class MutualInformationGap(AnyShare):
    """`mutual_information_gap` of all codes that were added.

    Args:
        bins: bins per dimension.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    codes: list[Tensor]
    factors: list[Tensor]

    def __init__(self, bins: int = 20, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.bins = bins
        for name in ("codes", "factors"):
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(self, codes: Tensor, factors: Tensor) -> None:
        """Add codes.

        Shape:
            codes: (N, D); factors: (N, F).
        """
        self.codes.append(codes)
        self.factors.append(factors)

    def compute(self) -> Tensor:
        """The gap, from 0 to 1."""
        return mutual_information_gap(dim_zero_cat(self.codes), dim_zero_cat(self.factors), self.bins)
