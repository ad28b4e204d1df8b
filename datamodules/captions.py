"""The sentences of images: where they come from, which an image has, and which of others are drawn as wrong ones.

What is drawn is a function of (seed, epoch, image): the same on any number of ranks and after a resume.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo.datamodules.base import nearest
from zoo.datamodules.pictures import uniform
from zoo.datamodules.stream import Batch, ImageSet, key

__all__ = [
    "CaptionedImages",
    "Captions",
    "caption_table",
    "checked_templates",
    "classes_by_sharing",
    "sentences",
    "text_lines",
    "usual_templates",
]

WORDS = ("name", "thing", "tone", "gender", "category", "vendor")


@dataclass
class Captions:
    """The sentences of all images, and which of them an image may be told apart by.

    Attributes:
        texts: all different sentences.
        numbers: numbers of the sentences of image 0, then of image 1, ...
        starts: image i has `numbers[starts[i]:starts[i + 1]]`.
        classes: class of each image: a mismatched caption is of another one.
        groups: group of each image's class, within which classes differ little; None for none.
        embeddings: one row per sentence, or None.
        average: sentences that are drawn for an image, perhaps one twice, whose embeddings are averaged.
        near: share of mismatched captions that are drawn from the image's own group, where it has another class.
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
        """From the sentences of each image."""
        known: dict[str, int] = {}
        numbers = [known.setdefault(text, len(known)) for own in captions for text in own]
        starts = torch.tensor([0, *(len(own) for own in captions)]).cumsum(0)
        return cls(list(known), torch.tensor(numbers, dtype=torch.long), starts, classes, **options)

    def drawn(self, images: Tensor, chance: Tensor) -> Tensor:
        """Numbers of sentences of images, for numbers in [0, 1).

        Shape:
            images: (n,); chance: (n, k); output: (n, k).
        """
        first, count = self.starts[images], self.starts[images + 1] - self.starts[images]
        return self.numbers[first[:, None] + (chance.double() * count[:, None]).long()]

    def listed(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """All sentences of images: the place of the image among these, and the number of the sentence.

        Shape:
            images: (n,); output: (m,) and (m,), with a sentence that an image has twice twice.
        """
        first, count = self.starts[images], self.starts[images + 1] - self.starts[images]
        place = torch.arange(len(images)).repeat_interleave(count)
        within = torch.arange(len(place)) - (count.cumsum(0) - count)[place]
        return place, self.numbers[first[place] + within]


@dataclass
class CaptionedImages(ImageSet):
    """A split with captions.

    Attributes:
        captions: those of all images that the arrays hold.
        size: side of the images in a batch; larger ones are cut at their centre where nothing else has cut them.
    """

    # NOTE(paper): the authors draw a class and then an image of it, and a mismatch likewise, from any other class as
    # likely. Here each image comes once in an epoch, and each image of another class is as likely a mismatch, so that
    # large classes are seen more often than small ones.

    captions: Captions | None = None
    size: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        # Image after image of a class, class after class of a group, in `order`; for each image where the blocks of its
        # group and of its class begin there, and how long they are.
        captions = self.captions
        assert captions is not None
        rows = self._rows
        self._classes = classes = captions.classes[rows].unique(return_inverse=True)[1]
        groups = torch.zeros_like(classes)
        if captions.groups is not None:
            groups = captions.groups[rows].unique(return_inverse=True)[1]
        self._order = (groups * (len(rows) + 1) + classes).argsort(stable=True)
        self._class = self._blocks(classes)
        self._group = self._blocks(groups)
        self._shared, lack = self._compared(classes)
        self.has_mismatches = len(rows) > 0 and bool(lack.all())

    @property
    def _rows(self) -> Tensor:
        return torch.arange(len(self)) if self.rows is None else self.rows

    def _compared(self, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Which sentences several classes have, and which images lack a sentence that another class has.

        Shape:
            classes: (n,); output: (number of sentences,) and (n,) bool.
        """
        captions = self.captions
        assert captions is not None
        image, sentence = captions.listed(self._rows)
        count = len(captions.texts)
        held = (classes[image] * count + sentence).unique()  # each sentence of each class, once
        classes_of = (held % count).bincount(minlength=count)
        shared = classes_of > 1
        alone = (held[~shared[held % count]] // count).bincount(minlength=len(classes))  # of each class
        elsewhere = (classes_of > 0).sum() - alone[classes]
        # Of the sentences of other classes an image has its own shared ones.
        own = (image * count + sentence)[shared[sentence]].unique() // count
        return shared, elsewhere > own.bincount(minlength=len(classes))

    def _blocks(self, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Start and length of each image's block in the order."""
        if not len(numbers):
            return numbers, numbers
        counts = numbers.bincount()
        starts = torch.zeros_like(counts)
        place = torch.arange(len(numbers))
        starts.scatter_reduce_(0, numbers[self._order], place, "amin", include_self=False)
        return starts[numbers], counts[numbers]

    def mismatched(self, index: Tensor, chance: Tensor) -> Tensor:
        """Images of other classes, each of them as likely, for numbers in [0, 1).

        Shape:
            index: (n,) numbers in the split; chance: (n, 2); output: (n,).
        """
        assert self.captions is not None
        (class_start, class_size), (group_start, group_size) = (
            (start[index], size[index]) for start, size in (self._class, self._group)
        )
        near = (chance[:, 0] < self.captions.near) & (group_size > class_size)
        first = torch.where(near, group_start, 0)
        span = torch.where(near, group_size, len(self)) - class_size
        place = first + (chance[:, 1].double() * span).long()
        other: Tensor = self._order[place + torch.where(place >= class_start, class_size, 0)]
        return other

    def told_apart(self, index: Tensor, others: Tensor, drawn: Tensor, chance: Tensor) -> Tensor:
        """Sentences of images of other classes, where those that the image has itself are drawn again.

        Each of the other image's further sentences is as likely; where it has none, each image of another class that
        has some.

        Args:
            index: numbers of images in the split.
            others: numbers of the images of other classes.
            drawn: numbers of these images' sentences.
            chance: numbers in [0, 1): one for another image, one for each sentence.

        Shape:
            index: (n,); others: (n,); drawn: (n, k); chance: (n, 1 + k); output: (n, k).
        """
        captions, rows = self.captions, self._rows
        assert captions is not None
        drawn = drawn.clone()
        for i in self._shared[drawn].any(1).nonzero().flatten().tolist():
            own = captions.listed(rows[index[i, None]])[1]
            again = torch.isin(drawn[i], own)
            if not again.any():
                continue
            fitting = captions.listed(rows[others[i, None]])[1]
            fitting = fitting[~torch.isin(fitting, own)]
            if not len(fitting):  # now of any group: `near` is a share of the others
                image, sentence = captions.listed(rows)
                usable = ~torch.isin(sentence, own) & (self._classes[image] != self._classes[index[i]])
                images = image[usable].unique()
                fitting = sentence[usable & (image == images[int(chance[i, 0].double() * len(images))])]
            drawn[i, again] = fitting[(chance[i, 1:][again].double() * len(fitting)).long()]
        return drawn

    def batch(
        self,
        index: Tensor,
        *,
        seed: int = 0,
        epoch: int = 0,
        augment: bool = False,
        numbers: Tensor | None = None,
    ) -> Batch:
        """A batch of this split, as of any `ImageSet`, with its captions."""
        captions = self.captions
        assert captions is not None
        batch = super().batch(index, seed=seed, epoch=epoch, augment=augment, numbers=numbers)
        if self.size and (margin := batch["image"].size(3) - self.size) > 0:
            start = margin // 2
            batch["image"] = batch["image"][:, :, start : start + self.size, start : start + self.size]
        k = captions.average
        own = index if numbers is None else numbers
        # For the other image, k own and k mismatched sentences; and for those drawn again.
        chance = uniform(own, 3 + 3 * k, key(seed, "captions", epoch))
        rows = index if self.rows is None else self.rows[index]
        batch["caption_class"] = captions.classes[rows]
        drawn = {"caption": captions.drawn(rows, chance[:, 2 : 2 + k])}
        if self.has_mismatches:
            other = self.mismatched(index, chance[:, :2])
            sentences = captions.drawn(self._rows[other], chance[:, 2 + k : 2 + 2 * k])
            drawn["mismatched_caption"] = self.told_apart(index, other, sentences, chance[:, 2 + 2 * k :])
        for name, chosen in drawn.items():
            batch[name] = [captions.texts[i] for i in chosen[:, 0].tolist()]
            if captions.embeddings is not None:
                short = name.removesuffix("caption")
                batch[f"{short or 'caption_'}embedding"] = captions.embeddings[chosen].mean(1)
        return batch


def usual_templates() -> list[str]:
    """The templates that come with the package."""
    text = (files("zoo.datamodules") / "data" / "captions" / "emoji.txt").read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def checked_templates(templates: Sequence[str]) -> list[str]:
    """Templates of one's own.

    Raises:
        ValueError: an unknown word, or one without which an emoji would have no sentence.
    """
    for template in templates:
        words = re.findall(r"{(.*?)}", template)
        for word in words:
            if word not in WORDS:
                raise ValueError(f"template {template!r} has an unknown word {word!r}: {nearest(word, WORDS)}")
        if "name" not in words and not {"thing", "tone"} <= set(words):
            raise ValueError(
                f"template {template!r} does not say which emoji: it needs {{name}}, or {{thing}}, {{tone}}"
            )
    if not any(set(re.findall(r"{(.*?)}", template)) <= {"name", "vendor", "category"} for template in templates):
        raise ValueError("emoji without skin tone or gender need a template of their own, such as '{name}'")
    return list(templates)


def sentences(templates: Sequence[str], row: dict[str, str]) -> list[str]:
    """The sentences of an emoji: those whose words it has."""
    tone, gender = row["skin_tone"], row["gender"]
    words = {
        "name": row["caption"],
        "thing": row["caption"].removesuffix(f": {tone} skin tone"),
        "tone": "" if tone == "none" else tone,
        "gender": "" if gender == "none" else gender,
        "category": row["category"].lower().replace("&", "and"),
        "vendor": row["vendor"],
    }
    return [t.format(**words) for t in templates if all(words[word] for word in re.findall(r"{(.*?)}", t))]


def text_lines(path: Path) -> list[str]:
    """Lines of a text file that are not empty."""
    lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    return [line.strip() for line in lines if line.strip()]


def caption_table(path: Path) -> dict[str, list[str]]:
    """Captions by picture."""
    rows = [row for row in csv.reader(path.read_text(encoding="utf-8-sig").splitlines()) if row]
    if len(rows) < 2 or len(rows[0]) < 2:
        raise ValueError(f"{path} must have a head, a first column of file names and a column of captions")
    found: dict[str, list[str]] = {}
    for name, *captions in rows[1:]:
        found.setdefault(name.strip(), []).extend(caption.strip() for caption in captions if caption.strip())
    return found


def classes_by_sharing(captions: Sequence[Sequence[str]]) -> Tensor:
    """Classes of pictures: those that share a caption, directly or through others, are of one class."""
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
