"""Layers of Progressive GAN: equalised learning rate, pixel norm, minibatch standard deviation, fused scaling.

Weights are drawn from N(0, 1) and multiplied by He's constant whenever they are used, so that Adam, whose steps do not
depend on the scale of gradients, moves all of them at the same relative speed (Karras et al. 2018, section 4).
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Conv", "DownConv", "Linear", "UpConv", "activate", "doubled", "pixel_norm", "stddev_map"]

SLOPE = 0.2


def activate(x: Tensor) -> Tensor:
    """Leaky ReLU."""
    return F.leaky_relu(x, SLOPE)


def pixel_norm(x: Tensor) -> Tensor:
    """x / sqrt(mean over channels of x^2 + 1e-8), at each pixel; in float32 at least."""
    y = x.float() if x.dtype in (torch.half, torch.bfloat16) else x
    return (y * torch.rsqrt(y.square().mean(1, keepdim=True) + 1e-8)).to(x.dtype)


def doubled(x: Tensor) -> Tensor:
    """Each pixel four times."""
    return F.interpolate(x, scale_factor=2, mode="nearest")


def stddev_map(x: Tensor, group: int) -> Tensor:
    """Minibatch standard deviation: of each feature over a group of images, averaged over features and pixels.

    Groups are of neighbours in the batch, so that a rank's images are grouped as they would be in one process.

    Shape:
        x: (N, C, H, W), N a multiple of `group`; output: (N, 1, H, W).
    """
    y = x.float() if x.dtype in (torch.half, torch.bfloat16) else x
    y = y.reshape(-1, group, *x.shape[1:])
    y = ((y - y.mean(1, keepdim=True)).square().mean(1) + 1e-8).sqrt().mean((1, 2, 3))  # (N / group,)
    return y.repeat_interleave(group).view(-1, 1, 1, 1).expand(-1, 1, *x.shape[2:]).to(x.dtype)


class Linear(nn.Linear):
    """Linear map with equalised learning rate: weights drawn from N(0, 1), times gain / sqrt(fan-in) when used."""

    def __init__(self, inputs: int, outputs: int, gain: float = math.sqrt(2)) -> None:
        super().__init__(inputs, outputs)
        nn.init.normal_(self.weight)
        nn.init.zeros_(self.bias)
        self.scale = gain / math.sqrt(inputs)

    def forward(self, input: Tensor) -> Tensor:
        """The map."""
        return F.linear(input * self.scale, self.weight, self.bias)


class Conv(nn.Conv2d):
    """Convolution with equalised learning rate, see `Linear`; the side stays."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, gain: float = math.sqrt(2)) -> None:
        super().__init__(inputs, outputs, kernel, padding=kernel // 2)
        nn.init.normal_(self.weight)
        nn.init.zeros_(cast(Tensor, self.bias))
        self.scale = gain / math.sqrt(inputs * kernel**2)

    def forward(self, input: Tensor) -> Tensor:
        """The convolution; the constant goes to the smaller factor."""
        if input.numel() < self.weight.numel():
            return cast(Tensor, self._conv_forward(input * self.scale, self.weight, self.bias))
        return cast(Tensor, self._conv_forward(input, self.weight * self.scale, self.bias))

    def spread(self, factor: float) -> Tensor:
        """The 4x4 kernel that is this one summed over four places, a pixel apart: it takes 2x2 equal pixels at once."""
        weight = F.pad(self.weight * (self.scale * factor), (1, 1, 1, 1))
        rows = weight[:, :, 1:] + weight[:, :, :-1]
        return rows[..., 1:] + rows[..., :-1]


class UpConv(Conv):
    """Each pixel four times, then `Conv`: as one strided transposed convolution, with 4/9 of the multiplications."""

    def forward(self, input: Tensor) -> Tensor:
        """The convolution."""
        kernel = self.spread(1.0).transpose(0, 1).flip(2, 3)
        return F.conv_transpose2d(input, kernel, self.bias, stride=2, padding=1)


class DownConv(Conv):
    """`Conv`, then the mean of 2x2 pixels: as one strided convolution."""

    def forward(self, input: Tensor) -> Tensor:
        """The convolution."""
        return F.conv2d(input, self.spread(0.25), self.bias, stride=2, padding=1)
