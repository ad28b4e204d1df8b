"""Incremental samplers of PixelRNN: a pixel costs two small matrix products per layer, whatever the image's size.

The gates of a pixel are a sum. The contribution of the row above is computed before the row starts, for all layers and
columns in one product; the pixel's own contribution and its left neighbor's follow along the row. The direction of the
Diagonal BiLSTM from the right needs finished rows only: it runs over each row once, through all layers together.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.nn.masked import PixelNetwork, PixelSampler, matrices

__all__ = ["DiagonalSampler", "RecurrentSampler", "RowSampler"]


class RecurrentSampler(PixelSampler):
    """A sampler of either kind of layer; the weights of all layers are stacked.

    Args:
        network: a network of `RowLayer` or `DiagonalLayer`.
        n: number of images.
        width: width of the images.
        context: maps of a conditional network, (N, context channels, H, W).

    Attributes:
        x_places: by layer and column, the place of the layer's input.
        from_above: by layer and column, the contribution of the rows above to the gates.
        offsets: by layer and column, the part of the 1x1 convolution's output that is known before the row starts:
            the bias and, of the Diagonal BiLSTM, the states from the right.
    """

    x_places: list[tuple[Tensor, ...]]
    from_above: list[tuple[Tensor, ...]]
    offsets: list[tuple[Tensor, ...]]

    def __init__(self, network: PixelNetwork, n: int, width: int, context: Tensor | None = None) -> None:
        super().__init__(network, n, width)
        layers: Any = list(network.layers)
        self.cell = layers[0].cell
        directions, taps = layers[0].directions, layers[0].taps
        self.units = layers[0].state_to_state.size(2) // taps
        # By direction: (L, gates, taps, inputs) and (L, gates, 1).
        weight = torch.stack([layer.input_to_state.masked for layer in layers])[:, :, :, 0].transpose(2, 3)
        self.input_weights = [self._rows(part) for part in weight.chunk(directions, 1)]
        bias = torch.stack([layer.input_to_state.bias for layer in layers])[:, :, None]
        self.input_biases = [self.cell.from_input(part) for part in bias.chunk(directions, 1)]
        state = self.cell.from_state(torch.stack([layer.state_to_state for layer in layers]))
        self.state_weights = state.unbind(1)  # by direction (L, gates, taps x units)
        self.up, self.up_bias = matrices(layer.up for layer in layers)
        self.ups = self.up.unbind()
        self.context = None if context is None else F.pad(context, (0, self.margin))
        if context is not None:
            weight = torch.stack([layer.context.weight[:, :, 0, 0] for layer in layers])
            self.context_weights = [self.cell.from_input(part)[:, None] for part in weight.chunk(directions, 1)]

    def _rows(self, weight: Tensor) -> Tensor:
        """A weight in the layout of the cell's sum."""
        return cast(Tensor, self.cell.from_input(weight.flatten(2)).unflatten(2, weight.shape[2:]))

    def zeros(self, *shape: int) -> Tensor:
        """Zeros like the weights."""
        return self.up.new_zeros(*shape)

    def from_context(self, direction: int, row: int) -> Tensor | float:
        """Contribution of a row of the context to the gates.

        Shape:
            Output: (L, W, gates, N).
        """
        if self.context is None:
            return 0.0
        return cast(Tensor, self.context_weights[direction] @ self.context[:, :, row].permute(2, 1, 0))

    def start(self, i: int, x: Tensor, column: int) -> Tensor:
        """A layer's input in its place; `finish` of the layer before has put it there for all layers but the first."""
        return x if i else self.x_places[0][column].copy_(x)

    def finish(self, i: int, x: Tensor, h: Tensor, column: int) -> Tensor:
        """A layer's output from its hidden state, in its place in the next layer."""
        place = self.x_places[i + 1][column] if i + 1 < self.depth else None
        return torch.addmm(self.offsets[i][column], self.ups[i], h, out=place).add_(x)


def _by_place(x: Tensor) -> list[tuple[Tensor, ...]]:
    """Views of (L, W, channels, N) by layer and column."""
    return [layer.unbind() for layer in x]


