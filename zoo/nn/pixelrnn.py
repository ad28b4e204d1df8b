"""Recurrences over images: cells, the two ways to run them, and the skewing that makes diagonals columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["CELLS", "Cell", "diagonal_scan", "row_scan", "skew", "unskew"]


class Cell:
    """A recurrent cell as a function of the sum of what input and previous states contribute to its gates.

    Features come before places: then a gate of all places is one block of memory.

    Attributes:
        gates: gates per unit; features count gate by gate.
    """

    gates: int

    def from_input(self, gates: Tensor) -> Tensor:
        """Contribution of the input as the sum takes it.

        Shape:
            gates: (..., gates x units, places).
        """
        return gates

    def from_state(self, weight: Tensor) -> Tensor:
        """State-to-state weight as the sum takes it.

        Shape:
            weight: (..., gates x units, inputs).
        """
        return weight

    def step(self, gates: Tensor, memory: Tensor, out: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The next hidden state h and what the cell keeps for its next step.

        Args:
            gates: sum of what input and states contribute.
            memory: what the cell kept.
            out: where h goes, if no gradient is needed.

        Shape:
            gates: (..., as `from_input` gives, places); memory, outputs: (..., units, places).
        """
        raise NotImplementedError


class LSTM(Cell):
    """c = sigmoid(f) c_previous + sigmoid(i) tanh(g), h = sigmoid(o) tanh(c); it keeps c.

    References:
        van den Oord et al. 2016, equation 3.
    """

    gates = 4

    def step(self, gates: Tensor, memory: Tensor, out: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The next h and c."""
        units = memory.size(-2)
        switches, content = gates.split([3 * units, units], -2)
        output, forget, enter = switches.sigmoid().chunk(3, -2)
        memory = torch.addcmul(forget * memory, enter, content.tanh())
        return torch.mul(output, memory.tanh(), out=out), memory


class GRU(Cell):
    """h = (1 - z) tanh(n_x + r n_h) + z h_previous, with r and z sigmoids; it keeps h of the same place.

    The reset gate acts on what the previous states contribute to n, as in cuDNN: then one product with them is enough.
    Both contributions to n get places of their own in the sum.

    References:
        Cho et al. 2014, "Learning Phrase Representations using RNN Encoder-Decoder", section 2.3.
    """

    gates = 3

    def from_input(self, gates: Tensor) -> Tensor:
        """[r, z, n] to [r, z, n, 0]."""
        return F.pad(gates, (0, 0, 0, gates.size(-2) // 3))

    def from_state(self, weight: Tensor) -> Tensor:
        """[r, z, n] to [r, z, 0, n]."""
        reset, update, new = weight.chunk(3, -2)
        return torch.cat([reset, update, torch.zeros_like(new), new], -2)

    def step(self, gates: Tensor, memory: Tensor, out: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The next h, twice."""
        units = memory.size(-2)
        switches, from_input, from_state = gates.split([2 * units, units, units], -2)
        reset, update = switches.sigmoid().chunk(2, -2)
        new = torch.addcmul(from_input, reset, from_state).tanh()
        h = torch.addcmul(new, update, memory - new, out=out)
        # What is kept must not change when `out` is written again.
        return h, h if out is None else h.clone()


class RNN(Cell):
    """h = tanh(n); it keeps nothing."""

    gates = 1

    def step(self, gates: Tensor, memory: Tensor, out: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The next h."""
        return torch.tanh(gates, out=out), memory


CELLS: dict[str, Cell] = {"lstm": LSTM(), "gru": GRU(), "rnn": RNN()}


def _three_above(h: Tensor) -> Tensor:
    return torch.cat([F.pad(h, (1, -1)), h, F.pad(h, (-1, 1))], 1)


def _upper_and_left(h: Tensor) -> Tensor:
    # On the skewed map the upper pixel is in the column before, one row up: zeros enter at the top, never below.
    return torch.cat([F.pad(h, (1, -1)), h], 1)


def _scan(
    steps: Sequence[Tensor], weight: Tensor, cell: Cell, taps: int, neighbours: Callable[[Tensor], Tensor]
) -> list[Tensor]:
    directions, _, n, places = steps[0].shape
    weight = cell.from_state(weight)
    h = weight.new_zeros(directions, weight.size(2) // taps, n, places)
    memory = h.flatten(2)
    hidden = []
    # The input's share is there for all steps: what is left of a step is one product and the cell.
    for gates in steps:
        state, memory = cell.step(torch.baddbmm(gates.flatten(2), weight, neighbours(h).flatten(2)), memory)
        h = state.unflatten(2, (n, places))
        hidden.append(h)
    return hidden


def row_scan(gates: Tensor, weight: Tensor, cell: Cell) -> Tensor:
    """Hidden states row by row; a state follows from three of the row above.

    Args:
        gates: the input's contributions to the gates.
        weight: its columns count the left, the middle and the right state above.
        cell: the cell.

    Shape:
        gates: (gates x units, H, N, W); weight: (1, gates x units, 3 units); output: (units, H, N, W).
    """
    steps = cell.from_input(gates.flatten(1)).unflatten(1, gates.shape[1:])[None].unbind(2)
    return torch.stack(_scan(steps, weight, cell, 3, _three_above), 2)[0]


def diagonal_scan(gates: Tensor, weight: Tensor, cell: Cell) -> Tensor:
    """Hidden states diagonal by diagonal; a state follows from those of the upper and of the left pixel.

    Args:
        gates: the input's contributions to the gates, by direction.
        weight: its columns count the upper and the left state.
        cell: the cell.

    Shape:
        gates: (D, gates x units, N, H, W); weight: (D, gates x units, 2 units); output: (D, units, N, H, W).
    """
    steps = skew(gates)  # (T, D, gates x units, N, H)
    steps = cell.from_input(steps.flatten(3)).unflatten(3, steps.shape[3:])
    return unskew(torch.stack(_scan(steps.unbind(), weight, cell, 2, _upper_and_left)))


class _Skew(torch.autograd.Function):
    """One copy between the two layouts; each direction is the gradient of the other."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, back: bool) -> Tensor:
        ctx.back = back
        if back:
            steps, *rest, height = x.shape
            return _diagonals(x.contiguous(), steps - height + 1).permute(*range(1, x.dim()), 0).contiguous()
        *rest, height, width = x.shape
        y = x.new_zeros(height + width - 1, *rest, height)
        _diagonals(y, width).copy_(x.movedim(-1, 0))
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return _Skew.apply(grads[0], not ctx.back), None


def _diagonals(skewed: Tensor, width: int) -> Tensor:
    """A view (W, ..., H) on the pixels in a skewed map (T, ..., H): one row further down is one step later."""
    strides = skewed.stride()
    return skewed.as_strided((width, *skewed.shape[1:]), (*strides[:-1], strides[0] + strides[-1]))


def skew(x: Tensor) -> Tensor:
    """Diagonals as steps: row r is shifted to the right by r, and columns come first; zeros fill up.

    Shape:
        x: (..., H, W); output: (H + W - 1, ..., H).
    """
    return cast(Tensor, _Skew.apply(x, False))


def unskew(x: Tensor) -> Tensor:
    """The inverse of `skew`.

    Shape:
        x: (T, ..., H); output: (..., H, T - H + 1).
    """
    return cast(Tensor, _Skew.apply(x, True))
