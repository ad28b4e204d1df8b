"""The sentences of images, and the draws from them: sentences of an image, and mismatched ones of other images.

All draws are functions of (seed, epoch, image): the same on any number of ranks and after a resume.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from zoo.datamodules.base.draws import uniform_by_index
from zoo.datamodules.base.image_set import Batch, ImageSet
from zoo.engine.rng import key

__all__ = ["CaptionedImages", "Captions", "classes_by_sharing"]


@dataclass
class Captions:
    """The sentences of all images, and the classes of the images.

    Attributes:
        texts: all different sentences.
        numbers: numbers of the sentences of image 0, then of image 1, ...
        starts: image i has the sentences `numbers[starts[i]:starts[i + 1]]`.
        classes: class of each image; a mismatched caption is from another class.
        groups: group of each image, of similar classes; None for no groups.
        embeddings: one row per sentence, or None.
        average: sentences drawn per image, with replacement, whose embeddings are averaged.
        near: share of mismatched captions from another class of the image's own group, if there is one.
    """

    texts: list[str]
    numbers: Tensor
    starts: Tensor
    classes: Tensor
    groups: Tensor | None = None
    embeddings: Tensor | None = None
    average: int = 1
    near: float = 0.0

    @classmethod
    def of(cls, captions: Sequence[Sequence[str]], classes: Tensor, **options: Any) -> Captions:
        """Captions from the list of sentences of each image.

        Args:
            captions: the sentences of each image.
            classes: the class of each image.
            options: further attributes.
        """
        known: dict[str, int] = {}
        numbers = [known.setdefault(text, len(known)) for own in captions for text in own]
        starts = torch.tensor([0, *(len(own) for own in captions)]).cumsum(0)
        return cls(list(known), torch.tensor(numbers, dtype=torch.long), starts, classes, **options)

    def sample_captions(self, images: Tensor, chance: Tensor) -> Tensor:
        """Numbers of sentences drawn for images.

        Args:
            images: numbers of the images.
            chance: draws in [0, 1), one per sentence.

        Shape:
            images: (n,); chance: (n, k); output: (n, k).
        """
        first, count = self.starts[images], self.starts[images + 1] - self.starts[images]
        return self.numbers[first[:, None] + (chance.double() * count[:, None]).long()]

    def captions_of(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """All sentences of images, as pairs of an image's place in `images` and a sentence's number.

        Args:
            images: numbers of the images.

        Shape:
            images: (n,); output: (m,) and (m,); a sentence that an image has twice comes twice.
        """
        first, count = self.starts[images], self.starts[images + 1] - self.starts[images]
        place = torch.arange(len(images)).repeat_interleave(count)
        within = torch.arange(len(place)) - (count.cumsum(0) - count)[place]
        return place, self.numbers[first[place] + within]


@dataclass
class CaptionedImages(ImageSet):
    """A split with captions.

    Attributes:
        captions: the captions of all rows.
        size: side of the images in a batch; larger images are cut to their center; 0 leaves them as they are.
    """

    # NOTE(paper): the authors draw a class and then an image of that class, and a mismatch likewise, with the same
    # probability for each class. Here each image comes once in an epoch, and each image of another class is equally
    # likely as a mismatch, so large classes are seen more often than small ones.

    captions: Captions = field(kw_only=True)
    size: int = field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        # `_order` lists the images group after group, and within a group class after class. For each image `_class`
        # and `_group` hold where the block of its class and of its group starts there, and the length of the block.
        rows = self._rows
        self._classes = classes = self.captions.classes[rows].unique(return_inverse=True)[1]
        groups = torch.zeros_like(classes)
        if self.captions.groups is not None:
            groups = self.captions.groups[rows].unique(return_inverse=True)[1]
        self._order = (groups * (len(rows) + 1) + classes).argsort(stable=True)
        self._class = self._blocks(classes)
        self._group = self._blocks(groups)
        self._shared, has_mismatch = self._shared_captions(classes)
        self.has_mismatches = len(rows) > 0 and bool(has_mismatch.all())

    @property
    def _rows(self) -> Tensor:
        return torch.arange(len(self)) if self.rows is None else self.rows

    def _shared_captions(self, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Whether several classes have a sentence, and whether another class has a sentence that an image lacks.

        Shape:
            classes: (n,); output: (number of sentences,) and (n,) bool.
        """
        image, sentence = self.captions.captions_of(self._rows)
        count = len(self.captions.texts)
        held = (classes[image] * count + sentence).unique()  # each sentence of each class, once
        classes_of = (held % count).bincount(minlength=count)
        shared = classes_of > 1
        alone = (held[~shared[held % count]] // count).bincount(minlength=len(classes))  # of each class
        elsewhere = (classes_of > 0).sum() - alone[classes]
        # Among the sentences of other classes an image has its own shared ones.
        own = (image * count + sentence)[shared[sentence]].unique() // count
        return shared, elsewhere > own.bincount(minlength=len(classes))

    def _blocks(self, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Start and length of each image's block in `_order`."""
        if not len(numbers):
            return numbers, numbers
        counts = numbers.bincount()
        starts = torch.zeros_like(counts)
        place = torch.arange(len(numbers))
        starts.scatter_reduce_(0, numbers[self._order], place, "amin", include_self=False)
        return starts[numbers], counts[numbers]

    def mismatched(self, index: Tensor, chance: Tensor) -> Tensor:
        """Images of other classes, drawn with equal probability.

        Args:
            index: numbers of the images within the split.
            chance: draws in [0, 1): one for the choice of a near image, one for the image.

        Shape:
            index: (n,); chance: (n, 2); output: (n,).
        """
        (class_start, class_size), (group_start, group_size) = (
            (start[index], size[index]) for start, size in (self._class, self._group)
        )
        near = (chance[:, 0] < self.captions.near) & (group_size > class_size)
        first = torch.where(near, group_start, 0)
        span = torch.where(near, group_size, len(self)) - class_size
        place = first + (chance[:, 1].double() * span).long()
        other: Tensor = self._order[place + torch.where(place >= class_start, class_size, 0)]
        return other

    def redraw_shared_captions(self, index: Tensor, others: Tensor, sampled: Tensor, chance: Tensor) -> Tensor:
        """Sentences of other images; those that the image itself has, too, are drawn again.

        The new sentence is one of the other image's that the image lacks, with equal probability. If there is none, it
        comes from an image of another class that has such sentences, with equal probability for each image.

        Args:
            index: numbers of the images within the split.
            others: numbers of the images of other classes.
            sampled: numbers of sentences of the other images.
            chance: draws in [0, 1): one for another image, one per sentence.

        Shape:
            index: (n,); others: (n,); sampled: (n, k); chance: (n, 1 + k); output: (n, k).
        """
        captions, rows = self.captions, self._rows
        sampled = sampled.clone()
        for i in self._shared[sampled].any(1).nonzero().flatten().tolist():
            own = captions.captions_of(rows[index[i, None]])[1]
            again = torch.isin(sampled[i], own)
            if not again.any():
                continue
            fitting = captions.captions_of(rows[others[i, None]])[1]
            fitting = fitting[~torch.isin(fitting, own)]
            if not len(fitting):  # from any group, also where the mismatch was to be a near one
                image, sentence = captions.captions_of(rows)
                usable = ~torch.isin(sentence, own) & (self._classes[image] != self._classes[index[i]])
                images = image[usable].unique()
                fitting = sentence[usable & (image == images[int(chance[i, 0].double() * len(images))])]
            sampled[i, again] = fitting[(chance[i, 1:][again].double() * len(fitting)).long()]
        return sampled

    def levels(
        self, index: Tensor, *, seed: int = 0, epoch: int = 0, augment: bool = False, numbers: Tensor | None = None
    ) -> Batch:
        """A batch of this split with its captions; arguments as in `ImageSet`."""
        captions = self.captions
        batch = super().levels(index, seed=seed, epoch=epoch, augment=augment, numbers=numbers)
        if self.size and (margin := batch["image"].size(3) - self.size) > 0:
            start = margin // 2
            batch["image"] = batch["image"][:, :, start : start + self.size, start : start + self.size]
        k = captions.average
        # Columns: 2 for the other image, k own and k mismatched sentences, 1 + k for sentences drawn again.
        chance = uniform_by_index(index if numbers is None else numbers, 3 + 3 * k, key(seed, "captions", epoch))
        rows = self._rows[index]
        batch["caption_class"] = captions.classes[rows]
        sampled = {"caption": captions.sample_captions(rows, chance[:, 2 : 2 + k])}
        if self.has_mismatches:
            other = self.mismatched(index, chance[:, :2])
            theirs = captions.sample_captions(self._rows[other], chance[:, 2 + k : 2 + 2 * k])
            sampled["mismatched_caption"] = self.redraw_shared_captions(index, other, theirs, chance[:, 2 + 2 * k :])
        for name, chosen in sampled.items():
            batch[name] = [captions.texts[i] for i in chosen[:, 0].tolist()]
            if captions.embeddings is not None:
                short = name.removesuffix("caption")
                batch[f"{short or 'caption_'}embedding"] = captions.embeddings[chosen].mean(1)
        return batch


def classes_by_sharing(captions: Sequence[Sequence[str]]) -> Tensor:
    """Classes of pictures by their captions: pictures with a common caption, also through others, are of one class.

    Args:
        captions: the sentences of each picture.
    """
    parents = list(range(len(captions)))

    def root(i: int) -> int:
        while parents[i] != i:
            parents[i] = parents[parents[i]]
            i = parents[i]
        return i

    owner: dict[str, int] = {}
    for i, own in enumerate(captions):
        for caption in own:
            parents[root(i)] = root(owner.setdefault(caption, i))
    return torch.tensor([root(i) for i in range(len(captions))])
