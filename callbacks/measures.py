"""Measures of a model beside the Fréchet distance: each a function of a model and a DataModule that needs no Trainer.

Every measure returns a `Result` whose protocol says what the value means, such as
`class_error[matching=hungarian, test=mnist28-test-10000]`. Values with different protocols do not belong into one
column. In a distributed run every rank must call a measure; each computes its share of the images.
"""

from __future__ import annotations

import hashlib
import inspect
import math
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any, Literal

import torch
import torch.distributed as dist
from lightning.fabric.utilities.apply_func import move_data_to_device
from torch import Tensor, nn
from torchmetrics import MeanMetric
from torchmetrics.classification import BinaryAUROC
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure as multiscale_ssim

from callbacks import base
from callbacks.base import Result
from callbacks.metrics.codes import ClassError, CodeAccuracy, Matching
from callbacks.metrics.disentanglement import BetaVAEMetric, MutualInformationGap
from callbacks.metrics.likelihood import LikelihoodBounds, ParzenLogLikelihood
from callbacks.metrics.paired import PairedSimilarity
from callbacks.metrics.ranks import AnyShare
from callbacks.metrics.sliced_wasserstein import SlicedWasserstein

__all__ = ["HIGHER_IS_BETTER", "MEASURES", "PERCENT"]

CHUNK = 250


class _AUROC(AnyShare, BinaryAUROC):
    """torchmetrics', for any share of a rank."""


class _Run:
    """One measurement: the model at rest, its device, this rank's share, the clock."""

    def __init__(self, model: Any, datamodule: Any, protocol: type | None, asker: str, seed: int) -> None:
        if protocol is not None:
            base.require(model, protocol, asker)
        base.require(datamodule, base.HasReference, asker)
        self.model, self.datamodule, self.seed = model, datamodule, seed
        self.device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
        distributed = dist.is_available() and dist.is_initialized()
        self.rank, self.world = (dist.get_rank(), dist.get_world_size()) if distributed else (0, 1)
        self.start = time.monotonic()

    def size(self, split: str, num_samples: int | None) -> int:
        """Number of images to take of a split: at most all."""
        whole = len(self.datamodule.split(split))
        return whole if num_samples is None else min(num_samples, whole)

    def batches(self, split: str, num: int, chunk: int = 0, datamodule: Any = None) -> Iterator[tuple[int, Any]]:
        """This rank's chunks of a split, on the model's device."""
        source = self.datamodule if datamodule is None else datamodule
        for first, batch in source.reference_batches(
            num, chunk or CHUNK, split=split, rank=self.rank, world_size=self.world
        ):
            yield first, move_data_to_device(batch, self.device)

    def chunks(self, num: int, chunk: int = 0) -> Iterator[tuple[int, int]]:
        """(first, size) of this rank's chunks of a number of draws."""
        chunk = chunk or CHUNK
        for first in range(self.rank * chunk, num, self.world * chunk):
            yield first, min(chunk, num - first)

    def named(self, split: str, num: int) -> str:
        """A set of real images, as protocols name it."""
        return f"{self.datamodule.name}-{split}-{num}"

    def result(self, metric: str, value: Any, **protocol: Any) -> Result:
        """The value with its protocol."""
        averaged = any(network.endswith("_ema") for network in getattr(self.model, "inference_networks", ()))
        parts = [f"{key}={text}" for key, text in protocol.items()] + [f"weights={'ema' if averaged else 'raw'}"]
        value = base.from_rank_zero(float(value))
        return Result(value, f"{metric}[{', '.join(parts)}]", metric, time.monotonic() - self.start)


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
    run = _Run(model, datamodule, base.GivesLogWeights, name, seed)
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
    run = _Run(model, datamodule, base.GivesLogProb, name, seed)
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
    run = _Run(model, datamodule, base.Samples, "parzen", seed)
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
    run = _Run(model, datamodule, base.Classifies, "class_error", seed)
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
    run = _Run(model, datamodule, base.Encodes, kind, seed)
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
    run = _Run(model, datamodule, base.Scores, "auroc", seed)
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
    package = import_module("datamodules")
    if other not in package.__all__:
        raise ValueError(f"auroc: other={other!r} is no DataModule: take one of {', '.join(package.__all__)}")
    arguments = {"data_dir": datamodule.data_dir, "image_size": datamodule.image_size} | (other_arguments or {})
    return getattr(package, other)(**arguments)


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
    run = _Run(model, datamodule, base.Encodes, "beta_vae_metric", seed)
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
    run = _Run(model, datamodule, base.Encodes, "mig", seed)
    base.require(datamodule, base.HasFactors, "mig")
    num = run.size(split, 10_000 if num_samples is None else num_samples)
    metric = MutualInformationGap().to(run.device)
    with base.evaluating(model, seed):
        for _, batch in run.batches(split, num):
            metric.update(model.encode(batch["image"]), batch["factors"])
        value = metric.compute()
    return run.result("mig", value, bins=20, test=run.named(split, num))


