"""Measures of codes and classes: classification, probes, disentanglement."""

from __future__ import annotations

from typing import Literal

import torch

from zoo.callbacks.base import Classifies, Encodes, HasFactors, Result
from zoo.callbacks.measures.evaluation import Evaluation
from zoo.callbacks.measures.registry import measure
from zoo.callbacks.metrics.codes import ClassError, CodeAccuracy, Matching
from zoo.callbacks.metrics.disentanglement import BetaVAEMetric, MutualInformationGap

__all__ = ["beta_vae_metric", "class_error", "knn", "linear_probe", "mig"]


@measure(needs=Classifies, better="lower", unit="%")
def class_error(at: Evaluation, *, matching: Matching = "none") -> Result:
    """Share of wrongly classified images, in percent.

    Args:
        matching: how classes that were found without labels get their names: see `ClassError`.
    """
    metric = at.placed(ClassError(matching))
    named = {}
    if matching == "best_example":
        named["val"] = at.images("val")
        for first, batch in at.batches("val"):
            metric.update(at.model.classify(batch["image"]), batch["label"], naming=True, first=first)
    for _, batch in at.batches():
        metric.update(at.model.classify(batch["image"]), batch["label"])
    return at.result(metric.compute(), matching=matching, test=at.images(), **named)


@measure(needs=Encodes, better="higher", unit="%")
def linear_probe(at: Evaluation, *, num_fit: int = 10_000) -> Result:
    """Accuracy in percent of logistic regression on codes.

    Args:
        num_fit: training images to which the regression is fitted.
    """
    return _accuracy(at, "linear_probe", num_fit)


@measure(needs=Encodes, better="higher", unit="%")
def knn(at: Evaluation, *, num_fit: int = 10_000, neighbours: int = 5) -> Result:
    """Accuracy in percent of the vote of the nearest codes.

    Args:
        num_fit: training images whose codes vote.
        neighbours: number of nearest codes.
    """
    return _accuracy(at, "knn", num_fit, neighbours=neighbours)


def _accuracy(at: Evaluation, kind: Literal["linear_probe", "knn"], num_fit: int, **options: int) -> Result:
    metric = at.placed(CodeAccuracy(kind, **options))
    for first, batch in at.batches("train", num_fit):
        metric.update(at.model.encode(batch["image"]), batch["label"], fit=True, first=first)
    for first, batch in at.batches():
        metric.update(at.model.encode(batch["image"]), batch["label"], fit=False, first=first)
    return at.result(metric.compute(), **options, fit=at.images("train", num_fit), test=at.images())


@measure(needs=Encodes, data_needs=HasFactors, better="higher", unit="%", num_samples=1500, draws=True)
def beta_vae_metric(at: Evaluation, *, pairs: int = 64) -> Result:
    """Accuracy in percent of a classifier that reads the factor that pairs of images share from differences of codes.

    `num_samples` counts points: two thirds fit the classifier, which is measured on the rest. Images are rendered, so
    the split is not used.

    Args:
        pairs: pairs of images per point.
    """
    sizes = torch.tensor(at.data.factor_sizes)
    metric = at.placed(BetaVAEMetric())
    for first, n in at.draws(10):
        generator = torch.Generator().manual_seed(at.seed * 1_000_003 + first)
        factor = torch.randint(len(sizes), (n,), generator=generator)
        values = (torch.rand(2, n, pairs, len(sizes), generator=generator) * sizes).long()
        shared = torch.arange(len(sizes)) == factor[:, None, None]
        values[1] = torch.where(shared, values[0], values[1])
        images = at.data.render(values.flatten(0, 2)).to(at.device)
        a, b = torch.cat([at.model.encode(part) for part in images.split(at.chunk)]).view(2, n, pairs, -1)
        metric.update(a, b, factor.to(at.device), first=first)
    return at.result(metric.compute(), points=at.num_samples, pairs=pairs, data=at.data.name)


@measure(needs=Encodes, data_needs=HasFactors, better="higher", num_samples=10_000)
def mig(at: Evaluation) -> Result:
    """Mutual information gap, from 0 to 1, with 20 bins per dimension of the code."""
    metric = at.placed(MutualInformationGap())
    for _, batch in at.batches():
        metric.update(at.model.encode(batch["image"]), batch["factors"])
    return at.result(metric.compute(), bins=20, test=at.images())
