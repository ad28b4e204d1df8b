"""Encoders and decoders that several autoencoding models use unchanged. Decoders return logits of values in (0, 1)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, Literal, cast

from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Activation", "ConvDecoder", "ConvEncoder", "MLPDecoder", "MLPEncoder", "mlp"]

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
        inputs: further inputs beside the image.

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


class ConvEncoder(nn.Module):
    """Strided convolutions with batch normalisation, then a linear layer: the encoder of the WAE and of the
    convolutional AAE.

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


class ConvDecoder(nn.Module):
    """A linear layer, then transposed convolutions with batch normalisation: the decoder of the WAE and of the
    convolutional AAE.

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
