"""Blocks that several architectures use unchanged."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from zoo.engine.tracing import is_exported

__all__ = [
    "FewChannelConv2d",
    "attention_blend",
    "instance_norm",
    "running_statistics_kept",
    "unit",
    "update_ema",
]


def unit(x: Tensor) -> Tensor:
    """Images in [0, 1]: the numbers of (x + 1) / 2, bit for bit, in one operation.

    Shape:
        x: in [-1, 1]; output: the same.
    """
    return torch.rsub(x, 0.5, alpha=-0.5)


class FewChannelConv2d(nn.Conv2d):
    """Convolution of stride 1 to a few channels, such as the last layer of a generator.

    CPU kernels compute output channels in blocks of 16, so three channels waste most of the work. There we compute one
    convolution per kernel row, then shift and add the results, which is about twice as fast. Arguments and parameters
    are those of torch's Conv2d.

    Shape:
        Input: (N, in_channels, H, W); output: (N, out_channels, H', W').
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        plain = (*self.stride, *self.dilation, self.groups) == (1, 1, 1, 1, 1) and not isinstance(self.padding, str)
        if input.device.type != "cpu" or not plain or is_exported():
            return cast(Tensor, super()._conv_forward(input, weight, bias))
        (above, left), outputs = cast(tuple[int, int], self.padding), self.out_channels
        if self.padding_mode != "zeros":
            input = F.pad(input, self._reversed_padding_repeated_twice, mode=self.padding_mode)
            above = left = 0
        height, width = self.kernel_size
        rows = weight.permute(2, 0, 1, 3).reshape(height * outputs, -1, 1, width)
        parts = F.pad(F.conv2d(input, rows, padding=(0, left)), (0, 0, above, above)).split(outputs, 1)
        kept = parts[0].shape[2] - height + 1
        # In float32: under autocast each sum would be rounded.
        total = parts[0][:, :, :kept]
        total = total.float() if total.dtype in (torch.half, torch.bfloat16) else total
        for i, part in enumerate(parts[1:], 1):
            total = total + part[:, :, i : i + kept]
        if bias is not None:
            total = total + bias.view(-1, 1, 1)
        return cast(Tensor, total.to(parts[0].dtype))


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


def attention_blend(x: Tensor, maps: Tensor) -> Tensor:
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


@contextmanager
def running_statistics_kept(*networks: nn.Module) -> Iterator[None]:
    """Batches within move no running statistics of batch normalizations; they are normalized as ever.

    For networks that see generated images in training and real ones afterwards: running statistics of a mixture fit
    neither.

    Args:
        networks: networks with batch normalizations, or without.
    """
    layers = [layer for net in networks for layer in net.modules() if isinstance(layer, _BatchNorm)]
    before = [layer.track_running_stats for layer in layers]
    for layer in layers:
        layer.track_running_stats = False
    try:
        yield
    finally:
        for layer, tracks in zip(layers, before, strict=True):
            layer.track_running_stats = tracks


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


def stages(image_size: int) -> tuple[int, int]:
    """Side of the smallest feature map, and how many times it is doubled to reach the image.

    Raises:
        ValueError: the size is not 4 or 7 times a power of two of at least 2.
    """
    for start in (4, 7):
        doublings = (image_size // start).bit_length() - 1
        if doublings >= 1 and start * 2**doublings == image_size:
            return start, doublings
    raise ValueError(f"image_size {image_size} is not supported: take 28, or a power of two from 8 (32, 64, 128, ...)")


class StartMap(nn.ConvTranspose2d):
    """Transposed convolution of vectors, taken as maps of 1x1: a matrix product, and several times faster as one.

    Shape:
        input: (N, in_channels); output: (N, out_channels, kernel_size, kernel_size).
    """

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Maps from vectors."""
        # In the weights' own order in memory, so that nothing is copied and the maps come out in the network's layout.
        if self.weight.is_contiguous(memory_format=torch.channels_last):
            weight = self.weight.permute(0, 2, 3, 1)  # (Z, S, S, C)
            return (input @ weight.flatten(1)).view(-1, *weight.shape[1:]).permute(0, 3, 1, 2)
        return (input @ self.weight.flatten(1)).view(-1, *self.weight.shape[1:])  # (N, C, S, S)
