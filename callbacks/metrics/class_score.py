"""Class score: how sure a classifier is of each generated image, and how even over the classes; of Inception: IS.

exp(mean_x KL(p(y|x) || p(y)))
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.callbacks.metrics.bank import FeatureBank
from zoo.engine.devices import double

__all__ = ["ClassScore", "class_score"]


def class_score(logits: Tensor, splits: int = 10, seed: int | None = None) -> tuple[Tensor, Tensor]:
    """Score of each of several contiguous splits: mean and population deviation, in float64.

    Args:
        logits: of generated images, in their order.
        splits: number of splits.
        seed: shuffle the images first, as torch-fidelity does with seed 2020; None leaves them in their order. Images
            that are sorted by class need it.

    Shape:
        logits: (N, K); outputs: scalars.

    Raises:
        ValueError: there are fewer images than splits.

    References:
        Salimans et al. 2016, "Improved techniques for training GANs", section 4.
    """
    n = len(logits)
    if n < splits:
        raise ValueError(f"a class score of {splits} splits needs as many generated images, got {n}")
    if seed is not None:
        logits = logits[torch.from_numpy(np.random.RandomState(seed).permutation(n)).to(logits.device)]
    scores = []
    for i in range(splits):
        log_p = double(logits[i * n // splits : (i + 1) * n // splits]).log_softmax(1)
        log_mean = log_p.logsumexp(0) - torch.log(log_p.new_tensor(len(log_p)))
        scores.append((log_p.exp() * (log_p - log_mean)).sum(1).mean().exp())
    found = torch.stack(scores)
    return found.mean(), found.std(correction=0)


class ClassScore(FeatureBank):
    """`class_score` of the logits of all generated images that were added, in the place of features.

    Args:
        splits: number of splits.
        kwargs: options of `torchmetrics.Metric`.
    """

    higher_is_better = True

    def __init__(self, splits: int = 10, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.splits = splits

    def compute(self) -> tuple[Tensor, Tensor]:
        """The mean over splits, and their deviation."""
        return class_score(self.rows(real=False), self.splits)
