"""The Fréchet distance alone, as callbacks and published values name it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from zoo.callbacks.base import ComparesSets, Result
from zoo.callbacks.extractors import EfficientNetLite0, load_extractor
from zoo.callbacks.measures.evaluation import Evaluation
from zoo.callbacks.measures.image_metrics import check_images, image_metrics
from zoo.callbacks.measures.registry import measure

__all__ = ["frechet_distance"]


def _check_distance(at: Evaluation, *, inception_weights: str | Path | None = None, **options: Any) -> None:
    check_images(at, metrics=("fd",), **options)


@measure(needs=ComparesSets, better="lower", split="train", num_samples=2048, check=_check_distance)
def frechet_distance(
    at: Evaluation,
    *,
    extractor: str | Path | nn.Module = EfficientNetLite0.name,
    inception_weights: str | Path | None = None,
    num_real: int | None = None,
    statistics: str | Path | None = None,
    chunk_size: int = 64,
    cache_dir: str | Path | None = None,
    resolution: int | None = None,
    device: torch.device | str | None = None,
    progress: bool = True,
) -> Result:
    """Fréchet distance between real images of a split and a model's: `image_metrics` with nothing but "fd".

    Args:
        extractor: as for `image_metrics`.
        inception_weights: path of the Inception weights of FID; with them the value is FID.
        num_real: as for `image_metrics`.
        statistics: as for `image_metrics`.
        chunk_size: as for `image_metrics`.
        cache_dir: as for `image_metrics`.
        resolution: as for `image_metrics`.
        device: as for `image_metrics`.
        progress: as for `image_metrics`.
    """
    (result,) = image_metrics.function(
        at,
        metrics=("fd",),
        extractor=load_extractor(extractor, inception_weights),
        num_real=num_real,
        statistics=statistics,
        chunk_size=chunk_size,
        cache_dir=cache_dir,
        resolution=resolution,
        device=device,
        progress=progress,
    )
    return result
