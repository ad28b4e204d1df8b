"""PixelRNN: the distribution of each sub-pixel by a recurrent network that runs over the image by rows or diagonals.

    minimize  -log p(x) = -sum_i log p(x_i | x_1, ..., x_{i-1})

    [o, f, i, g] = K_ss * h_previous + K_is * x
    c = sigmoid(f) c_previous + sigmoid(i) tanh(g),   h = sigmoid(o) tanh(c)

Row LSTM: the previous state is the row above (K_ss spans three pixels): the context is a triangle. Diagonal BiLSTM: the
previous state is the diagonal before (K_ss spans two pixels: the left and the upper one), from both sides: the context
is everything that came before. van den Oord, Kalchbrenner and Kavukcuoglu, "Pixel Recurrent Neural Networks", ICML
2016, arXiv 1601.06759. The defaults are the paper's Diagonal BiLSTM for binary MNIST; the recipes
`pixelrnn-cifar1032-{row,diagonal}-paper` have its networks for CIFAR-10. `zoo.gru_pixelrnn` and `zoo.tanh_pixelrnn` put
other cells in place of the LSTM.
"""

from __future__ import annotations

from typing import ClassVar, Literal, Unpack, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.base.autoregressive import AutoregressiveModel, LikelihoodOptions, OptimizerName
from zoo.nn.masked import MaskedConv2d, PixelLayer, PixelNetwork, colors
from zoo.nn.pixelrnn import (
    LSTM,
    Cell,
    Scan,
    compiled_scan,
    diagonal_scan,
    images_first,
    images_last,
    plain_scan,
    row_scan,
)
from zoo.nn.pixelrnn_sampling import DiagonalSampler, RecurrentSampler, RowSampler
from zoo.nn.sampling import Sampler

__all__ = ["DiagonalLayer", "PixelRNN", "RowLayer"]


