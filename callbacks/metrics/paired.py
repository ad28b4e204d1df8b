"""Similarity of translated images and their true pairs: L1, PSNR and SSIM."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.image import structural_similarity_index_measure as ssim

__all__ = ["PairedSimilarity"]


class PairedSimilarity(Metric):
    """Mean absolute difference, peak signal-to-noise ratio in dB and structural similarity, of values in [0, 1].

    The ratio takes the mean square over all images, so an exact image does not make it infinite. SSIM has a Gaussian
    window of 11 pixels and deviation 1.5, and is the mean over the images. Sums are float64 and added over ranks.

    References:
        Wang, Bovik, Sheikh and Simoncelli 2004, "Image quality assessment: from error visibility to structural
        similarity".
    """

    is_differentiable = False
    higher_is_better = None
    full_state_update = False
    absolute: Tensor
    square: Tensor
    similarity: Tensor
    count: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for name in ("absolute", "square", "similarity", "count"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, found: Tensor, true: Tensor) -> None:
        """Add images and their true pairs.

        Shape:
            found, true: (N, C, H, W) in [-1, 1], sides of at least 11.
        """
        if len(found) == 0:
            return
        found, true = (found.double() + 1) / 2, (true.double() + 1) / 2
        difference = (found - true).flatten(1)
        self.absolute += difference.abs().mean(1).sum()
        self.square += difference.square().mean(1).sum()
        similarity = ssim(found, true, data_range=1.0, reduction="none")
        assert isinstance(similarity, Tensor)
        self.similarity += similarity.sum()
        self.count += len(found)

    def compute(self) -> dict[str, Tensor]:
        """`l1`, `psnr` and `ssim`."""
        return {
            "l1": self.absolute / self.count,
            "psnr": -10 * torch.log10(self.square / self.count),
            "ssim": self.similarity / self.count,
        }
