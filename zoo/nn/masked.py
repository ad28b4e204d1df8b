"""Parts of both PixelCNN and PixelRNN: masked convolutions, the skeleton of the network, its incremental sampler."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.nn.layers import unit

__all__ = ["MaskedConv2d", "PixelLayer", "PixelNetwork", "PixelSampler", "colors", "matrices", "matrix"]


def colors(channels: int, image_channels: int) -> Tensor:
    """The color of each feature map: maps take turns, so that no number of maps needs to be a multiple of three.

    Shape:
        Output: (channels,) int64, 0 for red.
    """
    return torch.arange(channels) % image_channels


class MaskedConv2d(nn.Conv2d):
    """A convolution that sees earlier pixels only, and of its own pixel only the earlier colors.

    Mask A, for the first layer, hides a color from itself; mask B shows it. The mask multiplies the weight in every
    pass: weights that were zeroed once would be changed by the optimizer.

    Args:
        in_channels: feature maps of the input.
        out_channels: feature maps of the output.
        kernel_size: odd height and width.
        kind: "A" or "B".
        image_channels: colors of the image, 1 or 3.
        outer: color of each output map; None lets the colors take turns.

    Shape:
        input: (N, in_channels, H, W); output: (N, out_channels, H, W).

    References:
        van den Oord, Kalchbrenner and Kavukcuoglu 2016, section 3.4.
    """

    mask: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: tuple[int, int],
        kind: Literal["A", "B"],
        *,
        image_channels: int = 1,
        outer: Tensor | None = None,
    ) -> None:
        height, width = kernel_size
        super().__init__(in_channels, out_channels, kernel_size, padding=(height // 2, width // 2))
        mask = torch.ones(out_channels, in_channels, height, width)
        mask[:, :, height // 2, width // 2 :] = 0
        mask[:, :, height // 2 + 1 :] = 0
        own = (colors(out_channels, image_channels) if outer is None else outer)[:, None]
        other = colors(in_channels, image_channels)
        mask[:, :, height // 2, width // 2] = (other < own if kind == "A" else other <= own).float()
        self.register_buffer("mask", mask, persistent=False)

    @property
    def masked(self) -> Tensor:
        """The masked weight.

        Shape:
            Output: (out_channels, in_channels, height, width).
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
            x, output: (N, 2h, H, W); context: (N, context_channels, H, W).
        """
        raise NotImplementedError


class PixelNetwork(nn.Module):
    """Masked 7x7 convolution, layers, and a head of 1x1 convolutions.

    Args:
        layers: the layers.
        hidden_channels: h; the trunk has 2h feature maps.
        image_channels: channels of the image.
        outputs: logits per sub-pixel.
        head_channels: feature maps of the head.
        head_layers: 1x1 convolutions before the last one, which gives the logits.
        skip: add a 1x1 convolution of every layer's output to the input of the head.
        margin: blank columns that the trunk sees on the right of the image.

    Shape:
        input: (N, C, H, W) in [-1, 1]; output: (N, outputs, C, H, W).

    References:
        van den Oord et al. 2016, table 1 and figure 5.
    """

    def __init__(
        self,
        layers: Sequence[PixelLayer],
        hidden_channels: int,
        image_channels: int,
        outputs: int,
        *,
        head_channels: int,
        head_layers: int,
        skip: bool = False,
        margin: int = 0,
    ) -> None:
        super().__init__()
        width = 2 * hidden_channels
        if min(hidden_channels, head_channels) < image_channels:
            raise ValueError(f"hidden_channels and head_channels must be at least the {image_channels} colors")
        self.input = MaskedConv2d(image_channels, width, (7, 7), "A", image_channels=image_channels)
        self.layers = nn.ModuleList(layers)
        self.skips = nn.ModuleList(
            MaskedConv2d(width, width, (1, 1), "B", image_channels=image_channels) for _ in (layers if skip else ())
        )
        widths = [width, *[head_channels] * head_layers, outputs * image_channels]
        # NOTE(paper): a ReLU before the convolution to the logits too; without it the last two would be one linear map.
        self.head = nn.ModuleList(
            MaskedConv2d(inner, outer, (1, 1), "B", image_channels=image_channels)
            for inner, outer in itertools.pairwise(widths)
        )
        self.image_channels = image_channels
        self.margin = margin

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Logits of all sub-pixels."""
        x, width = unit(x), x.size(3)  # the zeros that pad a convolution are black
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
        return cast(Tensor, sums.unflatten(1, (-1, self.image_channels)))  # (N, K, C, H, W): the colors take turns


class PixelSampler:
    """Draws pixel by pixel with work that does not depend on the size of the image.

    The contribution of the rows above is computed once per row, for all layers and columns at once; a pixel then costs
    a few small matrix products per layer. One row of features per layer is kept. Tensors are laid out (features, N), so
    that neighboring pixels of a row are one block of memory, and so are the gates of a cell.

    Subclasses define `start_layers` and `layer`.

    Args:
        network: the network.
        n: number of images.
        width: width of the images.
    """

    def __init__(self, network: PixelNetwork, n: int, width: int) -> None:
        self.n, self.image_channels, self.margin = n, network.image_channels, network.margin
        self.width = width = width + network.margin
        convolution = network.input
        weight, self.reach = convolution.masked, convolution.kernel_size[1] // 2
        self.upper, self.bias = weight[:, :, : self.reach], convolution.bias
        # The pixels to the left and, for the colors, the pixel itself: (maps, taps x image channels).
        self.here = weight[:, :, self.reach, : self.reach + 1].transpose(1, 2).flatten(1)
        self.line = weight.new_zeros(self.reach + width, self.image_channels, n)
        self.windows = [self.line[i : i + self.reach + 1].flatten(0, 1) for i in range(width)]
        self.head = [matrix(convolution) for convolution in network.head]
        self.skips = [matrix(convolution) for convolution in network.skips]
        self.depth = len(network.layers)

    def start_layers(self, row: int) -> None:
        """Compute the contribution of the finished row to the next one, in all layers."""
        raise NotImplementedError

    def layer(self, i: int, x: Tensor, column: int) -> Tensor:
        """Output of a layer at a pixel of the present row.

        Shape:
            x, output: (2h, N).
        """
        raise NotImplementedError

    def start_row(self, x: Tensor, row: int) -> None:
        """Compute the contribution of all rows above."""
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
        return y[channel :: self.image_channels].t()

    def trunk(self, x: Tensor, row: int, column: int, channel: int) -> Tensor:
        """Input of the head at a pixel whose first `channel` channels are known.

        Shape:
            Output: (2h, N).
        """
        # Mask A hides the channels that are not known, whatever their values.
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
    """Weights (L, out, in) and biases (L, out, 1) of the masked 1x1 convolutions of all layers."""
    weights, biases = zip(*map(matrix, convolutions), strict=True)
    return torch.stack(weights), torch.stack(biases)
