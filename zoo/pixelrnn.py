"""PixelRNN: the distribution of each sub-pixel by a recurrent network that runs over the image by rows or diagonals.

    minimise  -log p(x) = -sum_i log p(x_i | x_1, ..., x_{i-1})

    [o, f, i, g] = K_ss * h_previous + K_is * x
    c = sigmoid(f) c_previous + sigmoid(i) tanh(g),   h = sigmoid(o) tanh(c)

Row LSTM: the previous state is the row above (K_ss spans three pixels): the context is a triangle. Diagonal BiLSTM: the
previous state is the diagonal before (K_ss spans two pixels: the left and the upper one), from both sides: the context
is everything that came before. van den Oord, Kalchbrenner and Kavukcuoglu, "Pixel Recurrent Neural Networks", ICML
2016, arXiv 1601.06759. The defaults are the paper's Diagonal BiLSTM for binary MNIST; `PixelRNN.paper()` is its network
for CIFAR-10. Instead of the LSTM the cell may be a GRU (Cho et al. 2014) or a plain tanh.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.base.autoregressive import AutoregressiveModel
from zoo.nn.masked import MaskedConv2d, PixelLayer, PixelNetwork, PixelSampler, colours
from zoo.nn.pixelrnn import CELLS, Cell, diagonal_scan, row_scan
from zoo.nn.pixelrnn_sampling import DiagonalSampler, RowSampler

__all__ = ["SAMPLERS", "DiagonalLayer", "PixelRNN", "RowLayer"]


class RecurrentLayer(PixelLayer):
    """Input-to-state convolution of the whole image, the recurrence, 1x1 convolution back to the trunk.

    Args:
        features: units per direction; the trunk has twice as many maps.
        channels: channels of the image.
        cell: "lstm", "gru" or "rnn".
        residual: add the input.
        context_features: maps of the context; 0 for none.

    Shape:
        input, output: (N, 2 features, H, W); context: (N, context_features, H, W).

    References:
        van den Oord et al. 2016, figure 5 (right) and section 3.3; 3.6 for the context.
    """

    kernel_size: ClassVar[tuple[int, int]]
    directions: ClassVar[int]
    taps: ClassVar[int]

    def __init__(
        self,
        features: int,
        channels: int,
        *,
        cell: Literal["lstm", "gru", "rnn"] = "lstm",
        residual: bool = True,
        context_features: int = 0,
    ) -> None:
        super().__init__()
        self.cell: Cell = CELLS[cell]
        self.residual = residual
        maps = self.directions * self.cell.gates * features
        outer = colours(features, channels).repeat(self.directions * self.cell.gates)
        self.input_to_state = MaskedConv2d(2 * features, maps, self.kernel_size, "B", channels=channels, outer=outer)
        # Previous states are of pixels that are known: no mask. One matrix per direction.
        fan_in = self.taps * features
        self.state_to_state = nn.Parameter(torch.empty(self.directions, self.cell.gates * features, fan_in))
        nn.init.uniform_(self.state_to_state, -(fan_in**-0.5), fan_in**-0.5)
        self.context = nn.Conv2d(context_features, maps, 1, bias=False) if context_features else None
        self.up = MaskedConv2d(features, 2 * features, (1, 1), "B", channels=channels)

    def states(self, x: Tensor, context: Tensor | None) -> Tensor:
        """Hidden states of all pixels, summed over the directions.

        Shape:
            output: (N, features, H, W).
        """
        raise NotImplementedError

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Run over the image."""
        y: Tensor = self.up(self.states(x, context))
        return x + y if self.residual else y


class RowLayer(RecurrentLayer):
    """Row LSTM: all pixels of a row at once, rows from the top.

    References:
        van den Oord et al. 2016, section 3.1.
    """

    kernel_size = (1, 3)
    directions = 1
    taps = 3

    def states(self, x: Tensor, context: Tensor | None) -> Tensor:
        """Hidden states of all pixels."""
        n, _, height, width = x.shape
        # The convolution as one product: of its taps the right one is masked, and the result lies row after row.
        rows = x.permute(1, 2, 0, 3)
        pairs = torch.cat([F.pad(rows, (1, -1)), rows]).flatten(1)  # (2 taps x 2 features, H x N x W)
        weight, bias = self.input_to_state.masked[:, :, 0, :2], self.input_to_state.bias
        assert bias is not None
        gates = torch.addmm(bias[:, None], weight.transpose(1, 2).flatten(1), pairs).unflatten(1, (height, n, width))
        if self.context is not None:
            gates = gates + self.context(context).permute(1, 2, 0, 3)
        return row_scan(gates, self.state_to_state, self.cell).permute(2, 0, 1, 3)


