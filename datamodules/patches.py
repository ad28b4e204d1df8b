"""Key patches of images without their places, for models that make a whole image of them.

Boxes are found on the image as training sees it, mirrored or cropped as it may be, so that patches and mask always fit
it. Which of an image's boxes are taken is a function of (seed, epoch, image).

The training order. Beside each image stands another one of the training images, the one that comes half an epoch later
in the same order: never the image itself, never one of a batch of at most half of them, each once per epoch.
NOTE(paper): the authors draw it at random from all images outside the batch, and mirror whole batches at once.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo import datamodules
from zoo.datamodules.base import ImageDataModule, ImageSet, nearest
from zoo.datamodules.pictures import uniform
from zoo.datamodules.stream import Batch, Stream, key

__all__ = ["EdgeDensity", "PatchSampler", "PatchSet", "PatchStream", "Patches", "crops", "masks"]

PatchSampler = Callable[[Tensor], Tensor]
"""Boxes (n, 4) int64 of an image (C, H, W) in [-1, 1], best first: top, left, and the ends of both, not included.

A function of the image alone. One with a method `batch`, of images (N, C, H, W) to boxes (N, n, 4), is asked so.
"""


@dataclass(frozen=True)
class EdgeDensity:
    """The boxes of an image that hold most edges for their size and cut fewest: what an object would be in.

    score(box) = (edges inside - crossing * edges on its frame) / (2 (height + width))^exponent

    NOTE(paper): the authors take the best proposals of Edge Boxes, which follows contours; this looks at the size of
    gradients alone, and needs no trained edge detector.

    Args:
        num_boxes: boxes per image.
        sides: heights and widths of the boxes, as shares of the image's side.
        overlap: largest intersection over union of two boxes of an image; where too few are left, the best of the rest.
        crossing: how much edges on the frame, one pixel wide, count against a box.
        exponent: of the perimeter.

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
        """What is not as usual, for protocols; nothing for the usual."""
        changed = [f for f in fields(self) if f.name != "num_boxes" and getattr(self, f.name) != f.default]
        return "+".join(f"{f.name}={getattr(self, f.name)}".replace(", ", "/") for f in changed)

    def __call__(self, image: Tensor) -> Tensor:
        """Boxes of one image.

        Shape:
            image: (C, H, W); output: (num_boxes, 4) int64.
        """
        return self.batch(image[None])[0]

    def batch(self, images: Tensor) -> Tensor:
        """Boxes of several images, each as it would be alone.

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
    """All boxes of some sides on a grid of a sixteenth of the image, at least three pixels wide, and which overlap.

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


def crops(images: Tensor, boxes: Tensor, size: int) -> Tensor:
    """The contents of boxes, each resized to a square: bicubic, antialiased, cut off at -1 and 1.

    Args:
        images: images.
        boxes: boxes of each image.
        size: side of the squares.

    Shape:
        images: (N, C, H, W); boxes: (N, P, 4); output: (N, P, C, size, size).
    """
    out = images.new_empty(*boxes.shape[:2], images.size(1), size, size)
    top, left, bottom, right = boxes.unbind(2)
    shapes = torch.stack([bottom - top, right - left], 2)
    for height, width in shapes.flatten(0, 1).unique(dim=0).tolist():  # boxes of one shape at once
        image, patch = (shapes == torch.tensor([height, width])).all(2).nonzero(as_tuple=True)
        rows = top[image, patch, None] + torch.arange(height)
        columns = left[image, patch, None] + torch.arange(width)
        cut = images[image[:, None, None], :, rows[:, :, None], columns[:, None]]  # (M, height, width, C)
        cut = cut.permute(0, 3, 1, 2).contiguous()
        out[image, patch] = F.interpolate(cut, (size, size), mode="bicubic", antialias=True).clamp(-1, 1)
    return out


def masks(boxes: Tensor, height: int, width: int) -> Tensor:
    """1 inside any of an image's boxes, else 0.

    Shape:
        boxes: (N, P, 4); output: (N, 1, height, width) float32.
    """
    top, left, bottom, right = boxes[..., None].unbind(2)  # (N, P, 1)
    rows, columns = torch.arange(height), torch.arange(width)
    down, across = (rows >= top) & (rows < bottom), (columns >= left) & (columns < right)
    return (down[..., :, None] & across[..., None, :]).any(1, keepdim=True).float()


