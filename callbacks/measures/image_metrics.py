"""Metrics that compare generated images with real ones by the features of a network: all of them from one pass.

A value means little without its protocol, which is part of every result, such as
`fd[features=efficientnet-lite0, resize=antialias-bilinear-128, pixels=8bit, real=emoji32-train-10000, fake=10000,
weights=raw]`. Values with different protocols do not belong into one column. So the protocol of a model that grows and
has not yet reached its full size names its `stage`, whose enlarged images were compared.

Both sides are rounded to 8 bits, as files of pictures hold them. The names fid, kid and is are only for the features of
Inception; with any other network the same formulas give fd, kd and cs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from zoo.callbacks.base import ComparesSets, Result, check_at_least, evaluating, from_rank_zero
from zoo.callbacks.base.protocols import Grows
from zoo.callbacks.extractors import EfficientNetLite0, load_extractor
from zoo.callbacks.measures.evaluation import Evaluation
from zoo.callbacks.measures.features import FeatureSets, compared_features, real_count, stage_of
from zoo.callbacks.measures.real_features import read_statistics
from zoo.callbacks.measures.registry import measure
from zoo.callbacks.metrics.class_score import class_score
from zoo.callbacks.metrics.frechet import frechet_distance_of, frechet_infinity, gaussian_distance, moments_of
from zoo.callbacks.metrics.kernel import kernel_distance
from zoo.engine.files import nearest

__all__ = ["IMAGE_METRICS", "ImageMetric", "image_metrics"]

Value = tuple[Any, Any, dict[str, Any]]
"""Value, its standard error or None, and further facts of the protocol."""


@dataclass(frozen=True)
class ImageMetric:
    """A metric of two sets of features.

    Attributes:
        inception: its name where Inception made the features.
        better: whether a lower or a higher value is better.
        least: number of images that each side needs.
        compute: the value of `FeatureSets`, with a seed of what is drawn.
        needs_classes: it needs an extractor with classes.
    """

    inception: str
    better: str
    least: int
    compute: Callable[[FeatureSets, int], Value]
    needs_classes: bool = False


def _fd(sets: FeatureSets, seed: int) -> Value:
    return frechet_distance_of(sets.real, sets.fake), None, {}


def _fd_infinity(sets: FeatureSets, seed: int) -> Value:
    return *frechet_infinity(sets.real, sets.fake, seed=seed), {}


def _kd(sets: FeatureSets, seed: int) -> Value:
    size, smaller = min(1000, len(sets.real), len(sets.fake)), min(len(sets.real), len(sets.fake))
    mean, deviation = kernel_distance(sets.real, sets.fake, subset_size=size)  # the subsets of torch-fidelity
    # The subsets overlap: their mean is about as exact as the value of smaller / size independent subsets.
    return mean, deviation * (size / smaller) ** 0.5, {"subsets": 100, "subset_size": size}


def _cs(sets: FeatureSets, seed: int) -> Value:
    splits = min(10, len(sets.fake))
    mean, deviation = class_score(sets.fake_logits, splits=splits, seed=2020)  # as torch-fidelity shuffles
    return mean, deviation / splits**0.5, {"splits": splits}


def _share(value: Tensor, of: Tensor, **facts: Any) -> Value:
    """A share of rows, with the standard error of a share."""
    share = float(value)
    return share, (share * (1 - share) / len(of)) ** 0.5, facts


def _precision(sets: FeatureSets, seed: int) -> Value:
    return _share(sets.manifold["precision"], sets.fake, k=3)


def _recall(sets: FeatureSets, seed: int) -> Value:
    return _share(sets.manifold["recall"], sets.real, k=3)


def _density(sets: FeatureSets, seed: int) -> Value:
    return sets.manifold["density"], None, {"k": 5}


def _coverage(sets: FeatureSets, seed: int) -> Value:
    return _share(sets.manifold["coverage"], sets.real, k=5)


def _authenticity(sets: FeatureSets, seed: int) -> Value:
    return _share(sets.manifold["authenticity"], sets.fake)


IMAGE_METRICS = {
    "fd": ImageMetric("fid", "lower", 2, _fd),
    "fd_infinity": ImageMetric("fid_infinity", "lower", 100, _fd_infinity),
    "kd": ImageMetric("kid", "lower", 2, _kd),
    "cs": ImageMetric("is", "higher", 1, _cs, needs_classes=True),
    "precision": ImageMetric("precision", "higher", 6, _precision),
    "recall": ImageMetric("recall", "higher", 6, _recall),
    "density": ImageMetric("density", "higher", 6, _density),
    "coverage": ImageMetric("coverage", "higher", 6, _coverage),
    "authenticity": ImageMetric("authenticity", "higher", 6, _authenticity),
}
"""All metrics by the name that they have with any features but Inception's."""

