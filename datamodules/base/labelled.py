"""Training data with few labels, for semi-supervised models.

In a batch of this stream `label` is -1 where an image has no label. The batch also holds `labelled` = {"image",
"label", ...}: a batch with a size of its own, drawn with replacement from the labelled images. The images at positions
[p, p + b) of the training order come with the draws [p l / b, p l / b + l), where b and l are the two batch sizes per
device, and draw q is a function of (seed, q). So W ranks draw what one process with W times the batch sizes draws, and
a resumed run continues with the next draw.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from zoo.datamodules.base.draws import uniform_by_index
from zoo.datamodules.base.image_set import Batch, ImageSet
from zoo.datamodules.base.stream import TrainingStream
from zoo.engine.rng import key, permutation

__all__ = ["LabelledStream", "choose_labelled"]


def choose_labelled(label: Tensor, number: int, seed: int) -> Tensor:
    """Numbers of the images that keep their labels: equally many of each class, a function of the seed.

    With the same seed a smaller set lies within a larger one.

    Args:
        label: the images' classes, 0 to K - 1.
        number: images to choose, a multiple of K; or all images, even if the classes are not balanced.
        seed: seed of the choice.

    Shape:
        label: (n,); output: (number,) ascending.

    Raises:
        ValueError: a class has too few images.
    """
    if number == len(label):
        return torch.arange(number)
    counts = label.bincount()
    classes, smallest = len(counts), int(counts.min())
    if number > classes * smallest:
        raise ValueError(
            f"num_labelled {number} is too large: class {int(counts.argmin())} has {smallest} of the {len(label)} "
            f"training images; take at most {classes * smallest}, or {len(label)} for all"
        )
    order = permutation(len(label), key(seed, "labelled"))
    # A stable sort by class keeps that order within each class; the first ones of each class are taken.
    of_class = order[label[order].sort(stable=True).indices].split(counts.tolist())
    return torch.cat([images[: number // classes] for images in of_class]).sort().values


class LabelledStream(TrainingStream):
    """The endless training stream with few labels.

    Args:
        images: the training split with the field `label`.
        seed: seed of the order, of the choice of labelled images and of their draws.
        number: number of labelled images.
        size: labelled images per batch and device.
    """

    def __init__(self, images: ImageSet, seed: int, number: int, size: int) -> None:
        label = images.tensor("label")
        rows = torch.arange(len(images)) if images.rows is None else images.rows
        chosen = rows[choose_labelled(label[rows], number, seed)]
        known = torch.full_like(label, -1)
        known[chosen] = label[chosen]
        super().__init__(replace(images, fields=images.fields | {"label": known}), seed)
        self.labelled, self.size = replace(images, rows=chosen), size
        self._given = {"images": images, "seed": seed, "number": number, "size": size}

    def __getstate__(self) -> dict[str, Any]:
        return self._given

    def levels(self, positions: range) -> Batch:
        """The batch at positions of the run, with labelled images."""
        first = positions.start * self.size // len(positions)
        draws, seed = torch.arange(first, first + self.size), key(self.seed, "labelled draws")
        index = (uniform_by_index(draws, 1, seed).flatten().double() * len(self.labelled)).long()
        # The draw, not the image, keys the augmentation: an image drawn twice is augmented twice.
        labelled = self.labelled.served(index, seed=seed, augment=True, numbers=draws)
        return {**super().levels(positions), "labelled": labelled}
