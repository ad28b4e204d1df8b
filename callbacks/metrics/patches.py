"""Images made from patches: accuracy of their masks, and distance of the patches from the images."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

__all__ = ["MaskIoU", "NearestPatch"]


class MaskIoU(Metric):
    """Intersection over union of predicted and true masks, the mean over the images; float64, added over ranks.

    Args:
        threshold: a pixel of a predicted mask lies inside if its value is above the threshold.
        kwargs: arguments of `torchmetrics.Metric`.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self, threshold: float = 0.5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.threshold = threshold
        for name in ("total", "count"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, found: Tensor, true: Tensor) -> None:
        """Add predicted masks and the true ones.

        Shape:
            found: (N, 1, H, W) in [0, 1]; true: as found, 0 or 1.
        """
        inside, part = (found > self.threshold).flatten(1), (true > 0.5).flatten(1)
        either = (inside | part).sum(1)
        # Two empty masks agree.
        shares = torch.where(either > 0, (inside & part).sum(1).double() / either.clamp(min=1), 1.0)
        self.total += shares.sum()
        self.count += len(found)

    def compute(self) -> Tensor:
        """The mean, from 0 to 1."""
        return self.total / self.count


class NearestPatch(Metric):
    """Distance of a patch from the most similar place of an image: mean absolute difference of values in [0, 1].

    A patch is compared at its own size with every place of the image, and the smallest difference counts: a model may
    put a patch anywhere. The mean is over all patches; float64, added over ranks.
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for name in ("total", "count"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, found: Tensor, source: Tensor, boxes: Tensor) -> None:
        """Add images, and the images that the patches were cut from.

        Shape:
            found, source: (N, C, H, W) in [-1, 1]; boxes: (N, P, 4) int64: top, left, bottom, right in `source`.
        """
        found, source = (found.float() + 1) / 2, (source.float() + 1) / 2
        for image, whole, places in zip(found, source, boxes.tolist(), strict=True):
            for top, left, bottom, right in places:
                patch = whole[:, top:bottom, left:right]
                windows = image.unfold(1, bottom - top, 1).unfold(2, right - left, 1)  # (C, rows, columns, h, w)
                windows = windows.permute(1, 2, 0, 3, 4).flatten(2).flatten(0, 1)
                least = torch.cdist(windows, patch.reshape(1, -1), p=1).min()
                self.total += least.double() / patch.numel()
                self.count += 1

    def compute(self) -> Tensor:
        """The mean, from 0 to 1."""
        return self.total / self.count