USUAL = ("fd", "kd", "precision", "recall", "density", "coverage", "authenticity")
"""The metrics that need no classes of the extractor and no extrapolation."""


def chosen(
    metrics: Sequence[str], extractor: str | Path | nn.Module | None
) -> tuple[list[str], str | Path | nn.Module]:
    """Names of the metrics with any features, and the extractor that goes with the given names.

    Args:
        metrics: names, such as "fd" or "fid".
        extractor: the extractor; None takes "inception" for its own names and "efficientnet-lite0" for others.

    Raises:
        ValueError: there is no such metric, or its name is for another extractor.
    """
    of_inception = {m.inception: name for name, m in IMAGE_METRICS.items() if m.inception != name}
    if not metrics:
        raise ValueError(f"metrics is empty: take of {', '.join(IMAGE_METRICS)}")
    for name in metrics:
        if name not in IMAGE_METRICS and name not in of_inception:
            raise ValueError(f"there is no metric {name!r}: {nearest(name, [*IMAGE_METRICS, *of_inception])}")
    special = [name for name in metrics if name in of_inception]
    names = list(dict.fromkeys(of_inception.get(name, name) for name in metrics))
    if extractor is None:
        return names, "inception" if special else EfficientNetLite0.name
    named = extractor if isinstance(extractor, str) else getattr(extractor, "name", "")
    if special and isinstance(extractor, str | nn.Module) and "inception" not in named:
        raise ValueError(
            f"{special[0]!r} is the name of {of_inception[special[0]]!r} with Inception's features: with {named} ask "
            f"for {of_inception[special[0]]!r}, or leave out the extractor"
        )
    return names, extractor


def check_images(
    at: Evaluation,
    *,
    metrics: Sequence[str] = USUAL,
    extractor: str | Path | nn.Module | None = None,
    num_real: int | None = None,
    statistics: str | Path | None = None,
    chunk_size: int = 64,
    resolution: int | None = None,
    **options: Any,
) -> None:
    """Refuse unknown metrics, numbers that are too small, and resolutions that the model does not have."""
    names, _ = chosen(metrics, extractor)
    least = max(IMAGE_METRICS[name].least for name in names)
    check_at_least(at.name, 2, num_samples=at.num_samples, num_real=num_real)
    check_at_least(at.name, 1, chunk_size=chunk_size)
    most = next(name for name in names if IMAGE_METRICS[name].least == least)
    for side, number in (("num_samples", at.num_samples), ("num_real", num_real)):
        if number is not None and number < least:
            raise ValueError(f"{at.name}: {most} needs {least} images on each side, {side} is {number}")
    if getattr(at.model, "makes_images", True) is False:
        raise TypeError(f"{at.name}: {type(at.model).__name__} makes no images that {names[0]} could compare")
    if statistics is not None:
        if names != ["fd"]:
            other = next(name for name in names if name != "fd")
            raise ValueError(f"{at.name}: {other} needs real images; statistics (mu, sigma) are enough for fd alone")
        read_statistics(statistics)
    if resolution is None:
        return
    if not isinstance(at.model, Grows):
        raise TypeError(
            f"{at.name}: resolution={resolution} is for models that grow, which {type(at.model).__name__} does not"
        )
    with evaluating(cast(Any, at.model), at.seed):
        cast(Any, at.model).sample(1, seed=at.seed, resolution=resolution)  # it knows its resolutions, and says so


