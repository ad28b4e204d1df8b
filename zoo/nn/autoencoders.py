"""Encoders and decoders that several autoencoding models use unchanged. Decoders return logits of values in (0, 1)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, Literal, cast

from torch import Tensor, nn
from torch.nn import functional as F

from zoo.nn.layers import stages

__all__ = [
    "Activation",
    "BurgessDecoder",
    "BurgessEncoder",
    "HigginsDecoder",
    "HigginsEncoder",
    "MLPDecoder",
    "MLPEncoder",
    "TolstikhinDecoder",
    "TolstikhinEncoder",
    "mlp",
]

Activation = Literal["relu", "tanh"]
Shape = tuple[int, int, int]

_ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh}


def mlp(sizes: Sequence[int], activation: Activation = "relu") -> nn.Sequential:
    """Linear layers with an activation between each two; the last one is linear."""
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), _ACTIVATIONS[activation]()]
    return nn.Sequential(*layers[:-1])


class MLPEncoder(nn.Module):
    """Flattened image to numbers.

    Args:
        shape: shape of an image.
        hidden: widths of the hidden layers.
        outputs: numbers per image.
        activation: between layers.
        inputs: further inputs in addition to the image.

    Shape:
        x: (N, C, H, W), or (N, C * H * W + inputs) with further inputs; output: (N, outputs).
    """

    def __init__(
        self, shape: Shape, hidden: Sequence[int], outputs: int, activation: Activation = "relu", inputs: int = 0
    ) -> None:
        super().__init__()
        self.net = mlp([math.prod(shape) + inputs, *hidden, outputs], activation)

    def forward(self, x: Tensor) -> Tensor:
        """Encode."""
        return cast(Tensor, self.net(x.flatten(1)))


class MLPDecoder(nn.Module):
    """Numbers to image.

    Args:
        inputs: numbers per image.
        hidden: widths of the hidden layers.
        shape: shape of an image.
        activation: between layers.

    Shape:
        z: (N, inputs); output: (N, C, H, W) logits.
    """

    def __init__(self, inputs: int, hidden: Sequence[int], shape: Shape, activation: Activation = "relu") -> None:
        super().__init__()
        self.shape = shape
        self.net = mlp([inputs, *hidden, math.prod(shape)], activation)

    def forward(self, z: Tensor) -> Tensor:
        """Decode."""
        return cast(Tensor, self.net(z)).view(-1, *self.shape)


# Tolstikhin et al. 2018 -----------------------------------------------------------------------------------------------


class SameConv2d(nn.Conv2d):
    """Strided convolution padded as TensorFlow's SAME: output side ceil(side / stride), the odd pixel at the end."""

    def forward(self, input: Tensor) -> Tensor:
        """Pad and convolve."""
        size, kernel, stride = input.size(-1), self.kernel_size[0], self.stride[0]
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        before, after = total // 2, total - total // 2
        if before == after:
            return F.conv2d(input, self.weight, self.bias, self.stride, before)
        return super().forward(F.pad(input, (before, after, before, after)))


