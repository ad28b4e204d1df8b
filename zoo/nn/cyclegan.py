"""CycleGAN's networks and image pool: appendix 7 of Zhu et al. 2017, details as in the authors' PyTorch code."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.nn.layers import FewChannelConv2d, attention_blend, instance_norm

__all__ = ["ImagePool", "PatchDiscriminator", "ResnetGenerator", "UNetGenerator", "initialize", "make_generator"]


def conv(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, **options: Any) -> nn.Conv2d:
    """A convolution that halves or keeps the side; without a bias unless asked for."""
    # NOTE(paper): the authors' convolutions have biases in front of the instance normalizations too, which remove them
    # again; here there are none.
    options = {"padding": (kernel_size - 1) // 2, "bias": False} | options
    return nn.Conv2d(in_channels, out_channels, kernel_size, stride, **options)


class ResnetBlock(nn.Module):
    """x + f(x), f two 3x3 convolutions.

    Shape:
        Input and output: (N, C, H, W).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = conv(channels, channels, 3, padding_mode="reflect")
        self.conv2 = conv(channels, channels, 3, padding_mode="reflect")

    def forward(self, x: Tensor) -> Tensor:
        """Add what the block changes."""
        y = F.relu(instance_norm(self.conv1(x)))
        return x + instance_norm(self.conv2(y))


class ResnetGenerator(nn.Module):
    """Image to image: halved twice, changed by residual blocks, doubled twice (Johnson et al. 2016).

    Args:
        image_channels: channels of the images.
        base_channels: width at full size.
        num_blocks: residual blocks.
        attention: blend the drawing into the input through a mask, see `zoo.nn.layers.attention_blend`.

    Attributes:
        multiple: sides of images must be multiples of this.

    Shape:
        Input and output: (N, image_channels, H, W), H and W divisible by 4; output in [-1, 1].
    """

    multiple = 4

    def __init__(self, image_channels: int, base_channels: int, num_blocks: int, attention: bool = False) -> None:
        super().__init__()
        c = base_channels
        self.attention = attention
        self.start = conv(image_channels, c, 7, padding_mode="reflect")  # (N, C, H, W)
        self.down = nn.ModuleList([conv(c, 2 * c, 3, 2), conv(2 * c, 4 * c, 3, 2)])  # (N, 4C, H / 4, W / 4)
        self.blocks = nn.Sequential(*[ResnetBlock(4 * c) for _ in range(num_blocks)])
        up: dict[str, Any] = {"stride": 2, "padding": 1, "output_padding": 1, "bias": False}
        self.up = nn.ModuleList([nn.ConvTranspose2d(4 * c, 2 * c, 3, **up), nn.ConvTranspose2d(2 * c, c, 3, **up)])
        self.end = FewChannelConv2d(c, image_channels + attention, 7, padding=3, padding_mode="reflect")

    def forward(self, x: Tensor) -> Tensor:
        """Translate images."""
        y = x
        for layer in (self.start, *self.down):
            y = F.relu(instance_norm(layer(y)))
        y = self.blocks(y)
        for layer in self.up:
            y = F.relu(instance_norm(layer(y)))
        y = self.end(y)
        return attention_blend(x, y) if self.attention else torch.tanh(y)


class UNetGenerator(nn.Module):
    """Image to image: halved until little is left, and doubled again beside the maps of the way in.

    Args:
        image_channels: channels of the images.
        base_channels: width of the outermost layer; it doubles up to eightfold.
        halvings: how often the side is halved, at least 2; the authors' code has 7 for 128 pixels and 8 for 256.

    Attributes:
        multiple: sides of images must be multiples of this.

    Shape:
        Input and output: (N, image_channels, H, W), H and W divisible by 2^halvings; output in (-1, 1).

    References:
        Isola et al. 2017, section 6.1.1; the authors' PyTorch code.
    """

    def __init__(self, image_channels: int, base_channels: int, halvings: int) -> None:
        super().__init__()
        self.multiple = 2**halvings
        widths = [base_channels * 2 ** min(i, 3) for i in range(halvings)]
        steps = list(pairwise([image_channels, *widths]))
        # No instance normalization follows the first of these and the last, so that their biases count.
        self.down = nn.ModuleList(
            conv(outer, inner, 4, 2, bias=i in (0, halvings - 1)) for i, (outer, inner) in enumerate(steps)
        )
        up: dict[str, Any] = {"kernel_size": 4, "stride": 2, "padding": 1}
        joined = [*[2 * inner for _, inner in steps[:-1]], widths[-1]]
        self.up = nn.ModuleList(  # outermost first
            nn.ConvTranspose2d(inner, outer, bias=i == 0, **up)
            for i, (inner, (outer, _)) in enumerate(zip(joined, steps, strict=True))
        )

    def forward(self, x: Tensor) -> Tensor:
        """Translate images."""
        maps = [cast(Tensor, self.down[0](x))]
        for layer in self.down[1:-1]:
            maps.append(instance_norm(layer(F.leaky_relu(maps[-1], 0.2))))
        y = cast(Tensor, self.down[-1](F.leaky_relu(maps[-1], 0.2)))
        for layer, beside in zip(reversed(self.up[1:]), reversed(maps), strict=True):
            y = torch.cat([beside, instance_norm(layer(F.relu(y)))], 1)
        return torch.tanh(self.up[0](F.relu(y)))


