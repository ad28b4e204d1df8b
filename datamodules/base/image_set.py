"""A split of a data set: images as arrays, with their labels and their augmentation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from zoo.engine.images import from_levels

__all__ = ["Batch", "ImageSet", "on_levels", "scaled"]

Batch = dict[str, Any]
"""Fields by name: tensors and lists of strings with one entry per image."""

IMAGES = ("image", "image_a", "image_b", "other")
"""Fields that are images."""

_Augment = TypeVar("_Augment", bound=Callable[..., Tensor])
_ON_LEVELS: set[Callable[..., Tensor]] = set()


def on_levels(augment: _Augment) -> _Augment:
    """Marks an augmentation that takes uint8 and gives uint8; others get images in [-1, 1]."""
    _ON_LEVELS.add(augment)
    return augment


def scaled(batch: Batch) -> Batch:
    """A batch with its images of 8 bits as float32 in [-1, 1]."""
    return {name: _scaled(name, value) for name, value in batch.items()}


def _scaled(name: str, value: Any) -> Any:
    if isinstance(value, dict):
        return scaled(value)
    return from_levels(value) if name in IMAGES and isinstance(value, Tensor) and value.dtype == torch.uint8 else value


@dataclass
class ImageSet:
    """The images of a split as uint8 arrays, and their labels.

    Attributes:
        arrays: arrays (n, C, H, W) uint8, in memory or mapped from files; rows count through all of them.
        fields: further fields of a batch: a tensor or a list per name, with one entry per row.
        rows: numbers of the rows that make up the split; None takes all.
        augment: changes a batch of images in [-1, 1], or of 8 bits if it is marked with `on_levels`:
            `augment(image, seed, epoch, index)`, a pure function.
        always: the augmentation is part of the data: evaluation applies it too, drawn once (seed 0, epoch 0).
    """

    arrays: Sequence[np.ndarray[Any, Any]]
    fields: dict[str, Tensor | list[str]] = field(default_factory=dict)
    rows: Tensor | None = None
    augment: Callable[[Tensor, int, int, Tensor], Tensor] | None = None
    always: bool = False

    def __post_init__(self) -> None:
        self._starts = np.cumsum([0, *(len(array) for array in self.arrays)])
        # Plain views: indexing a numpy.memmap makes another memmap each time, which takes longer than the copy.
        self._views = [np.asarray(array) for array in self.arrays]

    def __getstate__(self) -> dict[str, Any]:
        # Mapped files go to other processes by name; numpy would copy their contents.
        arrays = [getattr(array, "filename", array) for array in self.arrays]
        return {name: value for name, value in self.__dict__.items() if name != "_views"} | {"arrays": arrays}

    def __setstate__(self, state: dict[str, Any]) -> None:
        arrays = [a if isinstance(a, np.ndarray) else np.load(a, mmap_mode="r") for a in state["arrays"]]
        self.__dict__.update(state, arrays=arrays)
        self.__post_init__()

    def __len__(self) -> int:
        return int(self._starts[-1]) if self.rows is None else len(self.rows)

    def tensor(self, name: str) -> Tensor:
        """A field that is a tensor, for all rows.

        Args:
            name: name of the field.
        """
        values = self.fields[name]
        assert isinstance(values, Tensor), f"{name} is a list"
        return values

    def images(self, index: Tensor) -> Tensor:
        """The images themselves, as uint8.

        Shape:
            index: (n,); output: (n, C, H, W).
        """
        rows = (index if self.rows is None else self.rows[index]).numpy()
        if len(self._views) == 1:
            return torch.from_numpy(self._views[0][rows])
        out = np.empty((len(rows), *self._views[0].shape[1:]), np.uint8)
        sources = np.searchsorted(self._starts, rows, "right") - 1
        for k, (source, row) in enumerate(zip(sources.tolist(), (rows - self._starts[sources]).tolist(), strict=True)):
            out[k] = self._views[source][row]
        return torch.from_numpy(out)

    def batch(
        self, index: Tensor, *, seed: int = 0, epoch: int = 0, augment: bool = False, numbers: Tensor | None = None
    ) -> Batch:
        """A batch of this split.

        Args:
            index: numbers of the images within the split.
            seed: seed of the augmentation.
            epoch: how many times the split has been seen before.
            augment: apply the augmentation; one that is part of the data (`always`) is applied in any case.
            numbers: numbers that key the draws of the augmentation; None takes `index`.

        Shape:
            index: (n,); image: (n, C, H, W) float32 in [-1, 1].
        """
        return scaled(self.levels(index, seed=seed, epoch=epoch, augment=augment, numbers=numbers))

    @property
    def served(self) -> Callable[..., Batch]:
        """What streams serve: `levels`, or the own `batch` of a class that overrides it."""
        return self.levels if type(self).batch is ImageSet.batch else self.batch

    def levels(
        self, index: Tensor, *, seed: int = 0, epoch: int = 0, augment: bool = False, numbers: Tensor | None = None
    ) -> Batch:
        """The same batch with its images as uint8, unless the augmentation makes other values; arguments as there."""
        image = self.images(index)
        if self.augment is not None and (augment or self.always):
            if getattr(self.augment, "func", self.augment) not in _ON_LEVELS:
                image = from_levels(image)
            image = self.augment(image, seed, epoch, index if numbers is None else numbers)
        rows = index if self.rows is None else self.rows[index]
        batch: Batch = {"image": image}
        for name, values in self.fields.items():
            batch[name] = values[rows] if isinstance(values, Tensor) else [values[i] for i in rows.tolist()]
        return batch
