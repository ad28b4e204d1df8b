"""What PixelCNN and PixelRNN share: masked convolutions, the skeleton of the network, and its incremental sampler."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["MaskedConv2d", "PixelLayer", "PixelNetwork", "PixelSampler", "colours", "matrices", "matrix", "unit"]


def colours(features: int, channels: int) -> Tensor:
    """The colour to which each feature map belongs: they take turns, so that any number of maps can be shared out.

    Shape:
        Output: (features,) int64, 0 for red.
    """
    return torch.arange(features) % channels


class MaskedConv2d(nn.Conv2d):
    """A convolution that sees earlier pixels only, and of its own pixel the colours that come before.

    Mask A hides a colour from itself and is for the first layer; mask B shows it. The mask multiplies the weight in
    every pass: were the weights zeroed once, the optimizer would fill them again.

    Args:
        in_features: feature maps of the input.
        out_features: feature maps of the output.
        kernel_size: odd height and width.
        kind: "A" or "B".
        channels: colours of the image, 1 or 3.
        outer: colour of each output map; None lets the colours take turns.

    Shape:
        input: (N, in_features, H, W); output: (N, out_features, H, W).

    References:
        van den Oord, Kalchbrenner and Kavukcuoglu 2016, section 3.4.
    """

    mask: Tensor

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: tuple[int, int],
        kind: Literal["A", "B"],
        *,
        channels: int = 1,
        outer: Tensor | None = None,
    ) -> None:
        height, width = kernel_size
        super().__init__(in_features, out_features, kernel_size, padding=(height // 2, width // 2))
        mask = torch.ones(out_features, in_features, height, width)
        mask[:, :, height // 2, width // 2 :] = 0
        mask[:, :, height // 2 + 1 :] = 0
        own = (colours(out_features, channels) if outer is None else outer)[:, None]
        other = colours(in_features, channels)
        mask[:, :, height // 2, width // 2] = (other < own if kind == "A" else other <= own).float()
        self.register_buffer("mask", mask, persistent=False)

    @property
    def masked(self) -> Tensor:
        """The weight as it is used.

        Shape:
            Output: (out_features, in_features, height, width).
        """
        return self.weight * self.mask

    def forward(self, input: Tensor) -> Tensor:
        """Convolve."""
        return F.conv2d(input, self.masked, self.bias, padding=self.padding)


class PixelLayer(nn.Module):
    """A layer of the trunk: features and, in conditional networks, a context map in, new features out."""

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The next features.

        Shape:
            x, output: (N, 2 features, H, W); context: (N, context features, H, W).
        """
        raise NotImplementedError


