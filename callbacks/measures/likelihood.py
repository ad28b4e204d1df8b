"""Measures of likelihood: bounds by importance sampling, exact values, Parzen windows."""

from __future__ import annotations

import inspect
import math

from torchmetrics import MeanMetric

from zoo.callbacks.base import GivesLogProb, GivesLogWeights, Result, Samples
from zoo.callbacks.measures.evaluation import Evaluation
from zoo.callbacks.measures.registry import measure
from zoo.callbacks.metrics.likelihood import LikelihoodBounds, ParzenLogLikelihood
from zoo.engine.devices import double

__all__ = ["bits_per_dim", "elbo", "iw_nll", "nll", "parzen"]


@measure(needs=GivesLogWeights, better="lower")
def iw_nll(at: Evaluation, *, num_importance: int = 200) -> Result:
    """Importance-weighted negative log-likelihood, in nats per image.

    Args:
        num_importance: draws per image.
    """
    return _bound(at, num_importance)


@measure(needs=GivesLogWeights, better="lower")
def elbo(at: Evaluation, *, num_importance: int = 200) -> Result:
    """Negative evidence lower bound, in nats per image, from the same draws as `iw_nll`.

    Args:
        num_importance: draws per image.
    """
    return _bound(at, num_importance)


def _bound(at: Evaluation, num_importance: int) -> Result:
    metric = at.placed(LikelihoodBounds())
    for first, batch in at.batches(chunk=100):
        metric.update(at.model.log_weights(batch["image"], num_importance, seed=at.seed, first=first))
    return at.result(metric.compute()[at.name], importance=num_importance, test=at.images())


def check_orderings(at: Evaluation, *, num_orderings: int | None = None) -> None:
    """Check that the model's likelihood takes the option of `nll`.

    Raises:
        TypeError: the likelihood does not take it.
    """
    if num_orderings is not None and "num_orderings" not in inspect.signature(at.model.log_prob).parameters:
        raise TypeError(f"nll: {type(at.model).__name__}.log_prob takes no num_orderings: leave the option out")


@measure(needs=GivesLogProb, better="lower", check=check_orderings)
def nll(at: Evaluation, *, num_orderings: int | None = None) -> Result:
    """Negative log-likelihood, in nats per image.

    Args:
        num_orderings: size of the ensemble, for models that are ensembles over orders of the pixels; None for others.
    """
    options = {} if num_orderings is None else {"num_orderings": num_orderings}
    metric = at.in_float64(MeanMetric())
    for _, batch in at.batches():
        metric.update(-double(at.model.log_prob(batch["image"], **options)))
    return at.result(metric.compute(), **options, test=at.images())


@measure(needs=GivesLogProb, better="lower")
def bits_per_dim(at: Evaluation) -> Result:
    """Negative log-likelihood, in bits per sub-pixel."""
    metric = at.in_float64(MeanMetric())
    for _, batch in at.batches():
        x = batch["image"]
        metric.update(-double(at.model.log_prob(x)) / (x[0].numel() * math.log(2)))
    return at.result(metric.compute(), test=at.images())


@measure(needs=Samples, better="higher", num_samples=10_000)
def parzen(at: Evaluation) -> Result:
    """Parzen-window log-likelihood, in nats per image, with windows around generated images.

    The width of the windows is chosen on the first 1,000 validation images. `num_samples` counts the generated images;
    the likelihood is that of the whole split.
    """
    metric = at.placed(ParzenLogLikelihood())
    for first, size in at.draws():
        metric.update(at.model.sample(size, seed=at.seed, first=first), "centers")
    for kind, split, num in (("val", "val", 1000), ("test", at.split, None)):
        for _, batch in at.batches(split, num):
            metric.update(batch["image"], kind)
    return at.result(
        metric.compute()["mean"],
        sigma="best-of-10-on-val",
        samples=at.num_samples,
        val=at.images("val", 1000),
        test=at.images(at.split, None),
    )
