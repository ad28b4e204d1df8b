"""Measures of models that make whole images of patches of them."""

from __future__ import annotations

from typing import Any, Literal

import torch

from zoo.callbacks import base
from zoo.callbacks.base import Result
from zoo.callbacks.measurement import CHUNK, Run
from zoo.callbacks.metrics.patches import MaskIoU, NearestPatch

__all__ = ["mask_iou", "patch_error"]


def mask_iou(
    model: Any,
    datamodule: Any,
    *,
    split: str = "test",
    num_samples: int | None = None,
    seed: int = 0,
    shuffled: bool = False,
) -> Result:
    """Intersection over union, from 0 to 1, of the masks that a model predicts of patches and the true ones.

    Args:
        model: has `assemble`.
        datamodule: gives images with patches.
        split: which images.
        num_samples: how many; None for all.
        seed: seed of the model's noise.
        shuffled: compare with the mask of another image each, as `mask_iou_shuffled`: what one reaches without a look
            at the patches.

    Raises:
        ValueError: there are no two images to shuffle.
    """
    return _of_patches("mask_iou", model, datamodule, split, num_samples, seed, shuffled)


def patch_error(
    model: Any,
    datamodule: Any,
    *,
    split: str = "test",
    num_samples: int | None = None,
    seed: int = 0,
    shuffled: bool = False,
) -> Result:
    """How far a patch is from the most similar place of the image that was made of it: see `NearestPatch`.

    Args:
        model: has `assemble`.
        datamodule: gives images with patches.
        split: which images.
        num_samples: how many; None for all.
        seed: seed of the model's noise.
        shuffled: look for the patches of another image each, as `patch_error_shuffled`: the error of an image that
            does not use its patches.

    Raises:
        ValueError: there are no two images to shuffle.
    """
    return _of_patches("patch_error", model, datamodule, split, num_samples, seed, shuffled)


def _of_patches(
    name: Literal["mask_iou", "patch_error"],
    model: Any,
    datamodule: Any,
    split: str,
    num_samples: int | None,
    seed: int,
    shuffled: bool,
) -> Result:
    run = Run(model, datamodule, base.Assembles, name, seed)
    base.require(datamodule, base.HasPatches, name)
    num = run.size(split, num_samples)
    if shuffled and num < 2:
        raise ValueError(f"{name}: shuffled needs two images at least, not {num}")
    # Images are shuffled within their chunk, which no chunk of one would allow.
    chunk = CHUNK - (num % CHUNK == 1)
    metric = MaskIoU() if name == "mask_iou" else NearestPatch()
    metric.to(run.device).set_dtype(torch.float64)  # `to` would take it back
    with base.evaluating(model, seed):
        for first, batch in run.batches(split, num, chunk):
            image, mask = model.assemble(batch["patches"], seed=seed, first=first)
            true = {key: batch[key].roll(1, 0) if shuffled else batch[key] for key in ("image", "mask", "boxes")}
            if isinstance(metric, MaskIoU):
                metric.update(mask, true["mask"])
            else:
                metric.update(image, true["image"], true["boxes"])
        value = metric.compute()
    # Under a name of its own: in one column with the true patches it would be taken for a value of the model.
    return run.result(f"{name}_shuffled" if shuffled else name, value, test=run.named(split, num))