class PixelNetwork(nn.Module):
    """Masked 7x7 convolution, layers, and a head of 1x1 convolutions.

    Args:
        layers: the layers.
        features: half the feature maps of the trunk.
        channels: channels of the image.
        outputs: logits per sub-pixel.
        head_features: feature maps of the head.
        head_layers: 1x1 convolutions before that to the logits.
        skip: add a 1x1 convolution of every layer's output to what the head gets.
        margin: blank columns that the trunk sees on the right of the image.

    Shape:
        input: (N, C, H, W) in [-1, 1]; output: (N, outputs, C, H, W).

    References:
        van den Oord et al. 2016, table 1 and figure 5.
    """

    def __init__(
        self,
        layers: Sequence[PixelLayer],
        features: int,
        channels: int,
        outputs: int,
        *,
        head_features: int,
        head_layers: int,
        skip: bool,
        margin: int = 0,
    ) -> None:
        super().__init__()
        width = 2 * features
        self.input = MaskedConv2d(channels, width, (7, 7), "A", channels=channels)
        self.layers = nn.ModuleList(layers)
        self.skips = nn.ModuleList(
            MaskedConv2d(width, width, (1, 1), "B", channels=channels) for _ in (layers if skip else ())
        )
        widths = [width, *[head_features] * head_layers, outputs * channels]
        # NOTE(paper): a ReLU before the convolution to the logits too; without it the last two would be one linear map.
        self.head = nn.ModuleList(
            MaskedConv2d(inner, outer, (1, 1), "B", channels=channels) for inner, outer in itertools.pairwise(widths)
        )
        self.channels = channels
        self.margin = margin

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Logits of all sub-pixels."""
        x, width = unit(x), x.size(3)
        if self.margin:
            x = F.pad(x, (0, self.margin))
            context = None if context is None else F.pad(context, (0, self.margin))
        x = self.input(x)
        sums = torch.zeros_like(x) if self.skips else x
        for i, layer in enumerate(self.layers):
            x = layer(x, context)
            sums = sums + self.skips[i](x) if self.skips else x
        sums = sums[..., :width]
        for convolution in self.head:
            sums = convolution(F.relu(sums))
        return cast(Tensor, sums.unflatten(1, (-1, self.channels)))  # (N, K, C, H, W): maps take turns in the colours


def unit(x: Tensor) -> Tensor:
    """Images in [0, 1], as the networks see them: what convolutions pad with is black.

    Shape:
        x: in [-1, 1]; output: the same.
    """
    return (x + 1) / 2


class PixelSampler:
    """Draws pixel by pixel with work that does not depend on the size of the image.

    What rows above contribute to a row is computed once per row, for all layers and columns at once; a pixel then costs
    a few small matrix products per layer. Kept are one row of features per layer. All is laid out (features, N): then
    neighbouring pixels of a row are one block of memory, as are the gates of a cell.

    Subclasses define `start_layers` and `layer`.

    Args:
        network: the network.
        n: number of images.
        width: width of the images.
    """

    def __init__(self, network: PixelNetwork, n: int, width: int) -> None:
        self.n, self.channels, self.margin = n, network.channels, network.margin
        self.width = width = width + network.margin
        convolution = network.input
        weight, self.reach = convolution.masked, convolution.kernel_size[1] // 2
        self.upper, self.bias = weight[:, :, : self.reach], convolution.bias
        # The pixels to the left and, for the colours, the pixel itself: (maps, taps x channels).
        self.here = weight[:, :, self.reach, : self.reach + 1].transpose(1, 2).flatten(1)
        self.line = weight.new_zeros(self.reach + width, self.channels, n)
        self.windows = [self.line[i : i + self.reach + 1].flatten(0, 1) for i in range(width)]
        self.head = [matrix(convolution) for convolution in network.head]
        self.skips = [matrix(convolution) for convolution in network.skips]
        self.depth = len(network.layers)

    def start_layers(self, row: int) -> None:
        """Take up the finished row, and compute what it means for the next one."""
        raise NotImplementedError

    def layer(self, i: int, x: Tensor, column: int) -> Tensor:
        """Output of a layer at a pixel of the present row.

        Shape:
            x, output: (2 features, N).
        """
        raise NotImplementedError

    def start_row(self, x: Tensor, row: int) -> None:
        """What the rows above contribute."""
        if row:
            for column in range(self.width - self.margin, self.width):
                self.trunk(x, row - 1, column, 0)
        above = unit(x[:, :, max(0, row - self.reach) : row])
        above = F.pad(above, (self.reach, self.reach + self.margin, self.reach - above.size(2), 0))
        self.above = F.conv2d(above, self.upper, self.bias)[:, :, 0].permute(2, 1, 0).contiguous().unbind()
        self.line.zero_()
        self.start_layers(row)

    def logits(self, x: Tensor, row: int, column: int, channel: int) -> Tensor:
        """Logits of a sub-pixel.

        Shape:
            Output: (N, K).
        """
        y = self.trunk(x, row, column, channel)
        for weight, bias in self.head:
            y = torch.addmm(bias, weight, y.relu())
        return y[channel :: self.channels].t()

    def trunk(self, x: Tensor, row: int, column: int, channel: int) -> Tensor:
        """What the head gets at a pixel, of which so many channels are known.

        Shape:
            Output: (2 features, N).
        """
        # Of the pixel itself the earlier colours are known; mask A hides the others, whatever stands there.
        if channel:
            self.line[self.reach + column] = unit(x[:, :, row, column].t())
        elif column:
            self.line[self.reach + column - 1] = unit(x[:, :, row, column - 1].t())
        y = torch.addmm(self.above[column], self.here, self.windows[column])
        sums: Tensor | None = None
        for i in range(self.depth):
            y = self.layer(i, y, column)
            if self.skips:
                weight, bias = self.skips[i]
                sums = torch.addmm(bias if sums is None else sums + bias, weight, y)
        return y if sums is None else sums


def matrix(convolution: nn.Module) -> tuple[Tensor, Tensor]:
    """Weight (out, in) and bias (out, 1) of a masked 1x1 convolution."""
    assert isinstance(convolution, MaskedConv2d)
    assert convolution.bias is not None
    return convolution.masked[:, :, 0, 0], convolution.bias[:, None]


def matrices(convolutions: Iterable[MaskedConv2d]) -> tuple[Tensor, Tensor]:
    """Those of all layers: (L, out, in) and (L, out, 1)."""
    weights, biases = zip(*map(matrix, convolutions), strict=True)
    return torch.stack(weights), torch.stack(biases)