class PatchSet(ImageSet):
    """A split whose batches also hold patches, their boxes and the mask.

    Args:
        source: the images.
        sampler: gives the boxes of an image.
        num_patches: patches per image.
        proposals: boxes of which the patches are drawn in training; as many as `num_patches` take the best.
    """

    def __init__(self, source: ImageSet, sampler: PatchSampler, num_patches: int, proposals: int) -> None:
        super().__init__([])
        self.source, self.sampler, self.num_patches, self.proposals = source, sampler, num_patches, proposals

    def __len__(self) -> int:
        return len(self.source)

    def images(self, index: Tensor) -> Tensor:
        """Images of this split as uint8."""
        return self.source.images(index)

    def batch(
        self, index: Tensor, *, seed: int = 0, epoch: int = 0, augment: bool = False, numbers: Tensor | None = None
    ) -> Batch:
        """A batch of this split; arguments as for `ImageSet`, which draw the patches too."""
        batch = self.source.batch(index, seed=seed, epoch=epoch, augment=augment, numbers=numbers)
        if "image" not in batch:
            raise ValueError(f"patches are cut from `image`, but batches hold {', '.join(batch)}")
        image = batch["image"]
        boxes = self._boxes(image)
        if augment and self.proposals > self.num_patches:
            draws = uniform(index if numbers is None else numbers, self.proposals, key(seed, "patches", epoch))
            chosen = draws.argsort(1)[:, : self.num_patches, None].expand(-1, -1, 4)
            boxes = boxes[:, : self.proposals].gather(1, chosen)
        boxes = boxes[:, : self.num_patches]
        new = {"patches": crops(image, boxes, image.size(3)), "boxes": boxes, "mask": masks(boxes, *image.shape[2:])}
        return batch | new

    def _boxes(self, image: Tensor) -> Tensor:
        """(N, proposals or more, 4) boxes by the sampler, checked."""
        whole: Callable[[Tensor], Tensor] | None = getattr(self.sampler, "batch", None)
        found = [*whole(image)] if whole is not None and len(image) else [self.sampler(x) for x in image]
        end = torch.tensor([image.size(2), image.size(3)])
        for boxes in found:
            if boxes.dim() != 2 or boxes.size(1) != 4 or boxes.is_floating_point():
                raise ValueError(f"patch_sampler must give whole numbers (n, 4), not {boxes.dtype} {(*boxes.shape,)}")
            if len(boxes) < self.proposals:
                raise ValueError(f"patch_sampler gave {len(boxes)} boxes for an image; {self.proposals} are needed")
        none = torch.empty(0, self.proposals, 4, dtype=torch.int64)
        together = torch.stack([boxes[: self.proposals] for boxes in found]) if found else none
        if (together[..., :2] < 0).any() or (together[..., 2:] > end).any():
            raise ValueError("patch_sampler gave a box that reaches out of its image")
        if (together[..., :2] >= together[..., 2:]).any():
            raise ValueError("patch_sampler gave an empty box: top and left must lie before bottom and right")
        return together


class PatchStream(Stream):
    """The endless training stream of images with patches, each beside another image: `other`.

    Args:
        images: the training split.
        seed: seed of the order, of augmentation and of the patches.
    """

    def __init__(self, images: PatchSet, seed: int) -> None:
        super().__init__(images, seed)
        self.source = images.source

    def __getitem__(self, positions: range) -> Batch:
        size = len(self.images)
        parts, position = [], torch.arange(positions.start, positions.stop)
        for epoch in range(positions.start // size, (positions.stop - 1) // size + 1):
            offset = position[position // size == epoch] % size
            index = self.permutation(epoch)[(offset + size // 2) % size]
            other = self.source.batch(index, seed=key(self.seed, "other"), epoch=epoch, augment=True)
            parts.append(other["image"])
        return {**super().__getitem__(positions), "other": torch.cat(parts)}


class Patches(ImageDataModule):
    """Another DataModule's images, with patches of each.

    Batches hold what the other's hold, and `patches` (N, P, C, S, S), each as large as an image; `boxes` (N, P, 4)
    int64, where they are: top, left and the ends of both; `mask` (N, 1, S, S), 1 inside the boxes; in training also
    `other` (N, C, S, S), another training image for each.

    Args:
        data_dir: folder of the data set; None where its package carries it.
        source: the DataModule: its name in `datamodules`, or an object, whose images then are taken as they are.
        source_arguments: further arguments of the DataModule that is named, such as {"flip": true}.
        num_patches: patches per image.
        proposals: draw the patches of a training image from so many best boxes, anew in each epoch; None takes the
            best. Evaluation takes the best in any case.
        patch_sampler: gives boxes (n, 4) of an image, best first; None is `EdgeDensity`.
        cache_dir: folder for rendered or decoded images.
        image_size: side of the images; None is 64, or that of `source`.
        batch_size: images per batch and device.
        num_workers: loader processes per device.
        seed: seed of the training order, of augmentation and of the patches; None takes that of the run.

    Raises:
        ValueError: an unknown source, options that an object does not take, or too few proposals.

    References:
        Lee et al. 2017, arXiv 1703.10730, for what key patches are.
    """

    def __init__(
        self,
        data_dir: str | os.PathLike[str] | None = None,
        *,
        source: str | ImageDataModule = "Emoji",
        source_arguments: dict[str, Any] | None = None,
        num_patches: int = 3,
        proposals: int | None = None,
        patch_sampler: Callable[..., Any] | None = None,  # jsonargparse takes a class of results for a factory
        cache_dir: str | os.PathLike[str] | None = None,
        image_size: int | None = None,
        batch_size: int = 64,
        num_workers: int = 0,
        seed: int | None = None,
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
            num_workers=num_workers,
            seed=seed,
        )
        self.num_patches = num_patches
        self.proposals = num_patches if proposals is None else proposals
        if num_patches < 1:
            raise ValueError(f"num_patches must be at least 1, not {num_patches}")
        if self.proposals < num_patches:
            raise ValueError(f"proposals must be at least num_patches {num_patches}, not {proposals}")
        self.images = images
        # As many boxes as are wanted: each takes its time.
        self.patch_sampler = EdgeDensity(self.proposals) if patch_sampler is None else patch_sampler
        self.licence = images.licence
        self.class_names = images.class_names
        found = getattr(self.patch_sampler, "name", None)
        kind = getattr(self.patch_sampler, "__name__", type(self.patch_sampler).__name__) if found is None else found
        self.name = f"{images.name}-patches{num_patches}" + (f"-{kind}" if kind else "")

    def prepare_data(self) -> None:
        """Render, fetch or decode what is not in the cache yet."""
        self.images.prepare_data()

    def open(self) -> dict[str, ImageSet]:
        """The splits of the source, with patches."""
        splits = self.images.open()
        self.class_names = self.images.class_names
        sets = {n: PatchSet(s, self.patch_sampler, self.num_patches, self.proposals) for n, s in splits.items()}
        return {**sets}

    def stream(self) -> Stream:
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