def paired_l1(
    model: Any,
    datamodule: Any,
    *,
    split: str = "test",
    num_samples: int | None = None,
    seed: int = 0,
    identity: bool = False,
) -> Result:
    """Mean absolute difference of translated images and their true pairs, of values in [0, 1].

    Each image is translated to every domain but its own in which it has a pair.

    Args:
        model: has `translate`.
        datamodule: has domains and pairs.
        split: which images.
        num_samples: how many images; None for all.
        seed: not used.
        identity: measure the images as they are in the place of their translations: what is to be surpassed.
    """
    return _paired("l1", model, datamodule, split, num_samples, seed, identity)


def paired_psnr(
    model: Any,
    datamodule: Any,
    *,
    split: str = "test",
    num_samples: int | None = None,
    seed: int = 0,
    identity: bool = False,
) -> Result:
    """Peak signal-to-noise ratio, in dB, of translated images to their true pairs; arguments as for `paired_l1`."""
    return _paired("psnr", model, datamodule, split, num_samples, seed, identity)


def paired_ssim(
    model: Any,
    datamodule: Any,
    *,
    split: str = "test",
    num_samples: int | None = None,
    seed: int = 0,
    identity: bool = False,
) -> Result:
    """Structural similarity of translated images and their true pairs; arguments as for `paired_l1`."""
    return _paired("ssim", model, datamodule, split, num_samples, seed, identity)


def _paired(
    kind: Literal["l1", "psnr", "ssim"],
    model: Any,
    datamodule: Any,
    split: str,
    num_samples: int | None,
    seed: int,
    identity: bool,
) -> Result:
    name = f"paired_{kind}"
    run = _Run(model, datamodule, base.Translates, name, seed)
    domains = _domains(datamodule, name).to(run.device)
    num = run.size(split, num_samples)
    images = datamodule.split(split)
    metric = PairedSimilarity().to(run.device).set_dtype(torch.float64)  # `to` would take it back
    with base.evaluating(model, seed):
        for _, batch in run.batches(split, num):
            for d, domain in enumerate(domains):
                asked = _elsewhere(batch, domain) & (batch["pairs"][:, d] >= 0)
                if asked.any():
                    true = images.batch(batch["pairs"][asked, d].cpu())["image"].to(run.device)
                    x = batch["image"][asked]
                    metric.update(x if identity else model.translate(x, domain), true)
        value = metric.compute()[kind]
    shown = {"translation": "identity"} if identity else {}
    return run.result(name, value, **shown, domains=len(domains), test=run.named(split, num))


def domain_accuracy(
    model: Any,
    datamodule: Any,
    *,
    split: str = "test",
    num_samples: int | None = None,
    seed: int = 0,
    classifier: str | nn.Module = "",
    identity: bool = False,
) -> Result:
    """Share of translated images, in percent, that a classifier of real images assigns to their target domain.

    Each image is translated to every domain of the classifier's classes but its own.

    Args:
        model: has `translate`.
        datamodule: has domains.
        split: which images.
        num_samples: how many images; None for all.
        seed: not used.
        classifier: name of a published classifier, path of one, or a module with `classify` and `class_names`; the
            names of the domains tell which class is the target.
        identity: measure the images as they are in the place of their translations: what is to be surpassed.

    Raises:
        ValueError: no classifier is given, or one of other classes.
    """
    run = _Run(model, datamodule, base.Translates, "domain_accuracy", seed)
    domains = _domains(datamodule, "domain_accuracy").to(run.device)
    if not isinstance(classifier, nn.Module):
        if not classifier:
            raise ValueError("domain_accuracy needs classifier=...: the name of a published classifier, or a path")
        judge = import_module("zoo").load(classifier, device=run.device)
        label = classifier if "." not in classifier else type(judge).__name__
    else:
        judge, label = classifier.to(run.device), type(classifier).__name__
    base.require(judge, base.Classifies, "domain_accuracy")
    names = datamodule.class_names["attributes"]
    classes = list(getattr(judge, "class_names", ()))
    on = [[names[i] for i in domain.nonzero().flatten().tolist()] for domain in domains]
    if any(sum(name in classes for name in found) != 1 for found in on):
        raise ValueError(
            f"domain_accuracy: the classifier tells {', '.join(classes) or 'classes without names'}; the domains are "
            f"{', '.join(datamodule.domain_names)}"
        )
    target = [next(classes.index(name) for name in found if name in classes) for found in on]
    own = torch.tensor([name in classes for name in names], device=run.device)

    num = run.size(split, num_samples)
    metric = MeanMetric().to(run.device).set_dtype(torch.float64)  # `to` would take it back
    with base.evaluating(model, seed), base.evaluating(judge, seed):
        for _, batch in run.batches(split, num):
            for domain, number in zip(domains, target, strict=True):
                asked = _elsewhere({"attributes": batch["attributes"][:, own]}, domain[own])
                if asked.any():
                    x = batch["image"][asked]
                    found = judge.classify(x if identity else model.translate(x, domain)).argmax(1)
                    metric.update((found == number).double())
        value = 100 * metric.compute()
    shown = {"translation": "identity"} if identity else {}
    return run.result(
        "domain_accuracy", value, classifier=f"{label}@{_digest(judge)}", **shown, test=run.named(split, num)
    )


