"""Batches of random numbers of the kind that a model takes, where no data set is at hand."""

from __future__ import annotations

import random
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.base import Batch
from zoo.base.batches import IMAGES

__all__ = ["random_batch"]

WORDS = ("red", "apple", "woman", "teacher", "dark", "light", "skin", "tone", "flag", "of", "a", "small", "cat", "face")


def random_batch(model: Any, n: int, data: Any = None, seed: int = 0) -> Batch:
    """A training batch for a model: images, and the labels, patches or sentences that its training reads.

    Args:
        model: the model.
        n: number of images.
        data: an unopened DataModule, which says whether images are binary, how many patches there are, and how many
            images with labels come beside each batch.
        seed: another seed gives another batch.
    """
    generator = torch.Generator().manual_seed(seed)

    def images(*shape: int) -> Tensor:
        values = torch.rand(*shape, *model.image_shape, generator=generator) * 2 - 1
        return values.sign() if getattr(data, "binarize", "none") != "none" else values

    def integers(low: int, high: int, *shape: int) -> Tensor:
        return torch.randint(low, high, shape, generator=generator)

    if model.batch_fields[0] in IMAGES[1:]:
        return {name: images(n) for name in model.batch_fields}
    batch: Batch = {"image": images(n)}
    if (values := model.label_values({})) is not None:
        batch["label"] = integers(values.start, values.stop, n)
        if count := getattr(data, "num_labelled", None):
            size = min(count, data.labelled_batch_size)
            label = integers(0, values.stop, size)
            batch["labelled"] = {"image": images(size), "label": label}
    elif (labels := getattr(model, "labels", None)) is not None:  # attributes and sets of categories
        sets = zip(labels.sizes, labels.categorical, strict=True)
        parts = [F.one_hot(integers(0, k, n), k) if one else integers(0, 2, n, k) for k, one in sets]
        batch["attributes"] = torch.cat(parts, 1).float()
        batch["label_set"] = integers(0, len(labels.sets), n)
    if hasattr(model, "assemble"):
        batch["patches"] = images(n, getattr(data, "num_patches", 3))
        batch["mask"] = integers(0, 2, n, 1, *model.image_shape[1:]).float()
        batch["other"] = batch["image"].roll(1, 0)
    if hasattr(model, "text_features"):
        for name in ("caption_embedding", "mismatched_embedding"):
            batch[name] = torch.randn(n, model.text_features, generator=generator)
    elif "caption" in model.batch_fields:
        choose = random.Random(seed)
        batch["caption"] = [" ".join(choose.choices(WORDS, k=8)) for _ in range(n)]
        batch["caption_class"] = torch.arange(n)
    return batch
