"""Layers of Progressive GAN: equalized learning rate, pixel norm, minibatch standard deviation, fused scaling.

Weights are drawn from N(0, 1) and multiplied by He's constant whenever they are used, so that Adam, whose steps do not
depend on the scale of gradients, moves all of them at the same relative speed (Karras et al. 2018, section 4).
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.engine.tracing import is_exported
from zoo.nn.losses import at_least_float32

__all__ = [
    "DownsampleConv2d",
    "EqualizedConv2d",
    "EqualizedLinear",
    "EqualizedStartMap",
    "UpsampleConv2d",
    "activate",
    "doubled",
    "pixel_norm",
    "stddev_map",
]


def activate(x: Tensor) -> Tensor:
    """Leaky ReLU of slope 0.2."""
    return F.leaky_relu(x, 0.2)


def pixel_norm(x: Tensor) -> Tensor:
    """x / sqrt(mean over channels of x^2 + 1e-8), at each pixel; in float32 at least."""
    y = at_least_float32(x)
    return (y * torch.rsqrt(y.square().mean(1, keepdim=True) + 1e-8)).to(x.dtype)


def doubled(x: Tensor) -> Tensor:
    """Each pixel four times."""
    return F.interpolate(x, scale_factor=2, mode="nearest")


def stddev_map(x: Tensor, group: int) -> Tensor:
    """Minibatch standard deviation: of each feature over a group of images, averaged over features and pixels.

    Groups are of neighbors in the batch, so that a rank's images are grouped as they would be in one process.

    Shape:
        x: (N, C, H, W), N a multiple of `group`; output: (N, 1, H, W).
    """
    y = at_least_float32(x).reshape(-1, group, *x.shape[1:])
    y = ((y - y.mean(1, keepdim=True)).square().mean(1) + 1e-8).sqrt().mean((1, 2, 3))  # (N / group,)
    return y.repeat_interleave(group).view(-1, 1, 1, 1).expand(-1, 1, *x.shape[2:]).to(x.dtype)


class EqualizedLinear(nn.Linear):
    """Linear map with equalized learning rate: weights drawn from N(0, 1), times gain / sqrt(fan-in) when used."""

    def __init__(self, inputs: int, outputs: int, gain: float = math.sqrt(2)) -> None:
        super().__init__(inputs, outputs)
        nn.init.normal_(self.weight)
        nn.init.zeros_(self.bias)
        self.scale = gain / math.sqrt(inputs)

    def forward(self, input: Tensor) -> Tensor:
        """The map."""
        return F.linear(input * self.scale, self.weight, self.bias)


class EqualizedConv2d(nn.Conv2d):
    """Convolution with equalized learning rate, see `EqualizedLinear`; the side stays."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, gain: float = math.sqrt(2)) -> None:
        super().__init__(inputs, outputs, kernel, padding=kernel // 2)
        nn.init.normal_(self.weight)
        nn.init.zeros_(cast(Tensor, self.bias))
        self.scale = gain / math.sqrt(inputs * kernel**2)

    def forward(self, input: Tensor) -> Tensor:
        """The convolution; the constant goes to the smaller factor."""
        if not is_exported() and input.numel() < self.weight.numel():
            return cast(Tensor, self._conv_forward(input * self.scale, self.weight, self.bias))
        return cast(Tensor, self._conv_forward(input, self.weight * self.scale, self.bias))

    def spread(self, factor: float) -> Tensor:
        """The 4x4 kernel that is this one summed over four places, a pixel apart: it takes 2x2 equal pixels at once."""
        weight = F.pad(self.weight * (self.scale * factor), (1, 1, 1, 1))
        rows = weight[:, :, 1:] + weight[:, :, :-1]
        return rows[..., 1:] + rows[..., :-1]


class UpsampleConv2d(EqualizedConv2d):
    """Each pixel four times, then the convolution: one strided transposed convolution has 4/9 of the products."""

    def forward(self, input: Tensor) -> Tensor:
        """The convolution."""
        kernel = self.spread(1.0).transpose(0, 1).flip(2, 3)
        return F.conv_transpose2d(input, kernel, self.bias, stride=2, padding=1)


class DownsampleConv2d(EqualizedConv2d):
    """The convolution, then the mean of 2x2 pixels: as one strided convolution."""

    def forward(self, input: Tensor) -> Tensor:
        """The convolution."""
        return F.conv2d(input, self.spread(0.25), self.bias, stride=2, padding=1)


class EqualizedStartMap(EqualizedLinear):
    """Latent vector to a map of 4x4, with a bias for each channel.

    Args:
        inputs: length of the vector.
        channels: channels of the map.
        unit_bias: a bias for each channel and pixel instead.

    Shape:
        input: (N, inputs); output: (N, channels, 4, 4).
    """

    def __init__(self, inputs: int, channels: int, unit_bias: bool = False) -> None:
        # The gain makes up for the fan-in that a transposed convolution of 4x4 would have.
        super().__init__(inputs, 16 * channels, math.sqrt(2) / 4)
        self.bias = nn.Parameter(torch.zeros(16 * channels if unit_bias else channels))

    def forward(self, input: Tensor) -> Tensor:
        """The map."""
        x: Tensor = F.linear(input * self.scale, self.weight).unflatten(1, (-1, 4, 4))
        return x + (self.bias.view(-1, 1, 1) if len(self.bias) == x.size(1) else self.bias.view(x.shape[1:]))
