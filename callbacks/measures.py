"""Measures of a model beside the Fréchet distance: each a function of a model and a DataModule that needs no Trainer.

Every measure returns a `Result` whose protocol says what the value means, such as
`class_error[matching=hungarian, test=mnist28-test-10000]`. Values with different protocols do not belong into one
column. In a distributed run every rank must call a measure; each computes its share of the images.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor
from torchmetrics import MeanMetric
from torchmetrics.classification import BinaryAUROC

from zoo import datamodules
from zoo.callbacks import base
from zoo.callbacks.base import Result
from zoo.callbacks.measurement import CHUNK, Run
from zoo.callbacks.metrics.codes import ClassError, CodeAccuracy, Matching
from zoo.callbacks.metrics.disentanglement import BetaVAEMetric, MutualInformationGap
from zoo.callbacks.metrics.likelihood import LikelihoodBounds, ParzenLogLikelihood
from zoo.callbacks.metrics.ranks import AnyShare
from zoo.callbacks.patch_measures import mask_iou, patch_error
from zoo.callbacks.set_measures import ms_ssim, swd
from zoo.callbacks.text_measures import caption_accuracy, noise_diversity, r_precision, retrieval
from zoo.callbacks.translation_measures import (
    cycle_error,
    domain_accuracy,
    paired_l1,
    paired_lpips,
    paired_psnr,
    paired_ssim,
    translation_fd,
)

__all__ = ["HIGHER_IS_BETTER", "MEASURES", "PERCENT"]


class _AUROC(AnyShare, BinaryAUROC):
    """torchmetrics', for any share of a rank."""


def iw_nll(
    model: Any,
    datamodule: Any,
    *,
    split: str = "test",
    num_samples: int | None = None,
    seed: int = 0,
    num_importance: int = 200,
) -> Result:
    """Importance-weighted negative log-likelihood, in nats per image.

    Args:
        model: has `log_weights`.
        datamodule: gives the images.
        split: which images.
        num_samples: how many; None for all.
        seed: seed of the draws.
        num_importance: draws per image.
    """
    return _bounds("iw_nll", model, datamodule, split, num_samples, seed, num_importance)


def elbo(
    model: Any,
    datamodule: Any,
    *,
    split: str = "test",
    num_samples: int | None = None,
    seed: int = 0,
    num_importance: int = 200,
) -> Result:
    """Negative evidence lower bound, in nats per image; arguments as for `iw_nll`, with whose draws it is computed."""
    return _bounds("elbo", model, datamodule, split, num_samples, seed, num_importance)


def _bounds(
    name: str, model: Any, datamodule: Any, split: str, num_samples: int | None, seed: int, num_importance: int
) -> Result:
    run = Run(model, datamodule, base.GivesLogWeights, name, seed)
    num = run.size(split, num_samples)
    metric = LikelihoodBounds().to(run.device)
    with base.evaluating(model, seed):
        for first, batch in run.batches(split, num, 100):
            metric.update(model.log_weights(batch["image"], num_importance, seed=seed, first=first))
        value = metric.compute()[name]
    return run.result(name, value, importance=num_importance, test=run.named(split, num))


def nll(
    model: Any,
    datamodule: Any,
    *,
    split: str = "test",
    num_samples: int | None = None,
    seed: int = 0,
    num_orderings: int | None = None,
) -> Result:
    """Negative log-likelihood, in nats per image.

    Args:
        model: has `log_prob`.
        datamodule: gives the images.
        split: which images.
        num_samples: how many; None for all.
        seed: not used.
        num_orderings: size of the ensemble, for models that are one over orderings of the pixels; None for others.

    Raises:
        TypeError: the model has no such ensemble.
    """
    check_orderings(model, num_orderings)
    options = {} if num_orderings is None else {"num_orderings": num_orderings}
    return _likelihood("nll", model, datamodule, split, num_samples, seed, options)