class DiagonalLayer(RecurrentLayer):
    """Diagonal BiLSTM: all pixels of a diagonal at once, from the left and from the right.

    The direction from the right is shifted down a row: it then knows all of the rows above and nothing of its own.

    References:
        van den Oord et al. 2016, section 3.2 and figure 3.
    """

    kernel_size = (1, 1)
    directions = 2
    taps = 2

    def states(self, x: Tensor, context: Tensor | None) -> Tensor:
        """Hidden states of all pixels."""
        gates = self.input_to_state(x)
        if self.context is not None:
            gates = gates + self.context(context)
        from_left, from_right = gates.chunk(2, 1)
        both = torch.stack([from_left, from_right.flip(3)]).transpose(1, 2)  # (2, gates x features, N, H, W)
        from_left, from_right = diagonal_scan(both, self.state_to_state, self.cell).transpose(1, 2)
        return cast(Tensor, from_left + F.pad(from_right.flip(3), (0, 0, 1, -1)))


LAYERS = {"row": RowLayer, "diagonal": DiagonalLayer}
SAMPLERS = {"row": RowSampler, "diagonal": DiagonalSampler}


class PixelRNN(AutoregressiveModel):
    """PixelRNN with Row LSTM or Diagonal BiLSTM layers.

    Args:
        image_size: side of the images.
        image_channels: 1 or 3.
        levels: values of a sub-pixel; 2 for binary images.
        layer: "row" or "diagonal".
        features: units per direction; the trunk has twice as many maps.
        num_layers: recurrent layers.
        cell: "lstm" (the paper), "gru" or "rnn".
        residual: add each layer's input to its output.
        skip: connect every layer to the head.
        head_features: feature maps of the head.
        head_layers: 1x1 convolutions before that to the logits.
        learning_rate: step size.
        optimizer: "rmsprop" or "adam".
        final_rate: share of the step size that is left at the end of the run, to which it falls exponentially.

    Raises:
        ValueError: an unknown layer or cell, fewer than two levels, or fewer features than colours.

    References:
        van den Oord et al. 2016, table 1 and section 5.3.
    """

    network: PixelNetwork

    def __init__(
        self,
        image_size: int = 28,
        image_channels: int = 1,
        levels: int = 2,
        *,
        layer: Literal["row", "diagonal"] = "diagonal",
        features: int = 16,
        num_layers: int = 7,
        cell: Literal["lstm", "gru", "rnn"] = "lstm",
        residual: bool = True,
        skip: bool = False,
        head_features: int = 32,
        head_layers: int = 2,
        learning_rate: float = 1e-3,
        optimizer: Literal["rmsprop", "adam"] = "rmsprop",
        final_rate: float = 1.0,
    ) -> None:
        super().__init__(levels, learning_rate=learning_rate, optimizer=optimizer, final_rate=final_rate)
        self.save_hyperparameters()
        self.network = self.build(0)

    def build(self, context_features: int) -> PixelNetwork:
        """A network with the hyperparameters of the model.

        Args:
            context_features: maps of the context on which it is conditioned; 0 for none.

        Raises:
            ValueError: an unknown layer or cell, or fewer features than colours.
        """
        options = self.hparams
        layer, cell, features = options["layer"], options["cell"], options["features"]
        channels = options["image_channels"]
        if layer not in LAYERS:
            raise ValueError(f"layer must be 'row' or 'diagonal', not {layer!r}")
        if cell not in CELLS:
            raise ValueError(f"cell must be 'lstm', 'gru' or 'rnn', not {cell!r}")
        if min(features, options["head_features"]) < channels:
            raise ValueError(f"features and head_features must be at least the {channels} colours")
        layers = [
            LAYERS[layer](
                features, channels, cell=cell, residual=options["residual"], context_features=context_features
            )
            for _ in range(options["num_layers"])
        ]
        return PixelNetwork(
            layers,
            features,
            channels,
            self.outputs,
            head_features=options["head_features"],
            head_layers=options["head_layers"],
            skip=options["skip"],
            # NOTE(paper): a blank column. The last pixel of a row is in no feature of its own row, as mask A hides it:
            # without a column behind it, most of the next row could not see it, and the context were not full.
            margin=1 if layer == "diagonal" else 0,
        )

    @classmethod
    def paper(cls, **options: Any) -> PixelRNN:
        """The paper's network for CIFAR-10; use a batch size of 16.

        Args:
            options: replace further arguments of the constructor.
        """
        setting: dict[str, Any] = {
            "image_size": 32,
            "image_channels": 3,
            "levels": 256,
            "features": 128,
            "num_layers": 12,
            "head_features": 1024,
        }
        return cls(**setting | options)

    def logits(self, x: Tensor) -> Tensor:
        """Logits of each sub-pixel given all earlier ones.

        Shape:
            x: (N, C, H, W) in [-1, 1]; output: (N, K, C, H, W).
        """
        return self.network(x)  # type: ignore[no-any-return]

    def sampler(self, n: int) -> PixelSampler:
        """Incremental sampler: one row of features and states per layer is kept.

        Args:
            n: number of images.
        """
        return SAMPLERS[self.hparams["layer"]](self.network, n, self.image_shape[2])