def make_generator(
    kind: str, image_size: int, image_channels: int, base_channels: int, num_blocks: int
) -> ResnetGenerator | UNetGenerator:
    """A generator by the name of its kind: see `zoo.CycleGAN`.

    Raises:
        ValueError: there is no such kind, or a U-Net has no such size.
    """
    if kind in ("resnet", "attention_resnet"):
        return ResnetGenerator(image_channels, base_channels, num_blocks, kind == "attention_resnet")
    if kind != "unet":
        raise ValueError(f"generator_kind must be 'resnet', 'attention_resnet' or 'unet', not {kind!r}")
    if image_size & (image_size - 1):
        raise ValueError(f"a U-Net needs an image_size that is a power of two from 8, not {image_size}")
    return UNetGenerator(image_channels, base_channels, image_size.bit_length() - 1)


class PatchDiscriminator(nn.Module):
    """PatchGAN: a logit for each of many overlapping patches, 70x70 pixels large with three layers.

    Args:
        image_channels: channels of the images.
        base_channels: width of the first layer; it doubles up to eightfold.
        layers: strided convolutions; 1, 2, 3, 4, ... see patches of 16, 34, 70, 142, ... pixels. With 0 each pixel is
            judged alone: all convolutions are 1x1, and none has a stride (Isola et al. 2017, section 4.4).

    Shape:
        Input: (N, image_channels, H, W); output: (N, 1, H / 2^layers - 2, W / 2^layers - 2), or (N, 1, H, W).
    """

    def __init__(self, image_channels: int, base_channels: int, layers: int) -> None:
        super().__init__()
        depth, kernel_size, stride = (layers, 4, 2) if layers else (1, 1, 1)
        widths = [base_channels * 2 ** min(i, 3) for i in range(depth + 1)]
        self.start = conv(image_channels, widths[0], kernel_size, stride, bias=True)
        strides = [stride] * (depth - 1) + [1]
        self.layers = nn.ModuleList(
            conv(outer, inner, kernel_size, s) for (outer, inner), s in zip(pairwise(widths), strides, strict=True)
        )
        self.end = conv(widths[-1], 1, kernel_size, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the patches."""
        x = F.leaky_relu(self.start(x), 0.2)
        for layer in self.layers:
            x = F.leaky_relu(instance_norm(layer(x)), 0.2)
        return cast(Tensor, self.end(x))


def initialize(module: nn.Module) -> None:
    """Weights from N(0, 0.02), biases 0."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class ImagePool:
    """Earlier fakes; the discriminator sees some of them instead of the new ones.

    While the pool is not full it keeps and gives back what comes. Then, with probability 1/2, it gives one of its
    images and keeps the new one in its place, else it gives the new one back.

    Args:
        size: images that it holds; 0 gives everything back.

    References:
        Shrivastava et al. 2017, section 2.3; Zhu et al. 2017, section 4.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.images: list[Tensor] = []

    def exchange(self, images: Tensor, draws: Tensor) -> Tensor:
        """As many images as given, some of them earlier ones.

        Args:
            images: new fakes, without a graph.
            draws: numbers in [0, 1): whether to exchange, and which.

        Shape:
            images: (N, C, H, W); draws: (N, 2), on the CPU; output as images.
        """
        given = []
        for image, (coin, place) in zip(images, draws.tolist(), strict=True):
            if len(self.images) < self.size:
                self.images.append(image.clone())
            elif self.size and coin < 0.5:
                k = int(place * self.size)
                given.append(self.images[k])
                self.images[k] = image.clone()
                continue
            given.append(image)
        return torch.stack(given)

    def state(self) -> Tensor | None:
        """The images (K, C, H, W), or None for an empty pool."""
        return torch.stack(self.images) if self.images else None

    def restore(self, state: Tensor | None) -> None:
        """Take up what `state` gave."""
        self.images = [] if state is None else list(state.unbind())
