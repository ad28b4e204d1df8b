"""Measures of likelihood: bounds by importance sampling, exact values, Parzen windows."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator
from typing import Any, Literal

from torch import Tensor

from zoo.callbacks.base import GivesLogProb, GivesLogWeights, Result, Samples, from_rank_zero
from zoo.callbacks.measures.evaluation import Evaluation
from zoo.callbacks.measures.registry import measure
from zoo.callbacks.metrics.likelihood import LikelihoodBound, ParzenLogLikelihood
from zoo.callbacks.metrics.means import MeanWithError
from zoo.engine.devices import double
from zoo.engine.images import dequantized

__all__ = ["bits_per_dim", "elbo", "iw_nll", "nll", "parzen"]


@measure(needs=GivesLogWeights, better="lower")
def iw_nll(at: Evaluation, *, num_importance: int = 200) -> Result:
    """Importance-weighted negative log-likelihood, in nats per image.

    Args:
        num_importance: draws per image.
    """
    return _bound(at, num_importance, "iw_nll")


@measure(needs=GivesLogWeights, better="lower")
def elbo(at: Evaluation, *, num_importance: int = 200) -> Result:
    """Negative evidence lower bound, in nats per image, from the same draws as `iw_nll`.

    Args:
        num_importance: draws per image.
    """
    return _bound(at, num_importance, "elbo")


def _bound(at: Evaluation, num_importance: int, kind: Literal["elbo", "iw_nll"]) -> Result:
    metric = at.placed(LikelihoodBound(kind))
    is_gray = False
    for first, batch in at.batches(chunk=100):
        is_gray |= bool((batch["image"].abs() < 1).any())
        metric.update(at.model.log_weights(batch["image"], num_importance, seed=at.seed, first=first))
    facts: dict[str, Any] = {"importance": num_importance}
    # A Bernoulli variable has the values 0 and 1: of values between them the likelihood is none.
    if from_rank_zero(is_gray) and getattr(at.model, "likelihood", "") == "bernoulli":
        facts["decoder"] = "bernoulli-on-gray-values"
    return at.result(metric.compute(), **facts, test=at.images())


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

    For a model of real values that of the density of images in [0, 1], with uniform noise on 8-bit values.

    Args:
        num_orderings: size of the ensemble, for models that are ensembles over orders of the pixels; None for others.
    """
    options = {} if num_orderings is None else {"num_orderings": num_orderings}
    metric = at.placed(MeanWithError())
    for x in _images(at):
        metric.update(-at.model.log_prob(x, **options))
    return at.result(metric.compute(), **options, **_facts(at), test=at.images())


def _images(at: Evaluation) -> Iterator[Tensor]:
    """This rank's images; to the 8-bit values of a model of real values uniform noise is added."""
    for first, batch in at.batches():
        image: Tensor = batch["image"]
        yield dequantized(image, at.seed, first) if _is_density(at.model) else image


def _facts(at: Evaluation) -> dict[str, str]:
    return {"dequantized": "uniform"} if _is_density(at.model) else {}


def _is_density(model: Any) -> bool:
    """Whether the likelihood of a model is a density of images in [0, 1], not a probability of levels."""
    return bool(getattr(model, "real_valued", False))


@measure(needs=GivesLogProb, better="lower")
def bits_per_dim(at: Evaluation) -> Result:
    """Negative log-likelihood, in bits per sub-pixel of 8 bits.

    For a model of real values, uniform noise is added to the 8-bit values: its density of images in [0, 1], with the 8
    bits of a step of 1/256, then gives a bound.
    """
    metric = at.placed(MeanWithError())
    for x in _images(at):
        bits = -double(at.model.log_prob(x)) / (x[0].numel() * math.log(2))
        metric.update(bits + 8 if _is_density(at.model) else bits)
    return at.result(metric.compute(), **_facts(at), test=at.images())


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
    found = metric.compute()
    return at.result(
        {name: found[name] for name in ("value", "error")},
        sigma="best-of-10-on-val",
        samples=at.num_samples,
        val=at.images("val", 1000),
        test=at.images(at.split, None),
    )