def check_orderings(model: Any, num_orderings: int | None = None) -> None:
    """Check that a model takes what `nll` hands on to it.

    Raises:
        TypeError: it does not.
    """
    # What has no log_prob at all is another error.
    known = inspect.signature(getattr(model, "log_prob", lambda num_orderings: None)).parameters
    if num_orderings is not None and "num_orderings" not in known:
        raise TypeError(f"nll: {type(model).__name__}.log_prob takes no num_orderings: leave the option out")


def bits_per_dim(
    model: Any, datamodule: Any, *, split: str = "test", num_samples: int | None = None, seed: int = 0
) -> Result:
    """Negative log-likelihood, in bits per sub-pixel; arguments as for `nll`."""
    return _likelihood("bits_per_dim", model, datamodule, split, num_samples, seed, {})


def _likelihood(
    name: Literal["nll", "bits_per_dim"],
    model: Any,
    datamodule: Any,
    split: str,
    num_samples: int | None,
    seed: int,
    options: dict[str, int],
) -> Result:
    run = Run(model, datamodule, base.GivesLogProb, name, seed)
    num = run.size(split, num_samples)
    metric = MeanMetric().to(run.device).set_dtype(torch.float64)  # `to` would take it back
    with base.evaluating(model, seed):
        for _, batch in run.batches(split, num):
            x = batch["image"]
            unit = 1.0 if name == "nll" else x[0].numel() * math.log(2)
            metric.update(-model.log_prob(x, **options).double() / unit)
        value = metric.compute()
    return run.result(name, value, **options, test=run.named(split, num))


def parzen(
    model: Any, datamodule: Any, *, split: str = "test", num_samples: int | None = None, seed: int = 0
) -> Result:
    """Parzen-window log-likelihood, in nats per image; the width is chosen on the first 1,000 validation images.

    Args:
        model: has `sample`.
        datamodule: gives the images.
        split: which images.
        num_samples: generated images; None for 10,000.
        seed: seed of the generated images.
    """
    run = Run(model, datamodule, base.Samples, "parzen", seed)
    centres = 10_000 if num_samples is None else num_samples
    val, test = run.size("val", 1000), run.size(split, None)
    metric = ParzenLogLikelihood().to(run.device)
    with base.evaluating(model, seed):
        for first, size in run.chunks(centres):
            metric.update(model.sample(size, seed=seed, first=first), "centres")
        for kind, part, num in (("val", "val", val), ("test", split, test)):
            for _, batch in run.batches(part, num):
                metric.update(batch["image"], kind)
        found = metric.compute()
    protocol = {"samples": centres, "val": run.named("val", val), "test": run.named(split, test)}
    return run.result("parzen", found["mean"], sigma="best-of-10-on-val", **protocol)


def class_error(
    model: Any,
    datamodule: Any,
    *,
    split: str = "test",
    num_samples: int | None = None,
    seed: int = 0,
    matching: Matching = "none",
) -> Result:
    """Share of wrongly classified images, in percent.

    Args:
        model: has `classify`.
        datamodule: gives images with `label`.
        split: which images.
        num_samples: how many; None for all.
        seed: not used.
        matching: how classes that were found without labels are named: see `ClassError`.
    """
    run = Run(model, datamodule, base.Classifies, "class_error", seed)
    num = run.size(split, num_samples)
    metric = ClassError(matching).to(run.device)
    protocol: dict[str, Any] = {"matching": matching, "test": run.named(split, num)}
    with base.evaluating(model, seed):
        if matching == "best_example":
            val = run.size("val", None)
            protocol["val"] = run.named("val", val)
            for first, batch in run.batches("val", val):
                metric.update(model.classify(batch["image"]), batch["label"], naming=True, first=first)
        for _, batch in run.batches(split, num):
            metric.update(model.classify(batch["image"]), batch["label"])
        value = metric.compute()
    return run.result("class_error", value, **protocol)


def linear_probe(
    model: Any,
    datamodule: Any,
    *,
    split: str = "test",
    num_samples: int | None = None,
    seed: int = 0,
    num_fit: int = 10_000,
) -> Result:
    """Accuracy in percent of logistic regression on codes.

    Args:
        model: has `encode`.
        datamodule: gives images with `label`.
        split: which images.
        num_samples: how many; None for all.
        seed: not used.
        num_fit: training images to which it is fitted.
    """
    return _accuracy("linear_probe", model, datamodule, split, num_samples, seed, num_fit, {})