@measure(needs=ComparesSets, better="lower", split="train", check=check_images)
def image_metrics(
    at: Evaluation,
    *,
    metrics: Sequence[str] = USUAL,
    extractor: str | Path | nn.Module | None = None,
    num_real: int | None = None,
    statistics: str | Path | None = None,
    chunk_size: int = 64,
    cache_dir: str | Path | None = None,
    resolution: int | None = None,
    device: torch.device | str | None = None,
    progress: bool = True,
) -> list[Result]:
    """Metrics of generated and of real images, from one pass over both.

    `num_samples` counts the generated images; None takes as many as the split has, at most 10,000, and 50,000 with
    Inception.

    Args:
        metrics: names in `IMAGE_METRICS`, or those that they have with Inception's features.
        extractor: a name in `zoo.callbacks.extractors.EXTRACTORS`, the path of Inception's weights, or a module
            `(N, 3, H, W) in [-1, 1] -> (N, d)` with a `name`; None takes "inception" where its own names are asked for,
            else "efficientnet-lite0".
        num_real: number of real images; None for as many as generated ones, at most all of the split.
        statistics: an `.npz` file with `mu` and `sigma` of real features, in the place of real images.
        chunk_size: images at a time; part of how the features are rounded.
        cache_dir: folder of features of real images; by default `$ZOO_HOME/features`, else
            `~/.cache/generative-zoo/features`.
        resolution: of a model that grows: compare its images of this side with real ones averaged down to it.
        device: device of the features; by default the model's.
        progress: show a progress bar.
    """
    names, wanted = chosen(metrics, extractor)
    place = at.device if device is None else torch.device(device)
    network = load_extractor(wanted).to(place)
    is_inception = getattr(network, "is_inception", False)
    if needing := [name for name in names if IMAGE_METRICS[name].needs_classes and not hasattr(network, "logits")]:
        raise ValueError(f"{at.name}: {needing[0]} needs an extractor with classes, {network.name} has none")
    limit = 50_000 if is_inception else 10_000
    num = at.num_samples or real_count(at, limit)
    at = replace(at, num_samples=num)
    num_real = 0 if statistics is not None else real_count(at, num if num_real is None else num_real)
    for side, number in (("real", num_real), ("generated", num)):
        for name in names:
            if number < IMAGE_METRICS[name].least and (side, statistics is None) != ("real", False):
                raise ValueError(
                    f"{at.name}: {name} needs {IMAGE_METRICS[name].least} {side} images, there are {number}"
                )
    sets = compared_features(
        at,
        network,
        num_real=num_real,
        chunk_size=chunk_size,
        cache_dir=cache_dir,
        resolution=resolution,
        progress=progress,
    )
    facts = {
        "features": network.name,
        "resize": getattr(network, "resize", "none"),
        "pixels": "8bit",
        "real": f"{at.data.name}-{at.split}-{num_real}" if statistics is None else Path(statistics).name,
        "fake": num,
        "weights": at.weights,
        **stage_of(at, sets.side, resolution),
    }
    results = []
    for name in names:
        # The other ranks wait: the rows are on rank zero, and the arithmetic is a small part of the time.
        found: Value = torch.nan, None, {}
        problem = ""
        try:
            if at.rank == 0 and statistics is None:
                found = IMAGE_METRICS[name].compute(sets, at.seed)
            elif at.rank == 0 and statistics is not None:
                mean, covariance = (part.to(sets.fake.device) for part in read_statistics(statistics))
                found = gaussian_distance(mean, covariance, *moments_of(sets.fake)), None, {}
        except ValueError as error:
            problem = str(error)
        own, problem = from_rank_zero((found[2], problem))
        if problem:  # on every rank: none waits for the others
            raise ValueError(f"{at.name}: {problem}")
        value, spread, _ = found
        numbers = {"value": value} if spread is None else {"value": value, "error": spread}
        shown = IMAGE_METRICS[name].inception if is_inception else name
        results.append(at.result(numbers, shown, **facts, **own))
    return results
