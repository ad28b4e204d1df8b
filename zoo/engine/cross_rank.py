"""What a batch of all ranks needs: batch normalization over ranks, rows of all ranks, means over all their images."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import torch
import torch.distributed as dist
from lightning.pytorch.plugins import LayerSync
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = [
    "CrossRankBatchNorm",
    "CrossRankSync",
    "all_gather_rows",
    "alone",
    "average",
    "global_mean",
    "is_alone",
    "world_size",
]

_alone = False


@contextmanager
def alone() -> Iterator[None]:
    """Each rank by itself, as where ranks have unequal numbers of batches: nothing inside waits for other ranks."""
    global _alone
    before, _alone = _alone, True
    try:
        yield
    finally:
        _alone = before


def is_alone() -> bool:
    """Whether this rank computes by itself, see `alone`."""
    return _alone


def world_size() -> int:
    """Number of ranks whose batches make one, 1 outside a distributed run."""
    return dist.get_world_size() if not _alone and dist.is_available() and dist.is_initialized() else 1


class CrossRankBatchNorm(_BatchNorm):
    """Batch normalisation over the batch of all ranks, on any device.

    torch's SyncBatchNorm refuses the CPU. This one gathers each rank's mean, sum of squared deviations and count in one
    differentiable collective and combines them as Chan, Golub and LeVeque (1979) do, so that W ranks normalise exactly
    as one process would on the concatenated batch. The parameters and state-dict keys are those of BatchNorm.

    Shape:
        Input and output: (N, C, ...).
    """

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected an input of at least 2 dimensions, got {input.dim()}")

    def forward(self, input: Tensor) -> Tensor:
        """Normalise with the statistics of all ranks in training, with the running ones in evaluation."""
        if not (self.training and world_size() > 1):
            return super().forward(input)
        self._check_input_dim(input)
        x = input.float() if input.dtype in (torch.half, torch.bfloat16) else input
        axes = [0, *range(2, x.dim())]
        local = x.numel() // x.size(1)
        mean = x.mean(axes)
        deviation = (x - mean.view(1, -1, *[1] * (x.dim() - 2))).square().sum(axes)
        own = torch.cat([mean, deviation, mean.new_full((1,), local)])
        gathered: Tensor = all_reduce(_own_row(own))
        means, deviations, counts = torch.split(gathered, [x.size(1), x.size(1), 1], dim=1)
        counts = counts.detach()
        total = counts.sum()
        mean = (means * counts).sum(0) / total
        var = (deviations.sum(0) + ((means - mean).square() * counts).sum(0)) / total
        if self.track_running_stats and self.running_mean is not None and self.running_var is not None:
            with torch.no_grad():
                cast(Tensor, self.num_batches_tracked).add_(1)
                rate = self.momentum if self.momentum is not None else 1.0 / float(self.num_batches_tracked or 1)
                self.running_mean.lerp_(mean.to(self.running_mean.dtype), rate)
                self.running_var.lerp_((var * (total / (total - 1))).to(self.running_var.dtype), rate)
        scale = torch.rsqrt(var + self.eps)
        shape = (1, -1, *[1] * (x.dim() - 2))
        y: Tensor = (x - mean.view(shape)) * scale.view(shape)
        if self.affine:
            y = y * self.weight.view(shape) + self.bias.view(shape)
        return y.to(input.dtype)


class CrossRankSync(LayerSync):
    """Turns a model's BatchNorm layers into `CrossRankBatchNorm` and back: `Trainer(sync_batchnorm=True)`."""

    def apply(self, model: nn.Module) -> nn.Module:
        """Swap the class of every BatchNorm layer; parameters, buffers and keys stay the same objects."""
        for module in model.modules():
            if isinstance(module, _BatchNorm) and not isinstance(module, CrossRankBatchNorm | nn.SyncBatchNorm):
                module._rank_local_class = type(module)  # type: ignore[assignment]
                module.__class__ = CrossRankBatchNorm
        return model

    def revert(self, model: nn.Module) -> nn.Module:
        """Give every layer its own class back."""
        for module in model.modules():
            if isinstance(module, CrossRankBatchNorm):
                module.__class__ = module.__dict__.pop("_rank_local_class")
        return model


def all_gather_rows(x: Tensor) -> Tensor:
    """The rows of all ranks, differentiable: each rank's gradient is the sum over all ranks' uses of its rows.

    Args:
        x: as many rows on every rank; every rank must call this.

    Shape:
        x: (N, D); output: (ranks * N, D).
    """
    if world_size() == 1:
        return x
    gathered: Tensor = all_reduce(_own_row(x))
    return gathered.flatten(0, 1)


def _own_row(x: Tensor) -> Tensor:
    """A row for each rank, zero but for its own: one sum then gathers all rows, and its gradient is a sum as well."""
    rank = dist.get_rank()  # not an index on the device, for whose copy the host would wait
    return F.pad(x[None], [0, 0] * x.dim() + [rank, world_size() - 1 - rank])


def average(value: Tensor) -> Tensor:
    """Mean of a value over all ranks, without a gradient; every rank must call this."""
    value = value.detach().clone()
    if world_size() > 1:
        dist.all_reduce(value)
    return value / world_size()


def global_mean(total: Tensor, count: Tensor | int) -> Tensor:
    """A term of an objective: a mean over the images of all ranks, also where ranks hold unequal numbers of them.

    Gradients are averaged over ranks afterwards. So each rank divides its sum by the mean number of images per rank.

    Args:
        total: sum over this rank's images.
        count: number of these images; every rank must call this, even with 0.

    Shape:
        total, count, output: scalars.
    """
    counted = count.to(total) if isinstance(count, Tensor) else total.new_full((), count)
    return total / average(counted).clamp(min=1e-9)