def knn(
    model: Any,
    datamodule: Any,
    *,
    split: str = "test",
    num_samples: int | None = None,
    seed: int = 0,
    num_fit: int = 10_000,
    neighbours: int = 5,
) -> Result:
    """Accuracy in percent of the vote of the nearest codes; arguments as for `linear_probe`, and `neighbours`."""
    return _accuracy("knn", model, datamodule, split, num_samples, seed, num_fit, {"neighbours": neighbours})


def _accuracy(
    kind: Literal["linear_probe", "knn"],
    model: Any,
    datamodule: Any,
    split: str,
    num_samples: int | None,
    seed: int,
    num_fit: int,
    options: dict[str, int],
) -> Result:
    run = Run(model, datamodule, base.Encodes, kind, seed)
    fit, test = run.size("train", num_fit), run.size(split, num_samples)
    metric = CodeAccuracy(kind, **options).to(run.device)
    with base.evaluating(model, seed):
        for part, num in (("train", fit), (split, test)):
            for first, batch in run.batches(part, num):
                metric.update(model.encode(batch["image"]), batch["label"], fit=part == "train", first=first)
        value = metric.compute()
    return run.result(kind, value, **options, fit=run.named("train", fit), test=run.named(split, test))


def auroc(
    model: Any,
    datamodule: Any,
    *,
    split: str = "test",
    num_samples: int | None = None,
    seed: int = 0,
    other: str = "",
    other_arguments: dict[str, Any] | None = None,
) -> Result:
    """Area under the ROC curve, in percent, of the model's score for images of another data set against its own.

    Args:
        model: has `score`.
        datamodule: gives the usual images.
        split: which images, of both data sets.
        num_samples: how many of each; None for all.
        seed: not used.
        other: name of the DataModule with the unusual images, such as "FashionMNIST".
        other_arguments: its arguments; `data_dir` and `image_size` are those of `datamodule` unless given.

    Raises:
        ValueError: there is no such DataModule.
    """
    run = Run(model, datamodule, base.Scores, "auroc", seed)
    unusual = unusual_images(datamodule, other, other_arguments)
    unusual.prepare_data()
    unusual.setup()
    num = min(run.size(split, num_samples), len(unusual.split(split)))
    metric = _AUROC().to(run.device)
    with base.evaluating(model, seed):
        for target, source in ((0, datamodule), (1, unusual)):
            for _, batch in run.batches(split, num, datamodule=source):
                score = model.score(batch["image"])
                # Squashed in float64 without a change of order: torchmetrics would apply a float32 sigmoid otherwise.
                metric.update(_rank_preserving(score), torch.full_like(score, target, dtype=torch.int64))
        value = 100 * metric.compute()
    return run.result("auroc", value, usual=run.named(split, num), unusual=f"{unusual.name}-{split}-{num}")


def unusual_images(datamodule: Any, other: str = "", other_arguments: dict[str, Any] | None = None) -> Any:
    """The DataModule that `auroc` takes the unusual images from; its arguments are those of `auroc`.

    Raises:
        ValueError: there is no such DataModule.
    """
    if other not in datamodules.__all__:
        raise ValueError(f"auroc: other={other!r} is no DataModule: take one of {', '.join(datamodules.__all__)}")
    arguments = {"data_dir": datamodule.data_dir, "image_size": datamodule.image_size} | (other_arguments or {})
    return getattr(datamodules, other)(**arguments)


def _rank_preserving(score: Tensor) -> Tensor:
    """Scores in [0, 1], in the same order."""
    score = score.double()
    return 0.5 + score / (2 * (1 + score.abs()))


