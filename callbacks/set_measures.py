"""Measures of generated images as a set: how far from the real ones, and how unlike each other."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import MeanMetric
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure as multiscale_ssim

from callbacks import base
from callbacks.base import Result
from callbacks.measurement import Run
from callbacks.metrics.sliced_wasserstein import SlicedWasserstein

__all__ = ["ms_ssim", "ssim_weights", "swd"]


def swd(model: Any, datamodule: Any, *, split: str = "test", num_samples: int | None = None, seed: int = 0) -> Result:
    """Sliced Wasserstein distance between generated and real images, times 1000, mean over their Laplacian pyramids.

    Args:
        model: has `real_and_fake`.
        datamodule: gives the images.
        split: which real images; the paper's are those of training.
        num_samples: how many of each; None for 16,384, or all if there are fewer.
        seed: seed of the generated images, and of patches and directions.
    """
    run = Run(model, datamodule, base.ComparesSets, "swd", seed)
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
    run = Run(model, datamodule, base.Samples, "ms_ssim", seed)
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
