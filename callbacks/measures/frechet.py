"""Fréchet distance between real images and a model's.

A value means little without its protocol, which is part of every result, such as
`fd[features=efficientnet-lite0, resize=antialias-bilinear-128, real=emoji32-train-2048, fake=2048, weights=raw]`.
Values with different protocols do not belong into one column. So the protocol of a model that grows and has not yet
reached its full size names its `stage`, whose enlarged images were compared.

Features are computed in chunks of a fixed size by global index, the last one padded, and summed in float64: the value
does not depend on the number of ranks, up to 1e-10 relative.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.apply_func import move_data_to_device
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from zoo.callbacks.base import (
    ComparesSets,
    Grows,
    Result,
    check_at_least,
    class_count,
    evaluating,
    from_rank_zero,
)
from zoo.callbacks.extractors import features_of, load_extractor
from zoo.callbacks.measures.evaluation import Evaluation
from zoo.callbacks.measures.registry import measure
from zoo.callbacks.measures.statistics import RealStatistics
from zoo.callbacks.metrics.frechet import FrechetMetric
from zoo.engine.devices import has_float64

__all__ = ["frechet_distance"]


def _check(at: Evaluation, *, chunk_size: int = 64, resolution: int | None = None, **options: Any) -> None:
    """Refuse numbers that are too small, and resolutions that the model does not have."""
    check_at_least(at.name, 2, num_samples=at.num_samples)
    check_at_least(at.name, 1, chunk_size=chunk_size)
    if resolution is None:
        return
    grows = isinstance(at.model, Grows)
    if not grows:
        raise TypeError(
            f"{at.name}: resolution={resolution} is for models that grow, which {type(at.model).__name__} does not"
        )
    with evaluating(at.model, at.seed):
        at.model.sample(1, seed=at.seed, resolution=resolution)  # the model knows its resolutions, and says so


@measure(needs=ComparesSets, better="lower", split="train", num_samples=2048, check=_check)
def frechet_distance(
    at: Evaluation,
    *,
    extractor: str | nn.Module = "efficientnet-lite0",
    inception_weights: str | Path | None = None,
    chunk_size: int = 64,
    cache_dir: str | Path | None = None,
    resolution: int | None = None,
    device: torch.device | str | None = None,
    progress: bool = True,
) -> Result:
    """Fréchet distance between real images of a split and as many of the model's.

    Args:
        extractor: "efficientnet-lite0", or a module `(N, 3, H, W) in [-1, 1] -> (N, d)` with a `name`.
        inception_weights: path of the Inception weights of FID; with them the value is FID.
        chunk_size: images at a time; part of how the value is rounded.
        cache_dir: folder of statistics of real images; by default `$ZOO_HOME/statistics`, else
            `~/.cache/generative-zoo/statistics`.
        resolution: of a model that grows: compare its images of this side with real ones averaged down to it.
        device: device of the features; by default the model's.
        progress: show a progress bar.
    """
    place = at.device if device is None else torch.device(device)
    network = load_extractor(extractor, inception_weights).to(place)
    with evaluating(network, at.seed):
        pairs = _pairs(at, chunk_size, resolution)
        # Rank zero has the first chunk, which tells these real images from others of the same name.
        head = next(pairs, None)
        facts = None if head is None else (features_of(network, head[1].to(place)).shape[1], head[2].shape[-1])
        width, side = from_rank_zero(facts)
        metric = FrechetMetric(width).to(place if has_float64(place) else "cpu")
        real_name = f"{at.data.name}-{at.split}-{at.num_samples}"
        statistics = RealStatistics(cache_dir, network, real_name, chunk_size, resolution)
        known = statistics.load(head[1], width) if at.rank == 0 and head else None
        is_known = from_rank_zero(known is not None)
        if known is not None:
            metric.load_real_state(known)
        total = -(-(at.num_samples or 0) // (chunk_size * at.world_size))
        hidden = not progress or at.rank > 0
        with tqdm(total=total, desc="Fréchet distance", unit="chunk", leave=False, disable=hidden) as bar:
            for count, real, fake in itertools.chain([head] if head else [], pairs):
                if not is_known:
                    metric.update(features_of(network, real.to(place))[:count], real=True)
                metric.update(features_of(network, fake.to(place))[:count], real=False)
                bar.update()
        if not is_known:
            state = metric.real_state()
            if at.rank == 0:
                statistics.save(state)
        value = metric.compute()
    stage: dict[str, Any] = {}
    if resolution is not None:
        stage = {"resolution": resolution}
    elif isinstance(at.model, Grows) and (reached := int(at.model.progress["resolution"])) < side:
        stage = {"stage": reached}
    return at.result(
        value,
        "fid" if getattr(network, "is_inception", False) else "fd",
        features=network.name,
        resize=getattr(network, "resize", "none"),
        real=real_name,
        fake=at.num_samples,
        weights=at.weights,
        **stage,
    )


def _pairs(at: Evaluation, size: int, resolution: int | None) -> Iterator[tuple[int, Tensor, Tensor]]:
    """This rank's (number of images, real ones, fakes), all of the same padded length."""
    num = at.num_samples or 0
    share = {"rank": at.rank, "world_size": at.world_size}
    for first, batch in at.data.reference_batches(num, size, split=at.split, **share):
        count = min(size, num - first)
        if (given := _length(batch)) != count:
            raise ValueError(f"reference_batches of {at.data.name} gave {given} images from {first}, not {count}")
        padded = move_data_to_device(_padded(batch, count, size), at.device)
        if resolution is None:
            real, fake = at.model.real_and_fake(padded, seed=at.seed, first=first)
        else:
            real, fake = _at_resolution(at, padded, first, resolution)
        yield count, real, fake


def _at_resolution(at: Evaluation, batch: Any, first: int, side: int) -> tuple[Tensor, Tensor]:
    """Real images averaged down, and as many of the model's at that size, with their labels if it has classes."""
    real = batch["image"]
    height, width = real.shape[2:]
    if height != width or height % side:
        raise ValueError(f"real images of {height} x {width} pixels have no means of {side} x {side}")
    conditions = {"label": batch["label"]} if class_count(at.model) else {}
    fake = at.model.sample(len(real), seed=at.seed, first=first, resolution=side, **conditions)
    return F.avg_pool2d(real, height // side), fake


def _length(batch: Any) -> int:
    tensors = batch.values() if isinstance(batch, dict) else [batch]
    return next(len(value) for value in tensors if isinstance(value, Tensor))


def _padded(batch: Any, count: int, size: int) -> Any:
    """A batch of `count` images repeated up to `size`."""
    if count == size:
        return batch
    rows = [i % count for i in range(size)]
    if isinstance(batch, Tensor):
        return batch[rows]
    if isinstance(batch, dict):
        return {key: _padded(value, count, size) for key, value in batch.items()}
    if isinstance(batch, list | tuple) and len(batch) == count:
        return [batch[i] for i in rows]
    return batch
