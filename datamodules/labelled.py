"""Training data of which few images have labels, for semi-supervised models.

A batch of the stream is as always, except that `label` is -1 where an image has none, and it also holds
`labelled` = {"image", "label", ...}: a batch of its own size, drawn with replacement from the labelled images. The
images at positions [p, p + b) of the training order go with the draws [p l / b, p l / b + l), where b and l are the two
batch sizes per device, and draw number q is a function of (seed, q). So ranks draw what one process with batches as
large as theirs together would draw, and a resumed run goes on at the next draw.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from zoo.datamodules.pictures import uniform
from zoo.datamodules.stream import Batch, ImageSet, Stream, key

__all__ = ["LabelledStream", "choose"]


def choose(label: Tensor, number: int, seed: int) -> Tensor:
    """Which images have labels: as many of each class, a function of the seed.

    A smaller set of the same seed lies within a larger one.

    Args:
        label: the images' classes, 0 to K - 1.
        number: images to take, a multiple of K; all of them may be taken, even if their classes are not balanced.
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
    order = torch.randperm(len(label), generator=torch.Generator().manual_seed(key(seed, "labelled")))
    # A stable sort by class keeps that order within each class, of which the first ones are taken.
    of_class = order[label[order].sort(stable=True).indices].split(counts.tolist())
    return torch.cat([images[: number // classes] for images in of_class]).sort().values


class LabelledStream(Stream):
    """The endless training stream with few labels.

    Args:
        images: the training split with the field `label`.
        seed: seed of the order, of the choice of labelled images and of their draws.
        number: labelled images.
        size: labelled images per batch and device.
    """

    def __init__(self, images: ImageSet, seed: int, number: int, size: int) -> None:
        label = images.fields["label"]
        assert isinstance(label, Tensor)
        rows = torch.arange(len(images)) if images.rows is None else images.rows
        chosen = rows[choose(label[rows], number, seed)]
        known = torch.full_like(label, -1)
        known[chosen] = label[chosen]
        super().__init__(replace(images, fields=images.fields | {"label": known}), seed)
        self.labelled, self.size = replace(images, rows=chosen), size
        self._given = {"images": images, "seed": seed, "number": number, "size": size}

    def __getstate__(self) -> dict[str, Any]:
        return self._given

    def __getitem__(self, positions: range) -> Batch:
        first = positions.start * self.size // len(positions)
        draws, seed = torch.arange(first, first + self.size), key(self.seed, "labelled draws")
        index = (uniform(draws, 1, seed).flatten().double() * len(self.labelled)).long()
        # Not the image, but the draw is the augmentation's number: an image drawn twice is augmented twice.
        labelled = self.labelled.batch(index, seed=seed, augment=True, numbers=draws)
        return {**super().__getitem__(positions), "labelled": labelled}
