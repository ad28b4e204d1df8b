"""Another data set's images with key patches, for models that make a whole image from patches without their places."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any, Unpack

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo import datamodules
from zoo.datamodules.base.image_set import ImageSet
from zoo.datamodules.base.module import ImageDataModule, ReadingOptions
from zoo.datamodules.base.patch_set import PatchSet, PatchStream
from zoo.datamodules.base.stream import TrainingStream
from zoo.engine.files import nearest

__all__ = ["EdgeDensity", "Patches"]


@dataclass(frozen=True)
class EdgeDensity:
    """The boxes of an image that contain many edges for their size and cut few: boxes around objects.

    score(box) = (edges inside - crossing * edges on its frame) / (2 (height + width))^exponent

    NOTE(paper): the authors take the best proposals of Edge Boxes, which follows contours; this score takes only the
    size of gradients, and needs no trained edge detector.

    Args:
        num_boxes: boxes per image.
        sides: heights and widths of the boxes, as shares of the image's side.
        overlap: largest intersection over union of two boxes of an image; if too few boxes remain, the best others.
        crossing: weight of the edges on the frame of a box, one pixel wide.
        exponent: exponent of the perimeter.

    Raises:
        ValueError: a number is out of range.

    References:
        Zitnick and Dollar 2014, "Edge Boxes: Locating Object Proposals from Edges", section 3.2, for the form.
    """

    num_boxes: int = 8
    sides: tuple[float, ...] = (0.25, 0.375, 0.5)
    overlap: float = 0.2
    crossing: float = 2.0
    exponent: float = 1.5

    def __post_init__(self) -> None:
        if self.num_boxes < 1:
            raise ValueError(f"num_boxes must be at least 1, not {self.num_boxes}")
        if not self.sides or not all(0 < side <= 1 for side in self.sides):
            raise ValueError(f"sides must be shares of the image's side, above 0 and at most 1; got {self.sides}")
        object.__setattr__(self, "sides", tuple(self.sides))  # lists, as files give them, have no hash

    @property
    def name(self) -> str:
        """The settings that differ from the defaults, for protocols."""
        changed = [f for f in fields(self) if f.name != "num_boxes" and getattr(self, f.name) != f.default]
        return "+".join(f"{f.name}={getattr(self, f.name)}".replace(", ", "/") for f in changed)

    def __call__(self, image: Tensor) -> Tensor:
        """Boxes of one image.

        Shape:
            image: (C, H, W); output: (num_boxes, 4) int64.
        """
        return self.batch(image[None])[0]

    def batch(self, images: Tensor) -> Tensor:
        """Boxes of several images; those of an image do not depend on the others.

        Shape:
            images: (N, C, H, W); output: (N, num_boxes, 4) int64.
        """
        boxes, overlaps = candidates(self.sides, self.overlap, *images.shape[2:])
        if len(boxes) < self.num_boxes:
            raise ValueError(f"images of {tuple(images.shape[2:])} have {len(boxes)} boxes, not {self.num_boxes}")
        score = self._score(images, boxes)
        found = []
        for _ in range(self.num_boxes):
            best = score.argmax(1)
            found.append(best)
            score -= 1e9 * overlaps[best]
            score.scatter_(1, best[:, None], -torch.inf)
        return boxes[torch.stack(found, 1)]

    def _score(self, images: Tensor, boxes: Tensor) -> Tensor:
        """(N, K) scores of boxes (K, 4)."""
        x = images.double()
        down, across = x.diff(dim=2), x.diff(dim=3)
        edges = F.pad(down, (0, 0, 0, 1)).square().sum(1) + F.pad(across, (0, 1)).square().sum(1)
        # The sum over any box from four numbers.
        table = F.pad(edges.sqrt().cumsum(1).cumsum(2), (1, 0, 1, 0)).flatten(1)
        width = images.size(3) + 1

        def total(inset: int) -> Tensor:
            top, left, bottom, right = (boxes + torch.tensor([inset, inset, -inset, -inset])).unbind(1)
            corners = [table[:, y * width + z] for y, z in ((bottom, right), (top, left), (bottom, left), (top, right))]
            return corners[0] + corners[1] - corners[2] - corners[3]

        inside, frame = total(1), total(0) - total(1)
        height_and_width = (boxes[:, 2:] - boxes[:, :2]).sum(1).double()
        return (inside - self.crossing * frame) / (2 * height_and_width).pow(self.exponent)


@lru_cache(8)
def candidates(sides: tuple[float, ...], overlap: float, height: int, width: int) -> tuple[Tensor, Tensor]:
    """All boxes with given sides on a grid of 1/16 of the image, at least three pixels wide, and which ones overlap.

    Shape:
        Output: (K, 4) int64; (K, K) float64, 1 for boxes whose intersection over union is larger than `overlap`.
    """

    def spans(length: int) -> list[tuple[int, int]]:
        lengths = sorted({min(length, max(3, round(side * length))) for side in sides})
        return [(start, start + n) for n in lengths for start in range(0, length - n + 1, max(1, length // 16))]

    boxes = torch.tensor([(y[0], z[0], y[1], z[1]) for y in spans(height) for z in spans(width)])
    # Boxes more than twice as long as wide are no patches.
    sizes = boxes[:, 2:] - boxes[:, :2]
    boxes = boxes[sizes.amax(1) <= 2 * sizes.amin(1)]
    starts, ends = boxes[:, None, :2].maximum(boxes[:, :2]), boxes[:, None, 2:].minimum(boxes[:, 2:])
    both = (ends - starts).clamp(min=0).prod(2).double()
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1).double()
    return boxes, (both / (area[:, None] + area - both) > overlap).double()


class Patches(ImageDataModule):
    """The images of another DataModule, with patches of each image.

    Batches hold the fields of the other DataModule, and

    - `patches` (N, P, C, S, S), each resized to the size of an image;
    - `boxes` (N, P, 4) int64, the places of the patches: top, left and the ends of both;
    - `mask` (N, 1, S, S), 1 inside the boxes;
    - in training `other` (N, C, S, S), another training image for each.

    Args:
        data_dir: folder of the data set; None where the package carries the data.
        source: the other DataModule: its name in `zoo.datamodules`, or an object.
        source_arguments: further arguments of a DataModule given by name, such as {"flip": true}.
        num_patches: patches per image.
        proposals: number of best boxes to draw the patches of a training image from, anew in each epoch; None takes the
            best `num_patches`. Evaluation always takes the best.
        patch_sampler: function of an image that returns boxes (n, 4), best first; None is `EdgeDensity`.
        cache_dir: folder for rendered or decoded images; None is that of `source`.
        image_size: side of the images; None is 64, or that of `source`.
        batch_size: images per batch and device.

    Raises:
        ValueError: an unknown source, options that belong to a given object, or too few proposals.

    References:
        Lee et al. 2017, arXiv 1703.10730, for the definition of key patches.
    """

    def __init__(
        self,
        data_dir: str | os.PathLike[str] | None = None,
        *,
        source: str | ImageDataModule = "Emoji",
        source_arguments: dict[str, Any] | None = None,
        num_patches: int = 3,
        proposals: int | None = None,
        patch_sampler: Callable[..., Any] | None = None,  # for jsonargparse, Callable[..., Tensor] is a factory
        cache_dir: str | os.PathLike[str] | None = None,
        image_size: int | None = None,
        batch_size: int = 64,
        **options: Unpack[ReadingOptions],
    ) -> None:
        given = {"data_dir": data_dir, "cache_dir": cache_dir, "image_size": image_size}
        given = {name: value for name, value in given.items() if value is not None}
        if isinstance(source, ImageDataModule):
            if unused := [*given, *(["source_arguments"] if source_arguments else [])]:
                raise ValueError(f"source is a DataModule already: give {unused[0]} to it, not to Patches")
            images = source
        else:
            images = _named(source, {"image_size": 64} | given | (source_arguments or {}))
        super().__init__(
            images.data_dir,
            cache_dir=images.cache_dir,
            image_size=images.image_size,
            batch_size=batch_size,
            **options,
        )
        self.num_patches = num_patches
        self.proposals = num_patches if proposals is None else proposals
        if self.proposals < num_patches:
            raise ValueError(f"proposals must be at least num_patches {num_patches}, not {proposals}")
        self.images = images
        # No more boxes than needed: the time grows with their number.
        self.patch_sampler = EdgeDensity(self.proposals) if patch_sampler is None else patch_sampler
        self.license = images.license
        self.image_channels = images.image_channels
        self.class_names = images.class_names
        found = getattr(self.patch_sampler, "name", None)
        kind = getattr(self.patch_sampler, "__name__", type(self.patch_sampler).__name__) if found is None else found
        self.name = f"{images.name}-patches{num_patches}" + (f"-{kind}" if kind else "")

    def prepare_data(self) -> None:
        """Render, fetch or decode the images that the cache lacks."""
        self.images.prepare_data()

    def open(self) -> dict[str, ImageSet]:
        """The splits of the source, with patches."""
        splits = self.images.open()
        self.class_names = self.images.class_names
        sets = {n: PatchSet(s, self.patch_sampler, self.num_patches, self.proposals) for n, s in splits.items()}
        return {**sets}

    def stream(self) -> TrainingStream:
        """The training stream for the run's seed."""
        images = self.split("train")
        assert isinstance(images, PatchSet)
        return PatchStream(images, self.run_seed)


def _named(name: str, arguments: dict[str, Any]) -> ImageDataModule:
    """A DataModule of this package by its name."""
    known = [other for other in datamodules.__all__ if other != "Patches"]
    if name not in known:
        raise ValueError(f"there is no DataModule {name!r}: {nearest(name, known)}")
    module: ImageDataModule = getattr(datamodules, name)(**arguments)
    return module
