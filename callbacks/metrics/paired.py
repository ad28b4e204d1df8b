"""Similarity of translated images and their true pairs: L1, PSNR and SSIM."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.callbacks.metrics.means import Averaged

__all__ = ["PairedSimilarity", "structural_similarity"]

WINDOW, SIGMA = 11, 1.5
ROUNDING = 255**-2 / 12
"""Mean square of what rounding to 8 bits changes: images that differ by less are the same picture."""


def structural_similarity(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Structural similarity and its contrast-structure factor, means over an image of 8-bit values.

    The window is Gaussian, of 11 pixels and a deviation of 1.5; it takes the places where it lies inside of the image.
    On smaller images the window and its deviation shrink with them.

    Args:
        x: images in [0, 255].
        y: images in [0, 255].

    Shape:
        x, y: (N, C, H, W); output: two of (N,).

    References:
        Wang, Bovik, Sheikh and Simoncelli 2004, "Image quality assessment: from error visibility to structural
        similarity".
    """
    size = min(WINDOW, *x.shape[2:])
    place = torch.arange(size, dtype=x.dtype, device=x.device) - (size - 1) / 2
    window = torch.exp(-0.5 * (place / (SIGMA * size / WINDOW)) ** 2)
    window = window / window.sum()

    def blurred(image: Tensor) -> Tensor:
        # Over single channels, one axis after the other; only where the whole window lies inside.
        image = F.conv2d(image.flatten(0, 1).unsqueeze(1), window.view(1, 1, 1, -1))
        return F.conv2d(image, window.view(1, 1, -1, 1)).view(*x.shape[:2], -1)

    mean_x, mean_y = blurred(x), blurred(y)
    variances = blurred(x * x) - mean_x**2 + blurred(y * y) - mean_y**2
    covariance = blurred(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    contrast = (2 * covariance + c2) / (variances + c2)
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return (luminance * contrast).mean((1, 2)), contrast.mean((1, 2))


class PairedSimilarity(Averaged):
    """Mean over images of their similarity to their true pairs.

    "l1" is the mean absolute difference of values in [0, 1]; "psnr" the peak signal-to-noise ratio in dB, at most 58.9
    dB, that of rounding to 8 bits, so that an exact image does not make the mean infinite; "ssim" is
    `structural_similarity`.

    Args:
        kind: which of them.
        kwargs: options of `torchmetrics.Metric`.
    """

    def __init__(self, kind: Literal["l1", "psnr", "ssim"], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.kind = kind

    def update(self, found: Tensor, true: Tensor) -> None:
        """Add images and their true pairs.

        Shape:
            found, true: (N, C, H, W) in [-1, 1].
        """
        if len(found) == 0:
            return
        found, true = (found.double() + 1) / 2, (true.double() + 1) / 2
        difference = (found - true).flatten(1)
        if self.kind == "l1":
            self.add(difference.abs().mean(1))
        elif self.kind == "psnr":
            self.add(-10 * difference.square().mean(1).clamp(min=ROUNDING).log10())
        else:
            self.add(structural_similarity(255 * found, 255 * true)[0])
