"""Blocks that several architectures use unchanged."""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.distributed as dist
from lightning.pytorch.plugins import LayerSync
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from zoo import random

__all__ = [
    "CrossRankBatchNorm",
    "CrossRankSync",
    "NarrowConv2d",
    "blend",
    "diff_augment",
    "gather_rows",
    "instance_norm",
    "random_affine",
    "random_shift",
    "update_ema",
]


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
        if not (self.training and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
            return super().forward(input)
        self._check_input_dim(input)
        x = input.float() if input.dtype in (torch.half, torch.bfloat16) else input
        axes = [0, *range(2, x.dim())]
        local = x.numel() // x.size(1)
        mean = x.mean(axes)
        deviation = (x - mean.view(1, -1, *[1] * (x.dim() - 2))).square().sum(axes)
        # Every rank fills its own row: one sum then gathers all rows, and its gradient is a sum as well.
        rows = x.new_zeros(dist.get_world_size(), 2 * x.size(1) + 1)
        own = torch.cat([mean, deviation, mean.new_full((1,), local)])
        own_row = torch.tensor(dist.get_rank(), device=x.device)
        gathered: Tensor = all_reduce(rows.index_put((own_row,), own))
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


class NarrowConv2d(nn.Conv2d):
    """Convolution of stride 1 to a few channels, the last layer of many a generator.

    Kernels on a CPU make channels by the sixteen and leave most of them unused for the three of an image. So there one
    convolution makes what each row of the kernel gives, and these are moved into place and summed, which is about twice
    as fast. Arguments and parameters are those of torch's Conv2d.

    Shape:
        Input: (N, in_channels, H, W); output: (N, out_channels, H', W').
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        plain = (*self.stride, *self.dilation, self.groups) == (1, 1, 1, 1, 1) and not isinstance(self.padding, str)
        if input.device.type != "cpu" or not plain:
            return cast(Tensor, super()._conv_forward(input, weight, bias))
        (above, beside), outputs = cast(tuple[int, int], self.padding), self.out_channels
        if self.padding_mode != "zeros":
            input = F.pad(input, self._reversed_padding_repeated_twice, mode=self.padding_mode)
            above = beside = 0
        height, width = self.kernel_size
        rows = weight.permute(2, 0, 1, 3).reshape(height * outputs, -1, 1, width)
        parts = F.pad(F.conv2d(input, rows, padding=(0, beside)), (0, 0, above, above)).split(outputs, 1)
        kept = parts[0].shape[2] - height + 1
        # In float32: under autocast each sum would be rounded.
        total = parts[0][:, :, :kept]
        total = total.float() if total.dtype in (torch.half, torch.bfloat16) else total
        for i, part in enumerate(parts[1:], 1):
            total = total + part[:, :, i : i + kept]
        if bias is not None:
            total = total + bias.view(-1, 1, 1)
        return cast(Tensor, total.to(parts[0].dtype))


def gather_rows(x: Tensor) -> Tensor:
    """The rows of all ranks, differentiable: each rank's gradient is the sum over all ranks' uses of its rows.

    Args:
        x: as many rows on every rank; every rank must call this.

    Shape:
        x: (N, D); output: (ranks * N, D).
    """
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return x
    rows = x.new_zeros(dist.get_world_size(), *x.shape)
    gathered: Tensor = all_reduce(rows.index_put((torch.tensor(dist.get_rank(), device=x.device),), x))
    return gathered.flatten(0, 1)


def instance_norm(x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5) -> Tensor:
    """Instance normalisation: each map of each image to mean 0 and variance 1.

    Args:
        x: images or feature maps.
        weight: scale per channel, or none.
        bias: shift per channel, or none.
        eps: added to the variance.

    Shape:
        x: (N, C, H, W), of more than one pixel; weight, bias: (C,); output as x.

    References:
        Ulyanov et al. 2016, "Instance Normalization: The Missing Ingredient for Fast Stylization", equation 1.
    """
    if x.device.type == "cpu":
        # The same as groups of one channel, whose kernel is two to three times as fast here; elsewhere autocast would
        # widen its output to float32.
        return F.group_norm(x, x.shape[1], weight, bias, eps)
    return F.instance_norm(x, weight=weight, bias=bias, eps=eps)


def blend(x: Tensor, maps: Tensor) -> Tensor:
    """Images with a drawing over them, as far as its attention mask lets it through: (1 - m) x + m tanh(drawing).

    Args:
        x: images.
        maps: what a generator's last layer gives: the drawing's channels and the mask's one, both before squashing.

    Shape:
        x: (N, C, H, W) in [-1, 1]; maps: (N, C + 1, H, W); output as x.

    References:
        Pumarola et al. 2018 (GANimation), section 4.1, whose mask is 1 where the image stays.
    """
    drawing, mask = maps.split([x.shape[1], 1], 1)
    return torch.lerp(x.to(maps.dtype), drawing.tanh(), mask.sigmoid())


@torch.no_grad()
def update_ema(average: nn.Module, module: nn.Module, decay: float) -> None:
    """Move an average of parameters: `average <- decay * average + (1 - decay) * module`; buffers are copied.

    Args:
        average: module that holds the average.
        module: module in training, of the same architecture.
        decay: share of the old average that is kept.
    """
    torch._foreach_lerp_(list(average.parameters()), list(module.parameters()), 1 - decay)
    if buffers := list(average.buffers()):
        torch._foreach_copy_(buffers, list(module.buffers()))


def diff_augment(x: Tensor, key: int, first: int = 0) -> Tensor:
    """DiffAugment: random brightness, saturation, contrast, translation and cutout, differentiable in the images.

    Args:
        x: images in [-1, 1].
        key: key of the draws (see `zoo.random`).
        first: global index of the first image.

    Shape:
        Input and output: (N, C, H, W).

    References:
        Zhao et al. 2020, "Differentiable Augmentation for Data-Efficient GAN Training", section 3.3 and appendix.
    """
    n, _, height, width = x.shape
    draws = random.uniform((n, 7), key, first, device=x.device).to(x.dtype).view(n, 7, 1, 1, 1).unbind(1)
    brightness, saturation, contrast, shift_y, shift_x, cut_y, cut_x = draws
    x = x + (brightness - 0.5)
    grey = x.mean(1, keepdim=True)
    x = torch.lerp(grey, x, 2 * saturation)
    mean = x.mean((1, 2, 3), keepdim=True)
    x = torch.lerp(mean, x, contrast + 0.5)

    rows = torch.arange(height, device=x.device).view(1, 1, height, 1)
    columns = torch.arange(width, device=x.device).view(1, 1, 1, width)

    # Translation by up to an eighth of the image, zeros moved in.
    reach_y, reach_x = height // 8, width // 8
    from_row = rows + ((shift_y * (2 * reach_y + 1)).floor().long() - reach_y)
    from_column = columns + ((shift_x * (2 * reach_x + 1)).floor().long() - reach_x)
    inside = (from_row >= 0) & (from_row < height) & (from_column >= 0) & (from_column < width)
    sample = torch.arange(n, device=x.device).view(n, 1, 1)
    moved = x.permute(0, 2, 3, 1)[
        sample,
        from_row.clamp(0, height - 1).view(n, height, 1),
        from_column.clamp(0, width - 1).view(n, 1, width),
    ].permute(0, 3, 1, 2)
    x = moved * inside

    # Cutout of a square of half the side, anywhere.
    centre_y, centre_x = (cut_y * (height + 1)).floor().long(), (cut_x * (width + 1)).floor().long()
    top, left = centre_y - height // 4, centre_x - width // 4
    hidden = (rows >= top) & (rows < top + height // 2) & (columns >= left) & (columns < left + width // 2)
    return x * ~hidden


def random_affine(
    x: Tensor,
    key: int,
    first: int = 0,
    *,
    rotation: float = 20.0,
    shear: float = 0.4,
    scale: float = 0.15,
    shift: float = 1 / 7,
) -> Tensor:
    """Images turned, sheared, scaled and moved at random, differentiable in the images.

    Each amount is drawn uniformly between its bound and minus that; outside the image lie zeros.

    Args:
        x: images.
        key: key of the draws (see `zoo.random`).
        first: global index of the first image.
        rotation: in degrees.
        shear: horizontal movement per height.
        scale: of each axis, relative to 1.
        shift: along each axis, relative to half a side.

    Shape:
        Input and output: (N, C, H, W).
    """
    exact = x if x.dtype == torch.float64 else x.float()  # half precision would move places by a pixel
    draws = random.uniform((len(x), 6), key, first, low=-1.0, high=1.0, device=x.device).to(exact.dtype)
    turn, slant, wide, high, right, down = draws.unbind(1)
    angle = math.radians(rotation) * turn
    cos, sin, slant, wide, high = angle.cos(), angle.sin(), shear * slant, 1 + scale * wide, 1 + scale * high
    rows = [
        torch.stack([cos * wide, cos * slant - sin * high, shift * right], 1),
        torch.stack([sin * wide, sin * slant + cos * high, shift * down], 1),
    ]
    grid = F.affine_grid(torch.stack(rows, 1), list(x.shape), align_corners=False)
    return F.grid_sample(exact, grid, align_corners=False).to(x.dtype)


def random_shift(x: Tensor, pixels: int, key: int, first: int = 0) -> Tensor:
    """Images moved at random by whole pixels, what is uncovered filled with the border: differentiable in the images.

    Args:
        x: images.
        pixels: largest movement along each axis.
        key: key of the draws (see `zoo.random`).
        first: global index of the first image.

    Shape:
        Input and output: (N, C, H, W).
    """
    height, width = x.shape[2:]
    start = random.integers(2 * pixels + 1, (len(x), 2), key, first, device=x.device) - pixels
    rows = (start[:, :1] + torch.arange(height, device=x.device)).clamp(0, height - 1)
    columns = (start[:, 1:] + torch.arange(width, device=x.device)).clamp(0, width - 1)
    image, channel = torch.arange(len(x), device=x.device), torch.arange(x.shape[1], device=x.device)
    return x[image[:, None, None, None], channel[:, None, None], rows[:, None, :, None], columns[:, None, None, :]]