class RowSampler(RecurrentSampler):
    """Row LSTM: states follow from the states of the row above, the pixel and its left neighbor."""

    def __init__(self, network: PixelNetwork, n: int, width: int, context: Tensor | None = None) -> None:
        super().__init__(network, n, width, context)
        # The right one of the three taps along the row is masked.
        self.pair_weights = self.input_weights[0][:, :, :2].flatten(2).unbind()
        x = self.zeros(self.depth, width + 1, 2 * self.units, n)  # a zero on the left
        self.x_places = _by_place(x[:, 1:])
        self.pairs = [[layer[i : i + 2].flatten(0, 1) for i in range(width)] for layer in x]
        self.h = self.zeros(self.depth, width + 2, self.units, n)  # zeros on both sides
        self.h_places = _by_place(self.h[:, 1:-1])
        self.memory = [[self.zeros(self.units, n)] * width for _ in range(self.depth)]
        self.offsets = _by_place(self.up_bias[:, None].expand(-1, width, -1, -1))

    def start_layers(self, row: int) -> None:
        """Compute the contribution of the finished row's states to the gates."""
        above = torch.cat([self.h[:, :-2], self.h[:, 1:-1], self.h[:, 2:]], 2)
        gates = self.state_weights[0][:, None] @ above + self.input_biases[0][:, None] + self.from_context(0, row)
        self.from_above = _by_place(gates)
        self.memory_above, self.memory = self.memory, [[*layer] for layer in self.memory]

    def layer(self, i: int, x: Tensor, column: int) -> Tensor:
        """A Row LSTM at one pixel."""
        x = self.start(i, x, column)
        gates = torch.addmm(self.from_above[i][column], self.pair_weights[i], self.pairs[i][column])
        place = self.h_places[i][column]
        h, self.memory[i][column] = self.cell.step(gates, self.memory_above[i][column], out=place)
        return self.finish(i, x, h, column)


class DiagonalSampler(RecurrentSampler):
    """Diagonal BiLSTM: from the left along the row, from the right over the finished row."""

    def __init__(self, network: PixelNetwork, n: int, width: int, context: Tensor | None = None) -> None:
        super().__init__(network, n, width, context)
        width, units = self.width, self.units
        self.upper_weights = [weight[:, None, :, :units] for weight in self.state_weights]
        left = [weight[:, :, units:] for weight in self.state_weights]
        # A pixel's features stand above its left neighbor's state: one product takes both.
        self.joint_weights = torch.cat([self.input_weights[0][:, :, 0], left[0]], 2).unbind()
        self.joint = self.zeros(self.depth, width + 1, 3 * units, n)
        self.joints = _by_place(self.joint)
        self.x_places = _by_place(self.joint[:, :, : 2 * units])
        self.h_places = _by_place(self.joint[:, :, 2 * units :])  # the state of column i stands at i + 1
        self.memory = [[self.zeros(units, n)] * (width + 1) for _ in range(self.depth)]
        self.left_weights = left[1]
        self.right = self.zeros(self.depth, width, units, n)

    def start_layers(self, row: int) -> None:
        """Run over the finished row from the right; compute the contributions of both directions to the next row."""
        if row:
            x = self.joint[:, :-1, : 2 * self.units]
            gates = self.input_weights[1][:, None, :, 0] @ x + self.input_biases[1][:, None]
            gates = gates + self.from_context(1, row - 1) + self.upper_weights[1] @ self.right
            h = memory = self.zeros(self.depth, self.units, self.n)
            states = []
            for share in reversed(gates.unbind(1)):
                h, memory = self.cell.step(torch.baddbmm(share, self.left_weights, h), memory)
                states.append(h)
            self.right = torch.stack(states[::-1], 1)
        left = self.joint[:, 1:, 2 * self.units :]
        gates = self.upper_weights[0] @ left + self.input_biases[0][:, None] + self.from_context(0, row)
        self.from_above = _by_place(gates)
        self.offsets = _by_place(self.up[:, None] @ self.right + self.up_bias[:, None])

    def layer(self, i: int, x: Tensor, column: int) -> Tensor:
        """A Diagonal BiLSTM at one pixel."""
        x = self.start(i, x, column)
        gates = torch.addmm(self.from_above[i][column], self.joint_weights[i], self.joints[i][column])
        place = self.h_places[i][column + 1]
        h, self.memory[i][column + 1] = self.cell.step(gates, self.memory[i][column], out=place)
        return self.finish(i, x, h, column)