class RecurrentLayer(PixelLayer):
    """Input-to-state convolution of the whole image, the recurrence, 1x1 convolution back to the trunk; residual.

    Args:
        hidden_channels: h, the units per direction; the trunk has 2h feature maps.
        image_channels: channels of the image.
        cell: the recurrent cell.
        context_channels: maps of the context; 0 for none.

    Shape:
        input, output: (N, 2h, H, W); context: (N, context_channels, H, W).

    References:
        van den Oord et al. 2016, figure 5 (right) and section 3.3; 3.6 for the context.
    """

    kernel_size: ClassVar[tuple[int, int]]
    directions: ClassVar[int]
    taps: ClassVar[int]
    sampler: ClassVar[type[RecurrentSampler]]
    scan: Scan

    def __init__(self, hidden_channels: int, image_channels: int, cell: Cell, context_channels: int = 0) -> None:
        super().__init__()
        self.cell, self.scan = cell, plain_scan
        h, gates = hidden_channels, self.directions * cell.gates
        outer = colors(h, image_channels).repeat(gates)
        self.input_to_state = MaskedConv2d(
            2 * h, gates * h, self.kernel_size, "B", image_channels=image_channels, outer=outer
        )
        # All pixels of previous states are known: no mask. One matrix per direction.
        fan_in = self.taps * h
        self.state_to_state = nn.Parameter(torch.empty(self.directions, cell.gates * h, fan_in))
        nn.init.uniform_(self.state_to_state, -(fan_in**-0.5), fan_in**-0.5)
        self.context = nn.Conv2d(context_channels, gates * h, 1, bias=False) if context_channels else None
        self.up = MaskedConv2d(h, 2 * h, (1, 1), "B", image_channels=image_channels)

    def states(self, x: Tensor, context: Tensor | None) -> Tensor:
        """Hidden states of all pixels, summed over the directions.

        Shape:
            output: (N, h, H, W).
        """
        raise NotImplementedError

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Run over the image."""
        return x + cast(Tensor, self.up(self.states(x, context)))


class RowLayer(RecurrentLayer):
    """Row LSTM: all pixels of a row at once, rows from the top.

    References:
        van den Oord et al. 2016, section 3.1.
    """

    kernel_size = (1, 3)
    directions = 1
    taps = 3
    sampler = RowSampler

    def states(self, x: Tensor, context: Tensor | None) -> Tensor:
        """Hidden states of all pixels."""
        n, _, height, width = x.shape
        # The convolution as one product, as its right tap is masked; the result lies row after row.
        rows = x.permute(1, 2, 0, 3)
        pairs = torch.cat([F.pad(rows, (1, -1)), rows]).flatten(1)  # (2 taps x 2h, H x N x W)
        weight, bias = self.input_to_state.masked[:, :, 0, :2], self.input_to_state.bias
        assert bias is not None
        gates = torch.addmm(bias[:, None], weight.transpose(1, 2).flatten(1), pairs).unflatten(1, (height, n, width))
        if self.context is not None:
            gates = gates + self.context(context).permute(1, 2, 0, 3)
        return row_scan(gates, self.state_to_state, self.cell, self.scan).permute(2, 0, 1, 3)


class DiagonalLayer(RecurrentLayer):
    """Diagonal BiLSTM: all pixels of a diagonal at once, from the left and from the right.

    The states from the right are shifted down by a row, so that they know all rows above and nothing of their own.

    References:
        van den Oord et al. 2016, section 3.2 and figure 3.
    """

    kernel_size = (1, 1)
    directions = 2
    taps = 2
    sampler = DiagonalSampler

    def states(self, x: Tensor, context: Tensor | None) -> Tensor:
        """Hidden states of all pixels."""
        weight, bias = self.input_to_state.masked.flatten(1), self.input_to_state.bias
        assert bias is not None
        maps, columns = [images_last(x)], [weight]
        if self.context is not None and context is not None:
            maps, columns = [*maps, images_last(context)], [*columns, self.context.weight.flatten(1)]
        seen = torch.cat([*maps, torch.ones_like(maps[0][:1])])
        weights = torch.cat([*columns, bias[:, None]], 1).unflatten(0, (2, -1))
        both = torch.stack([seen, seen.flip(2)])
        from_left, from_right = diagonal_scan(both, weights, self.state_to_state, self.cell, self.scan)
        return images_first(from_left + F.pad(from_right.flip(2), (0, 0, 0, 0, 1, -1)))


class PixelRNN(AutoregressiveModel):
    """PixelRNN with Row LSTM or Diagonal BiLSTM layers.

    Args:
        image_size: side of the images.
        image_channels: 1 or 3.
        num_levels: values of a sub-pixel; 2 for binary images.
        layer: "row" or "diagonal".
        hidden_channels: the paper's h, the units per direction; the trunk has 2h feature maps.
        num_layers: recurrent layers.
        skip: connect every layer to the head.
        head_channels: feature maps of the head.
        optimizer: "rmsprop", as in the paper, "adam", or "sgd" with momentum.
        compile: compile the recurrence with torch.compile at the first step, all its steps at once; takes minutes.
        options: see `LikelihoodOptions`.

    Attributes:
        cell: the recurrent cell.

    Raises:
        ValueError: an unknown layer, fewer than two levels, or fewer feature maps than colors.

    References:
        van den Oord et al. 2016, table 1 and section 5.3.
    """

    cell: Cell = LSTM()
    layer: type[RecurrentLayer]
    network: PixelNetwork

    def __init__(
        self,
        image_size: int = 28,
        image_channels: int = 1,
        num_levels: int = 2,
        *,
        layer: Literal["row", "diagonal"] = "diagonal",
        hidden_channels: int = 16,
        num_layers: int = 7,
        skip: bool = False,
        head_channels: int = 32,
        optimizer: OptimizerName = "rmsprop",
        compile: bool = False,
        **options: Unpack[LikelihoodOptions],
    ) -> None:
        super().__init__(num_levels, optimizer=optimizer, **options)
        self.save_hyperparameters()
        if layer not in ("row", "diagonal"):
            raise ValueError(f"layer must be 'row' or 'diagonal', not {layer!r}")
        self.layer = RowLayer if layer == "row" else DiagonalLayer
        self.network, self.compiled = self.build(), compile

    def setup(self, stage: str) -> None:
        """In addition, compile the recurrence for a fit."""
        super().setup(stage)
        if stage == "fit" and self.compiled:
            for network in self.children():  # each sees images of its own size
                scan = compiled_scan()
                for layer in (module for module in network.modules() if isinstance(module, RecurrentLayer)):
                    layer.scan = scan

    def build(self, context_channels: int = 0) -> PixelNetwork:
        """A network with the hyperparameters of the model.

        Args:
            context_channels: maps of the context that enters the layers; 0 for none.

        Raises:
            ValueError: fewer feature maps than colors.
        """
        options = self.hparams
        h, image_channels = options["hidden_channels"], options["image_channels"]
        layers = [self.layer(h, image_channels, self.cell, context_channels) for _ in range(options["num_layers"])]
        return PixelNetwork(
            layers,
            h,
            image_channels,
            self.outputs,
            head_channels=options["head_channels"],
            head_layers=2,
            skip=options["skip"],
            # NOTE(paper): a blank column. Mask A hides the last pixel of a row from all features of its row; without a
            # column behind it most of the next row would not see it, and the context would not be full.
            margin=1 if self.layer is DiagonalLayer else 0,
        )

    def sampler(self, n: int) -> Sampler:
        """Incremental sampler: one row of features and states per layer is kept."""
        return self.layer.sampler(self.network, n, self.image_shape[2])
