"""Images with key patches: a split, and its training stream.

Boxes are found on the image as training sees it, mirrored or cropped, so that patches and mask always fit the image.
Which of an image's boxes become patches is a function of (seed, epoch, image).

Order of training: with each image comes another training image, the one half an epoch later in the same order. So the
other image is never the image itself, is not in a batch of at most half of the images, and comes once per epoch.
NOTE(paper): the authors draw it at random from all images outside the batch, and mirror whole batches at once.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.datamodules.base.draws import uniform_by_index
from zoo.datamodules.base.image_set import Batch, ImageSet, scaled
from zoo.datamodules.base.stream import TrainingStream
from zoo.engine.rng import key

__all__ = ["PatchSampler", "PatchSet", "PatchStream", "crops", "masks"]

PatchSampler = Callable[[Tensor], Tensor]
"""Boxes (n, 4) int64 of an image (C, H, W) in [-1, 1], best first: top, left, and the ends of both, not included.

A pure function of the image. If it has a method `batch`, from images (N, C, H, W) to boxes (N, n, 4), that is called.
"""


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
        proposals: number of best boxes to draw the patches from in training; `num_patches` takes the best ones.
    """

    def __init__(self, source: ImageSet, sampler: PatchSampler, num_patches: int, proposals: int) -> None:
        super().__init__([])
        self.source, self.sampler, self.num_patches, self.proposals = source, sampler, num_patches, proposals

    def __len__(self) -> int:
        return len(self.source)

    def images(self, index: Tensor) -> Tensor:
        """Images of this split as uint8."""
        return self.source.images(index)

    def levels(
        self, index: Tensor, *, seed: int = 0, epoch: int = 0, augment: bool = False, numbers: Tensor | None = None
    ) -> Batch:
        """A batch of this split; arguments as in `ImageSet`; seed, epoch and number draw the patches, too."""
        batch = self.source.served(index, seed=seed, epoch=epoch, augment=augment, numbers=numbers)
        if "image" not in batch:
            raise ValueError(f"patches are cut from `image`, but batches hold {', '.join(batch)}")
        image = scaled(batch)["image"]
        boxes = self._boxes(image)
        if augment and self.proposals > self.num_patches:
            draws = uniform_by_index(index if numbers is None else numbers, self.proposals, key(seed, "patches", epoch))
            chosen = draws.argsort(1)[:, : self.num_patches, None].expand(-1, -1, 4)
            boxes = boxes[:, : self.proposals].gather(1, chosen)
        boxes = boxes[:, : self.num_patches]
        new = {"patches": crops(image, boxes, image.size(3)), "boxes": boxes, "mask": masks(boxes, *image.shape[2:])}
        return batch | new

    def _boxes(self, image: Tensor) -> Tensor:
        """The sampler's boxes (N, proposals, 4), checked."""
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


class PatchStream(TrainingStream):
    """The training stream of images with patches; batches also hold another image for each, `other`.

    Args:
        images: the training split.
        seed: seed of the order, of augmentation and of the patches.
    """

    def __init__(self, images: PatchSet, seed: int) -> None:
        super().__init__(images, seed)
        self.source = images.source

    def levels(self, positions: range) -> Batch:
        """The batch at positions of the run, with other images."""
        size = len(self.images)
        parts, position = [], torch.arange(positions.start, positions.stop)
        for epoch in range(positions.start // size, (positions.stop - 1) // size + 1):
            offset = position[position // size == epoch] % size
            index = self.permutation(epoch)[(offset + size // 2) % size]
            other = self.source.served(index, seed=key(self.seed, "other"), epoch=epoch, augment=True)
            parts.append(other["image"])
        return {**super().levels(positions), "other": torch.cat(parts)}