class TolstikhinEncoder(nn.Module):
    """Strided convolutions with batch normalization, then a linear layer: the encoder of the WAE.

    Four convolutions whose channels double; 64 pixels: 5x5 kernels, else 4x4.

    Args:
        shape: shape of an image; square.
        base_channels: channels of the first feature map.
        outputs: numbers per image.

    Shape:
        x: (N, C, H, W); output: (N, outputs).

    References:
        Tolstikhin et al. 2017, appendix D, and the authors' code.
    """

    def __init__(self, shape: Shape, base_channels: int, outputs: int) -> None:
        super().__init__()
        channels, size = shape[0], shape[1]
        self.kernel = 5 if size >= 64 else 4
        widths = [base_channels * 2**i for i in range(4)]
        layers: list[nn.Module] = []
        for inner, outer in zip([channels, *widths], widths, strict=False):
            layers += [
                SameConv2d(inner, outer, self.kernel, stride=2, bias=False),
                nn.BatchNorm2d(outer),
                nn.ReLU(True),
            ]
            size = -(-size // 2)  # (N, outer, size, size)
        self.conv = nn.Sequential(*layers)
        self.linear = nn.Linear(widths[-1] * size * size, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Encode."""
        return cast(Tensor, self.linear(self.conv(x).flatten(1)))


class TolstikhinDecoder(nn.Module):
    """A linear layer, then transposed convolutions with batch normalization: the decoder of the WAE.

    The first map has 1/8 of the image's side from 64 pixels on, else 1/4; the last convolution keeps the side.

    Args:
        inputs: numbers per image.
        base_channels: the first feature map has 8 times as many channels.
        shape: shape of an image; square.

    Shape:
        z: (N, inputs); output: (N, C, H, W) logits.

    References:
        Tolstikhin et al. 2017, appendix D, and the authors' code.
    """

    def __init__(self, inputs: int, base_channels: int, shape: Shape) -> None:
        super().__init__()
        size = shape[1]
        doublings = 3 if size >= 64 else 2
        kernel = 5 if size >= 64 else 4
        width, start = 8 * base_channels, size // 2**doublings
        if start * 2**doublings != size:
            raise ValueError(f"image_size {size} is not supported: take a multiple of {2**doublings}")
        self.start_shape = (width, start, start)
        self.linear = nn.Sequential(nn.Linear(inputs, math.prod(self.start_shape)), nn.ReLU(True))
        up: dict[str, Any] = {"kernel_size": kernel, "stride": 2, "padding": kernel // 2 if kernel == 5 else 1}
        layers: list[nn.Module] = []
        for _ in range(doublings):
            # NOTE(paper): TensorFlow's SAME padding puts 5x5 kernels half a pixel elsewhere.
            conv = nn.ConvTranspose2d(width, width // 2, **up, output_padding=kernel % 2, bias=False)
            layers += [conv, nn.BatchNorm2d(width // 2), nn.ReLU(True)]
            width //= 2  # (N, width, 2H, 2W)
        self.conv = nn.Sequential(*layers, SameConv2d(width, shape[0], kernel))

    def forward(self, z: Tensor) -> Tensor:
        """Decode."""
        return cast(Tensor, self.conv(self.linear(z).view(-1, *self.start_shape)))


# Higgins et al. 2017 --------------------------------------------------------------------------------------------------


def _higgins_widths(image_size: int, image_channels: int) -> tuple[int, list[int]]:
    """Side of the smallest map, and the channels before and after each convolution that halves the side down to it.

    Raises:
        ValueError: the size is not supported.
    """
    start, doublings = stages(image_size)
    if doublings > 4:
        raise ValueError(f"image_size {image_size} is not supported by networks='conv': take at most 64")
    return start, [image_channels, 32, 32, 64, 64][: doublings + 1]


class HigginsEncoder(nn.Sequential):
    """Strided 4x4 convolutions, one over the whole remaining map, a linear layer: the encoder of the beta-VAE.

    Shape:
        input: (N, C, H, W); output: (N, outputs).

    References:
        Higgins et al. 2017, table 1 (the network for CelebA).
    """

    def __init__(self, image_size: int, image_channels: int, outputs: int) -> None:
        start, widths = _higgins_widths(image_size, image_channels)
        layers: list[nn.Module] = []
        for inner, outer in itertools.pairwise(widths):
            layers += [nn.Conv2d(inner, outer, 4, 2, 1), nn.ReLU(True)]  # (N, outer, H / 2, W / 2)
        layers += [nn.Conv2d(widths[-1], 256, start), nn.ReLU(True), nn.Flatten(), nn.Linear(256, outputs)]
        super().__init__(*layers)


class HigginsDecoder(nn.Sequential):
    """The mirror image of `HigginsEncoder`.

    Shape:
        input: (N, inputs); output: (N, C, H, W) logits.
    """

    def __init__(self, image_size: int, image_channels: int, inputs: int) -> None:
        start, widths = _higgins_widths(image_size, image_channels)
        layers: list[nn.Module] = [nn.Linear(inputs, 256), nn.ReLU(True), nn.Unflatten(1, (256, 1, 1))]
        layers += [nn.ConvTranspose2d(256, widths[-1], start), nn.ReLU(True)]
        for inner, outer in itertools.pairwise(widths[::-1]):
            layers += [nn.ConvTranspose2d(inner, outer, 4, 2, 1), nn.ReLU(True)]  # (N, outer, 2H, 2W)
        super().__init__(*layers[:-1])


# Burgess et al. 2018 --------------------------------------------------------------------------------------------------


def _burgess_widths(image_size: int, image_channels: int) -> list[int]:
    """Channels before and after each convolution; they halve the side down to 4.

    Raises:
        ValueError: the size is not supported.
    """
    if image_size not in (32, 64):
        raise ValueError(f"image_size {image_size} is not supported by networks='burgess': take 32 or 64")
    return [image_channels, *[32] * (3 if image_size == 32 else 4)]


class BurgessEncoder(nn.Sequential):
    """Strided 4x4 convolutions of 32 channels, then three linear layers.

    Shape:
        input: (N, C, H, W) with a side of 32 or 64; output: (N, outputs).

    References:
        Burgess et al. 2018, appendix A.1; 32 pixels, with one convolution less, as in common implementations.
    """

    def __init__(self, image_size: int, image_channels: int, outputs: int) -> None:
        layers: list[nn.Module] = []
        for inner, outer in itertools.pairwise(_burgess_widths(image_size, image_channels)):
            layers += [nn.Conv2d(inner, outer, 4, 2, 1), nn.ReLU(True)]  # (N, 32, H / 2, W / 2)
        layers += [nn.Flatten(), nn.Linear(512, 256), nn.ReLU(True), nn.Linear(256, 256), nn.ReLU(True)]
        super().__init__(*layers, nn.Linear(256, outputs))


class BurgessDecoder(nn.Sequential):
    """The mirror image of `BurgessEncoder`.

    Shape:
        input: (N, inputs); output: (N, C, H, W) logits, with a side of 32 or 64.
    """

    def __init__(self, image_size: int, image_channels: int, inputs: int) -> None:
        layers: list[nn.Module] = [nn.Linear(inputs, 256), nn.ReLU(True), nn.Linear(256, 256), nn.ReLU(True)]
        layers += [nn.Linear(256, 512), nn.ReLU(True), nn.Unflatten(1, (32, 4, 4))]
        for inner, outer in itertools.pairwise(_burgess_widths(image_size, image_channels)[::-1]):
            layers += [nn.ConvTranspose2d(inner, outer, 4, 2, 1), nn.ReLU(True)]  # (N, outer, 2H, 2W)
        super().__init__(*layers[:-1])