def swd(model: Any, datamodule: Any, *, split: str = "test", num_samples: int | None = None, seed: int = 0) -> Result:
    """Sliced Wasserstein distance between generated and real images, times 1000, mean over their Laplacian pyramids.

    Args:
        model: has `real_and_fake`.
        datamodule: gives the images.
        split: which real images; the paper's are those of training.
        num_samples: how many of each; None for 16,384, or all if there are fewer.
        seed: seed of the generated images, and of patches and directions.
    """
    run = _Run(model, datamodule, base.ComparesSets, "swd", seed)
    num = run.size(split, 16_384 if num_samples is None else num_samples)
    metric = SlicedWasserstein(seed=seed, sides=SlicedWasserstein.sides_of(datamodule.image_size)).to(run.device)
    with base.evaluating(model, seed):
        for first, batch in run.batches(split, num, 100):
            real, fake = model.real_and_fake(batch, seed=seed, first=first)
            metric.update(real, real=True, first=first)
            metric.update(fake, real=False, first=first)
        value = metric.compute()["average"]
    levels = "-".join(map(str, metric.sides))
    return run.result("swd", value, levels=levels, patches=128, real=run.named(split, num), fake=num)


def ms_ssim(
    model: Any, datamodule: Any, *, split: str = "test", num_samples: int | None = None, seed: int = 0
) -> Result:
    """Mean multi-scale structural similarity of pairs of generated images: the lower, the more they differ.

    Images of fewer than 176 pixels have fewer than five scales, as many as the window of 11 pixels allows, with the
    first weights brought to a sum of 1.

    Args:
        model: has `sample`.
        datamodule: not used.
        split: not used.
        num_samples: pairs; None for 10,000.
        seed: seed of the images.
    """
    run = _Run(model, datamodule, base.Samples, "ms_ssim", seed)
    pairs = 10_000 if num_samples is None else num_samples
    metric = MeanMetric().to(run.device).set_dtype(torch.float64)  # `to` would take it back
    scales = 0
    with base.evaluating(model, seed):
        for first, n in run.chunks(pairs, 50):
            images = (model.sample(2 * n, seed=seed, first=2 * first).double() + 1) / 2
            weights = ssim_weights(images.size(3))
            scales = len(weights)
            value = multiscale_ssim(images[::2], images[1::2], data_range=1.0, betas=weights, reduction="none")
            assert isinstance(value, Tensor)
            metric.update(value)
        mean = metric.compute()
    return run.result("ms_ssim", mean, scales=base.from_rank_zero(scales), pairs=pairs)


def ssim_weights(side: int) -> tuple[float, ...]:
    """Weights of the scales of images of a size.

    Raises:
        ValueError: the images are smaller than the window.
    """
    weights = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang, Simoncelli and Bovik 2003
    # The window fits into the smallest scale; torchmetrics asks for more from five scales on.
    scales = max((k for k in range(1, 6) if min(side >> (k - 1), side // max(1, k - 1) ** 2) > 10), default=0)
    if not scales:
        raise ValueError(f"ms_ssim needs images of at least 11 pixels, not {side}")
    return tuple(weight / sum(weights[:scales]) for weight in weights[:scales])


def _domains(datamodule: Any, asker: str) -> Tensor:
    """Attributes of each domain of the data."""
    base.require(datamodule, base.HasDomains, asker)
    if datamodule.domains is None:
        raise TypeError(f"{asker} needs domains, and images of the same in each; {datamodule.name} has none")
    domains: Tensor = datamodule.domains
    return domains


def _elsewhere(batch: Any, domain: Tensor) -> Tensor:
    """Which images of a batch are not in a domain."""
    attributes: Tensor = batch["attributes"]
    return (attributes != domain).any(1)


def _digest(network: nn.Module) -> str:
    """Eight digits that tell a network's weights from others."""
    digest = hashlib.sha256()
    for tensor in network.state_dict().values():
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:8]


MEASURES: dict[str, Callable[..., Result]] = {
    "auroc": auroc,
    "beta_vae_metric": beta_vae_metric,
    "bits_per_dim": bits_per_dim,
    "class_error": class_error,
    "domain_accuracy": domain_accuracy,
    "elbo": elbo,
    "iw_nll": iw_nll,
    "knn": knn,
    "linear_probe": linear_probe,
    "mig": mig,
    "ms_ssim": ms_ssim,
    "nll": nll,
    "paired_l1": paired_l1,
    "paired_psnr": paired_psnr,
    "paired_ssim": paired_ssim,
    "parzen": parzen,
    "swd": swd,
}
"""All measures by name."""
LOWER_IS_BETTER = ("bits_per_dim", "class_error", "elbo", "iw_nll", "ms_ssim", "nll", "paired_l1", "swd")
HIGHER_IS_BETTER = {name: name not in LOWER_IS_BETTER for name in MEASURES}
"""Whether a higher value is better."""
PERCENT = frozenset({"auroc", "beta_vae_metric", "class_error", "domain_accuracy", "knn", "linear_probe"})
"""Measures whose values are percentages."""
