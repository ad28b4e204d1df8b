"""Images made from patches: accuracy of their masks, and distance of the patches from the images."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from zoo.callbacks.metrics.means import Averaged

__all__ = ["MaskIoU", "NearestPatch"]


class MaskIoU(Averaged):
    """Intersection over union of predicted and true masks, from 0 to 1, the mean over the images.

    Args:
        threshold: a pixel of a predicted mask lies inside if its value is above the threshold.
        kwargs: arguments of `torchmetrics.Metric`.
    """

    higher_is_better = True

    def __init__(self, threshold: float = 0.5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.threshold = threshold

    def update(self, found: Tensor, true: Tensor) -> None:
        """Add predicted masks and the true ones.

        Shape:
            found: (N, 1, H, W) in [0, 1]; true: as found, 0 or 1.
        """
        inside, part = (found > self.threshold).flatten(1), (true > 0.5).flatten(1)
        either = (inside | part).sum(1)
        # Two empty masks agree.
        self.add(torch.where(either > 0, (inside & part).sum(1).double() / either.clamp(min=1), 1.0))


class NearestPatch(Averaged):
    """Distance of a patch from the most similar place of an image: mean absolute difference of values in [0, 1].

    A patch is compared at its own size with every place of the image, and the smallest difference counts: a model may
    put a patch anywhere. The mean is over the images, of the means over their patches.
    """

    higher_is_better = False

    def update(self, found: Tensor, source: Tensor, boxes: Tensor) -> None:
        """Add images, and the images that the patches were cut from.

        Shape:
            found, source: (N, C, H, W) in [-1, 1]; boxes: (N, P, 4) int64: top, left, bottom, right in `source`.
        """
        found, source = (found.float() + 1) / 2, (source.float() + 1) / 2
        for image, whole, places in zip(found, source, boxes.tolist(), strict=True):
            distances = []
            for top, left, bottom, right in places:
                patch = whole[:, top:bottom, left:right]
                windows = image.unfold(1, bottom - top, 1).unfold(2, right - left, 1)  # (C, rows, columns, h, w)
                windows = windows.permute(1, 2, 0, 3, 4).flatten(2).flatten(0, 1)
                least = torch.cdist(windows, patch.reshape(1, -1), p=1).min()
                distances.append(least.double() / patch.numel())
            self.add(torch.stack(distances).mean()[None])
