"""Rows of features of real and of generated images, which all metrics of two sets of images share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics.utilities.data import dim_zero_cat

from zoo.callbacks.metrics.ranks import AnyShare

__all__ = ["FeatureBank"]


class FeatureBank(AnyShare):
    """Float32 rows of features with the global indices of their images, of real and of generated images.

    The ranks' rows are concatenated, none is padded, and a rank may have none. Sorted by their indices they do not
    depend on how images were split over ranks and batches, so neither does any metric of them. Memory: 4 bytes per
    feature, 390 MiB for 50,000 rows of 2,048.

    torchmetrics' own classes of lists of features (KernelInceptionDistance, InceptionScore) gather their lists element
    by element, so that ranks with unequal numbers of batches hang, and draw subsets from each rank's own random state.
    """

    is_differentiable = False
    higher_is_better: bool | None = None
    full_state_update = False

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for side in ("real", "fake"):
            self.add_state(f"{side}_rows", [], dist_reduce_fx="cat")
            self.add_state(f"{side}_index", [], dist_reduce_fx="cat")

    def update(self, features: Tensor, *, real: bool, first: int | Tensor) -> None:
        """Add images.

        Args:
            features: their features.
            real: they are real images, not generated ones.
            first: index of the first image among all of its kind, or the indices of all of these images.

        Shape:
            features: (N, d); first: scalar or (N,).

        Raises:
            ValueError: the features are no matrix, or not finite.
        """
        kind, side = ("real", "real") if real else ("generated", "fake")
        if features.ndim != 2:
            raise ValueError(f"features must be (N, d), not {tuple(features.shape)}")
        # In float64: a sum of large float32 values can overflow where none of them does.
        if not features.sum(dtype=None if features.device.type == "mps" else torch.float64).isfinite():
            raise ValueError(f"features of {kind} images are not finite")
        index = first if isinstance(first, Tensor) else torch.arange(first, first + len(features))
        getattr(self, f"{side}_rows").append(features.detach().to(self.device, torch.float32))
        getattr(self, f"{side}_index").append(index.to(self.device))

    def rows(self, real: bool) -> Tensor:
        """Features of one side in the order of its images: this rank's, and those of all ranks after a sync.

        Args:
            real: the side of the real images, not of the generated ones.

        Shape:
            Output: (N, d); (0, 0) of no images.

        Raises:
            ValueError: an image was added twice, as padding samplers do.
        """
        side = "real" if real else "fake"
        rows, index = getattr(self, f"{side}_rows"), getattr(self, f"{side}_index")
        if len(rows) == 0:
            return torch.empty(0, 0, device=self.device)
        rows, index = dim_zero_cat(rows), dim_zero_cat(index)
        steps = index.diff()
        if (steps <= 0).any():
            index, order = index.sort()
            rows, steps = rows[order], index.diff()
        if (steps == 0).any():
            twice = int(index[1:][steps == 0][0])
            raise ValueError(f"{'real' if real else 'generated'} image {twice} was added twice: add each image once")
        return rows

    def compute(self) -> Any:
        """Rows of the real images and of the generated ones."""
        return self.rows(real=True), self.rows(real=False)
