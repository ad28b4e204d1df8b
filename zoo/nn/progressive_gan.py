"""Networks of Progressive GAN: all layers exist from the start, and each stage is faded in over the one before."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.engine.tracing import is_traced
from zoo.nn.progressive_gan_layers import (
    DownsampleConv2d,
    EqualizedConv2d,
    EqualizedLinear,
    EqualizedStartMap,
    UpsampleConv2d,
    activate,
    doubled,
    pixel_norm,
    stddev_map,
)

__all__ = ["Discriminator", "Generator"]


class GeneratorBlock(nn.Module):
    """The layers of one stage: (N, C, S, S) to (N, C', 2S, 2S), at the first stage from 4x4 to 4x4."""

    def __init__(self, inputs: int, outputs: int, up: bool) -> None:
        super().__init__()
        if up:
            self.conv0 = UpsampleConv2d(inputs, outputs)
        self.conv1 = EqualizedConv2d(outputs if up else inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """The maps of the stage."""
        for conv in self.children():
            x = pixel_norm(activate(conv(x)))
        return x


class Generator(nn.Module):
    """Noise to image, at any of its stages: stage s makes 4 * 2^s pixels.

    Args:
        widths: channels of each stage.
        image_channels: channels of the images.
        latent_dim: length of the noise vector.
        unit_bias: see `EqualizedStartMap`.

    Shape:
        z: (N, latent_dim); output: (N, image_channels, S, S), linear.
    """

    stage: Tensor
    alpha: Tensor

    def __init__(self, widths: list[int], image_channels: int, latent_dim: int, unit_bias: bool = False) -> None:
        super().__init__()
        self.start = EqualizedStartMap(latent_dim, widths[0], unit_bias)
        inputs = [widths[0], *widths]
        self.blocks = nn.ModuleList(
            GeneratorBlock(before, width, up=s > 0)
            for s, (before, width) in enumerate(zip(inputs, widths, strict=False))
        )
        self.to_rgb = nn.ModuleList(EqualizedConv2d(width, image_channels, 1, gain=1.0) for width in widths)
        # The stage that training has reached, for those who have the weights only.
        self.register_buffer("stage", torch.tensor(0))
        self.register_buffer("alpha", torch.tensor(1.0))
        self._position = (0, 1.0)

    def forward(self, z: Tensor, stage: int | None = None, alpha: float | None = None) -> Tensor:
        """Images of a stage, faded from those of the stage before; by default of the stage that training has reached.

        Args:
            z: noise vectors.
            stage: number of the stage.
            alpha: share of the stage in its images, the rest being that of the stage before.
        """
        if stage is None or alpha is None:
            reached, share = self.position()
            stage, alpha = reached if stage is None else stage, share if alpha is None else alpha
        before = x = pixel_norm(activate(self.start(pixel_norm(z))))  # (N, C, 4, 4)
        for block in self.blocks[: stage + 1]:
            before, x = x, block(x)
        image: Tensor = self.to_rgb[stage](x)
        if alpha < 1 and stage:
            image = torch.lerp(doubled(self.to_rgb[stage - 1](before)).to(image.dtype), image, alpha)
        return image

    def position(self) -> tuple[int, float]:
        """Stage and alpha that training has reached; a graph, which cannot ask, keeps those that were known before."""
        if not (is_traced() or self.stage.is_meta):
            self._position = int(self.stage), float(self.alpha)
        return self._position

    def train(self, mode: bool = True) -> Generator:
        """Set the mode, and look where training is."""
        self.position()
        return super().train(mode)

    def active(self, stage: int, alpha: float) -> Iterator[nn.Parameter]:
        """Parameters that `forward` uses."""
        yield from self.start.parameters()
        yield from self.blocks[: stage + 1].parameters()
        for to_rgb in self.to_rgb[max(0, stage - (alpha < 1)) : stage + 1]:
            yield from to_rgb.parameters()


class DiscriminatorBlock(nn.Module):
    """The layers of one stage: (N, C, 2S, 2S) to (N, C', S, S)."""

    def __init__(self, inputs: int, outputs: int, fused: bool) -> None:
        super().__init__()
        self.conv0 = EqualizedConv2d(inputs, inputs)
        self.conv1 = (DownsampleConv2d if fused else EqualizedConv2d)(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """The maps of the next smaller stage."""
        x = activate(self.conv1(activate(self.conv0(x))))
        return x if isinstance(self.conv1, DownsampleConv2d) else F.avg_pool2d(x, 2)


class Discriminator(nn.Module):
    """Image to a value, at any stage.

    Args:
        widths: channels of each stage.
        image_channels: channels of the images.
        hidden_features: width of the linear layer.
        fused_downscale: take the mean of 2x2 pixels before the activation, see `ProgressiveGAN`.

    Shape:
        x: (N, image_channels, S, S); output: (N,).
    """

    def __init__(self, widths: list[int], image_channels: int, hidden_features: int, fused_downscale: bool) -> None:
        super().__init__()
        width = widths[0]
        self.from_rgb = nn.ModuleList(EqualizedConv2d(image_channels, inputs, 1) for inputs in widths)
        self.blocks = nn.ModuleList(
            DiscriminatorBlock(inputs, outputs, fused_downscale) for outputs, inputs in pairwise(widths)
        )
        self.conv = EqualizedConv2d(width + 1, width)
        self.hidden = EqualizedLinear(16 * width, hidden_features)
        self.last = EqualizedLinear(hidden_features, 1, gain=1.0)

    def forward(self, x: Tensor, stage: int, alpha: float, group: int) -> Tensor:
        """Values of images of a stage.

        Args:
            x: the images.
            stage: number of the stage.
            alpha: share of the stage, the rest being that of the stage before.
            group: number of images in a group of `stddev_map`.
        """
        y = activate(self.from_rgb[stage](x))
        for s in range(stage, 0, -1):
            y = self.blocks[s - 1](y)
            if s == stage and alpha < 1:
                y = torch.lerp(activate(self.from_rgb[s - 1](F.avg_pool2d(x, 2))).to(y.dtype), y, alpha)
        y = torch.cat([y, stddev_map(y, group)], 1)  # (N, C + 1, 4, 4)
        return cast(Tensor, self.last(activate(self.hidden(activate(self.conv(y)).flatten(1))))).flatten()

    def active(self, stage: int, alpha: float) -> Iterator[nn.Parameter]:
        """Parameters that `forward` uses."""
        for module in (self.conv, self.hidden, self.last, self.blocks[:stage]):
            yield from module.parameters()
        for from_rgb in self.from_rgb[max(0, stage - (alpha < 1)) : stage + 1]:
            yield from from_rgb.parameters()
