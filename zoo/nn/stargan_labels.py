"""The labels that StarGAN translates between, and the domain vectors that name a domain to its networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate, chain
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.engine.tracing import is_traced

__all__ = ["LabelSets"]

# Asked for one of these, an image loses the others.
EXCLUSIVE = ("Black_Hair", "Blond_Hair", "Brown_Hair", "Gray_Hair")


class LabelSets:
    """Attributes, each on or off, and sets of categories, each with one category per image.

    A domain vector holds a number for each label: 0 or 1 for an attribute, one-hot within a set of categories. With
    `joint` an image has the labels of one set only; its other labels are 0, and the mask vector follows, one-hot in the
    set (section 3.2 of the paper).

    Args:
        attributes: names of labels that are each on or off; together they are the first label set.
        categories: sets of names, each a label set.
        joint: an image has the labels of one set only.

    Attributes:
        names: all labels, in the order of a domain vector.
        num_attributes: how many of them are attributes.
        num_features: length of a domain vector.

    Raises:
        ValueError: no labels, a name given twice, or a single set with `joint`.
    """

    def __init__(self, attributes: Sequence[str], categories: Sequence[Sequence[str]], joint: bool = False) -> None:
        self.sets = [list(names) for names in ([attributes] if attributes else []) + list(categories)]
        self.categorical = [bool(i) or not attributes for i in range(len(self.sets))]
        self.names = list(chain(*self.sets))
        if twice := sorted({name for name in self.names if self.names.count(name) > 1}):
            raise ValueError(f"the label {twice[0]!r} is given twice: each needs a name of its own")
        if not self.names or not all(self.sets):
            raise ValueError("StarGAN needs labels: give attributes, categories or both")
        if joint and len(self.sets) < 2:
            raise ValueError("joint training needs two label sets: attributes and categories, or categories twice")
        self.sizes = [len(names) for names in self.sets]
        self.spans = [slice(end - size, end) for size, end in zip(self.sizes, accumulate(self.sizes), strict=True)]
        self.joint, self.num_attributes = joint, len(attributes)
        self.num_features = len(self.names) + (len(self.sets) if joint else 0)

    def domain(self, batch: dict[str, Any]) -> Tensor:
        """Domain vectors of a batch.

        Shape:
            Output: (N, num_features).

        Raises:
            ValueError: the batch has other labels.
        """
        labels: Tensor | None = batch.get("attributes")
        if labels is None and self.categorical == [True] and "label" in batch:
            labels = F.one_hot(batch["label"], len(self.names))
        if labels is None or labels.shape[1] != len(self.names):
            found = "none" if labels is None else f"{labels.shape[1]} of them"
            raise ValueError(f"batches must hold `attributes` for {', '.join(self.names)}; there are {found}")
        labels = labels.to(batch["image"].dtype)
        if not self.joint:
            return labels
        if "label_set" not in batch:
            raise ValueError("joint training needs `label_set` in each batch: the number of each image's label set")
        mask = F.one_hot(batch["label_set"], len(self.sets)).to(labels.dtype)
        known = [mask[:, i : i + 1].expand(-1, size) for i, size in enumerate(self.sizes)]
        return torch.cat([labels * torch.cat(known, 1), mask], 1)

    def label_values(self, batch: dict[str, Any]) -> range | None:
        """The classes that `label` holds, if there is one set of them and no `attributes`."""
        return range(len(self.names)) if self.categorical == [True] and "attributes" not in batch else None

    def targets(self, domain: Tensor) -> dict[str, Tensor]:
        """For each label, the domain vectors that images are given to have this label changed.

        A category replaces that of its set, an attribute is turned over, a color of hair replaces the others.

        Shape:
            domain: (N, num_features); outputs as well.
        """
        targets = {}
        hair = [i for i, name in enumerate(self.names) if name in EXCLUSIVE]
        for i, (names, span) in enumerate(zip(self.sets, self.spans, strict=True)):
            for column, name in enumerate(names, span.start):
                target = torch.zeros_like(domain) if self.joint else domain.clone()
                target[:, span] = domain[:, span]
                if self.joint:
                    target[:, len(self.names) + i] = 1
                turned = not self.categorical[i] and column not in hair
                if not turned:
                    target[:, span if self.categorical[i] else hair] = 0
                target[:, column] = 1 - target[:, column] if turned else 1
                targets[name] = target
        return targets

    def changed(self, domain: Tensor, number: Tensor) -> Tensor:
        """Domain vectors with one label changed in each, see `targets`.

        Shape:
            domain: (N, num_features) or (1, num_features); number: (N,) int64, which label; output: (N, num_features).
        """
        choices = torch.stack([*self.targets(domain.expand(number.size(0), -1)).values()], 1)
        return choices[torch.arange(number.size(0), device=number.device), number]

    def first_change(self, domain: Tensor) -> Tensor:
        """Domain vectors with the first label changed that makes a difference in each.

        Shape:
            Input and output: (N, num_features).
        """
        changed = domain
        for target in reversed(self.targets(domain).values()):
            changed = torch.where((target != domain).any(1, keepdim=True), target, changed)
        return changed

    def requested(self, x: Tensor, target: str | int | Tensor, source: Callable[[], Tensor]) -> Tensor:
        """Domain vectors of the targets of images.

        Args:
            x: the images.
            target: name or number of a label; or int64 numbers, one per image; or domain vectors.
            source: gives the images' own domain vectors; asked only if something of them is left.

        Shape:
            x: (N, C, H, W); target: (N,) or (N, num_features); output: (N, num_features).

        Raises:
            ValueError: there is no such label.
        """
        if isinstance(target, Tensor) and target.is_floating_point():
            if target.shape[-1] != self.num_features:
                raise ValueError(f"a domain vector has {self.num_features} numbers, not {target.shape[-1]}")
            return target.to(x.device, x.dtype).expand(x.size(0), -1)
        if isinstance(target, str):
            if target not in self.names:
                raise ValueError(f"there is no label {target!r}: take one of {', '.join(self.names)}")
            target = self.names.index(target)
        number = torch.as_tensor(target, device=x.device).expand(x.size(0))
        known = not (is_traced() and isinstance(target, Tensor))  # what a graph is given later is not known now
        if known and x.size(0) and not 0 <= int(number.min()) <= int(number.max()) < len(self.names):
            raise ValueError(f"labels must lie in 0..{len(self.names) - 1} ({', '.join(self.names)})")
        # A category replaces its whole set, and with `joint` the mask hides the other sets.
        alone = self.categorical == [True] or (self.joint and known and bool((number >= self.num_attributes).all()))
        return self.changed(x.new_zeros(1, self.num_features) if alone else source(), number)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Probabilities of all labels: of each attribute, and within each set of categories.

        Shape:
            Input and output: (N, number of labels).
        """
        parts = zip(logits.split(self.sizes, 1), self.categorical, strict=True)
        return torch.cat([part.softmax(1) if categorical else part.sigmoid() for part, categorical in parts], 1)

    def likeliest(self, probabilities: Tensor) -> Tensor:
        """Labels that images are taken to have: attributes above one half, the likeliest category of each set.

        Shape:
            Input and output: (N, number of labels), as booleans.
        """
        parts = zip(probabilities.split(self.sizes, 1), self.categorical, strict=True)
        return torch.cat([p == p.amax(1, keepdim=True) if categorical else p > 0.5 for p, categorical in parts], 1)

    def cross_entropy(self, logits: Tensor, domain: Tensor) -> Tensor:
        """Cross entropy of the labels in nats: attributes summed, categories by softmax, mean over all images.

        With `joint` the label sets that an image does not have count nothing.

        Shape:
            logits: (N, number of labels); domain: (N, num_features); output: scalar.
        """
        loss = logits.new_zeros(len(logits))
        for i, span in enumerate(self.spans):
            found, true = logits[:, span], domain[:, span]
            if self.categorical[i]:
                part = F.cross_entropy(found, true.argmax(1), reduction="none")
            else:
                part = F.binary_cross_entropy_with_logits(found, true, reduction="none").sum(1)
            loss = loss + (part * domain[:, len(self.names) + i] if self.joint else part)
        return loss.mean()

    def within_sets(self, order: Tensor, domain: Tensor) -> Tensor:
        """An order of images, changed so that each image takes the place of one with the same label set.

        Shape:
            order: (N,) int64, a permutation; domain: (N, num_features); output: (N,) int64.
        """
        if not self.joint:
            return order
        number = domain[:, len(self.names) :].argmax(1)
        place = number.argsort(stable=True)  # images, set after set
        drawn = order[number[order].argsort(stable=True)]  # as many of each set, in the drawn order
        return torch.empty_like(order).index_copy_(0, place, drawn)