def beta_vae_metric(
    model: Any,
    datamodule: Any,
    *,
    split: str = "test",
    num_samples: int | None = None,
    seed: int = 0,
    pairs: int = 64,
) -> Result:
    """Accuracy in percent at which the factor that pairs of images share is read off the differences of their codes.

    Args:
        model: has `encode`.
        datamodule: has `factor_sizes` and `render`.
        split: not used: images are rendered.
        num_samples: points; None for 1,500. A classifier is fitted to two thirds of them and measured on the rest.
        seed: seed of the factors.
        pairs: pairs of images per point.
    """
    run = Run(model, datamodule, base.Encodes, "beta_vae_metric", seed)
    base.require(datamodule, base.HasFactors, "beta_vae_metric")
    sizes = torch.tensor(datamodule.factor_sizes)
    points = 1500 if num_samples is None else num_samples
    metric = BetaVAEMetric().to(run.device)
    with base.evaluating(model, seed):
        for first, n in run.chunks(points, 10):
            generator = torch.Generator().manual_seed(seed * 1_000_003 + first)
            factor = torch.randint(len(sizes), (n,), generator=generator)
            values = (torch.rand(2, n, pairs, len(sizes), generator=generator) * sizes).long()
            shared = torch.arange(len(sizes)) == factor[:, None, None]
            values[1] = torch.where(shared, values[0], values[1])
            images = datamodule.render(values.flatten(0, 2)).to(run.device)
            a, b = torch.cat([model.encode(part) for part in images.split(CHUNK)]).view(2, n, pairs, -1)
            metric.update(a, b, factor.to(run.device), first=first)
        value = metric.compute()
    return run.result("beta_vae_metric", value, points=points, pairs=pairs, data=datamodule.name)


def mig(model: Any, datamodule: Any, *, split: str = "test", num_samples: int | None = None, seed: int = 0) -> Result:
    """Mutual information gap, from 0 to 1, with 20 bins per dimension.

    Args:
        model: has `encode`.
        datamodule: has batches with `factors`.
        split: which images.
        num_samples: how many; None for 10,000, or all if there are fewer.
        seed: not used.
    """
    run = Run(model, datamodule, base.Encodes, "mig", seed)
    base.require(datamodule, base.HasFactors, "mig")
    num = run.size(split, 10_000 if num_samples is None else num_samples)
    metric = MutualInformationGap().to(run.device)
    with base.evaluating(model, seed):
        for _, batch in run.batches(split, num):
            metric.update(model.encode(batch["image"]), batch["factors"])
        value = metric.compute()
    return run.result("mig", value, bins=20, test=run.named(split, num))


MEASURES: dict[str, Callable[..., Result]] = {
    "auroc": auroc,
    "beta_vae_metric": beta_vae_metric,
    "bits_per_dim": bits_per_dim,
    "caption_accuracy": caption_accuracy,
    "class_error": class_error,
    "cycle_error": cycle_error,
    "domain_accuracy": domain_accuracy,
    "elbo": elbo,
    "iw_nll": iw_nll,
    "knn": knn,
    "linear_probe": linear_probe,
    "mask_iou": mask_iou,
    "mig": mig,
    "ms_ssim": ms_ssim,
    "nll": nll,
    "noise_diversity": noise_diversity,
    "paired_l1": paired_l1,
    "paired_lpips": paired_lpips,
    "paired_psnr": paired_psnr,
    "paired_ssim": paired_ssim,
    "parzen": parzen,
    "patch_error": patch_error,
    "r_precision": r_precision,
    "retrieval": retrieval,
    "swd": swd,
    "translation_fd": translation_fd,
}
"""All measures by name."""
LOWER_IS_BETTER = (
    "bits_per_dim",
    "class_error",
    "cycle_error",
    "elbo",
    "iw_nll",
    "ms_ssim",
    "nll",
    "paired_l1",
    "paired_lpips",
    "patch_error",
    "swd",
    "translation_fd",
)
HIGHER_IS_BETTER = {name: name not in LOWER_IS_BETTER for name in MEASURES}
"""Whether a higher value is better."""
PERCENT = frozenset(
    {
        "auroc",
        "beta_vae_metric",
        "caption_accuracy",
        "class_error",
        "domain_accuracy",
        "knn",
        "linear_probe",
        "r_precision",
        "retrieval",
    }
)
"""Measures whose values are percentages."""
