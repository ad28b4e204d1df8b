"""Classes in codes: accuracy of a linear probe and of nearest neighbours, and the error of a classifier."""

from __future__ import annotations

from typing import Any, Literal, cast

import numpy as np
import torch
from scipy import optimize
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics.utilities.data import dim_zero_cat

from zoo.callbacks.metrics.means import share
from zoo.callbacks.metrics.ranks import AnyShare

__all__ = ["ClassError", "CodeAccuracy", "Matching", "fit_linear"]

Matching = Literal["none", "hungarian", "best_example"]


def fit_linear(x: Tensor, label: Tensor, penalty: float = 1e-4, steps: int = 200) -> nn.Linear:
    """Multinomial logistic regression, fitted by L-BFGS in float64 from zero: the same for the same data.

    Args:
        x: features; standardize them first.
        label: classes from 0 on.
        penalty: weight of the squared norm of the weights.
        steps: iterations at most.

    Shape:
        x: (N, D); label: (N,).
    """
    x = x.double()
    layer = nn.Linear(x.size(1), int(label.max()) + 1, device=x.device, dtype=torch.float64)
    for p in layer.parameters():
        nn.init.zeros_(p)
    optimizer = torch.optim.LBFGS(layer.parameters(), max_iter=steps, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(layer(x), label) + penalty * layer.weight.square().sum()
        torch.autograd.backward(loss)
        return loss

    with torch.enable_grad():
        optimizer.step(closure)
    return layer.requires_grad_(False)


class CodeAccuracy(AnyShare):
    """Accuracy in percent of a classifier that is fitted to some codes and measured on others.

    All codes are standardized with mean and deviation of the codes for fitting.

    Args:
        kind: "linear_probe", multinomial logistic regression; "knn", a vote of the nearest neighbours.
        neighbours: number of neighbours.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    fit_codes: list[Tensor]
    fit_labels: list[Tensor]
    fit_order: list[Tensor]
    test_codes: list[Tensor]
    test_labels: list[Tensor]

    def __init__(self, kind: Literal["linear_probe", "knn"], neighbours: int = 5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.kind = kind
        self.neighbours = neighbours
        for name in ("fit_codes", "fit_labels", "fit_order", "test_codes", "test_labels"):
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(self, codes: Tensor, label: Tensor, *, fit: bool, first: int = 0) -> None:
        """Add codes.

        Args:
            codes: codes of images.
            label: their classes.
            fit: fit the classifier to these codes, instead of measuring on them.
            first: global index of the first code, which puts the codes of all ranks in order.

        Shape:
            codes: (N, D); label: (N,).
        """
        part = "fit" if fit else "test"
        getattr(self, f"{part}_codes").append(codes.float())
        getattr(self, f"{part}_labels").append(label)
        if fit:
            self.fit_order.append(torch.arange(first, first + len(codes), device=codes.device))

    def compute(self) -> dict[str, Tensor]:
        """Accuracy in percent, see `ShareRight`."""
        order = dim_zero_cat(self.fit_order).argsort()
        fit, label = dim_zero_cat(self.fit_codes)[order], dim_zero_cat(self.fit_labels)[order]
        mean, std = fit.mean(0), fit.std(0).clamp(min=1e-8)
        fit, test = (fit - mean) / std, (dim_zero_cat(self.test_codes) - mean) / std
        if self.kind == "linear_probe":
            found = fit_linear(fit, label)(test.double()).argmax(1)
        else:
            found = torch.cat([self._vote(part, fit, label) for part in test.split(1000)])
        labels = dim_zero_cat(self.test_labels)
        return share(found == labels, labels)

    def _vote(self, test: Tensor, fit: Tensor, label: Tensor) -> Tensor:
        nearest = torch.cdist(test, fit).topk(min(self.neighbours, len(fit)), largest=False).indices
        votes = F.one_hot(label[nearest], int(label.max()) + 1).sum(1).double()
        # A tie goes to the class of the nearest of them.
        votes.scatter_add_(1, label[nearest[:, :1]], votes.new_full((len(test), 1), 0.5))
        return votes.argmax(1)


class ClassError(AnyShare):
    """Share of wrongly classified images, in percent, for classifiers that were trained with or without labels.

    Args:
        matching: how found classes get their labels. "none": class k has label k. "hungarian": one to one, with the
            smallest error on the measured images. "best_example": each class takes the label of the validation image
            with the highest probability of this class, so several classes may share a label.

    References:
        Chen et al. 2016, section 7.2 (one to one); Makhzani et al. 2015, section 6 (best example).
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False
    found: list[Tensor]
    labels: list[Tensor]
    best: list[Tensor]

    def __init__(self, matching: Matching = "none", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if matching not in ("none", "hungarian", "best_example"):
            raise ValueError(f"unknown matching {matching!r}: take none, hungarian or best_example")
        self.matching = matching
        for name in ("found", "labels"):
            self.add_state(name, [], dist_reduce_fx="cat")
        self.add_state("best", [], dist_reduce_fx="cat")

    def update(self, probabilities: Tensor, label: Tensor, *, naming: bool = False, first: int = 0) -> None:
        """Add images.

        Args:
            probabilities: of the found classes.
            label: true classes.
            naming: these are the validation images that label the classes ("best_example").
            first: global index of the first image; of equal probabilities that of the first image counts.

        Shape:
            probabilities: (N, K); label: (N,).
        """
        if naming:
            value, index = probabilities.double().max(0)
            # Per class: the best probability, number and label of its image.
            self.best.append(torch.stack([value, (first + index).double(), label[index].double()], 1).unsqueeze(0))
        else:
            self.found.append(probabilities.argmax(1))
            self.labels.append(label)

    def compute(self) -> dict[str, Tensor]:
        """Error in percent, see `ShareRight`; chance is the error of always naming the most frequent class."""
        found, label = dim_zero_cat(self.found), dim_zero_cat(self.labels)
        if self.matching == "best_example":
            best = dim_zero_cat(self.best)  # (batches, K, 3)
            value, index, name = best.unbind(2)
            top = value.max(0).values
            first = torch.where(value == top, index, torch.inf).argmin(0)
            found = name.gather(0, first[None])[0].long()[found]
        elif self.matching == "hungarian":
            size = int(max(found.max(), label.max())) + 1
            counts = torch.zeros(size, size, dtype=torch.int64, device=found.device)
            counts.index_put_((found, label), torch.ones_like(found), accumulate=True)
            _, names = cast(Any, optimize).linear_sum_assignment(-np.asarray(counts.cpu()))
            found = torch.as_tensor(names, device=found.device)[found]
        right = share(found == label, label)
        return right | {name: 100 - right[name] for name in ("value", "chance")}
