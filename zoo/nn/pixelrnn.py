"""Recurrences over images: the LSTM cell, scans by rows and by diagonals, and the skew that makes diagonals columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.engine.tracing import is_exported

__all__ = [
    "LSTM",
    "Cell",
    "Scan",
    "compiled_scan",
    "diagonal_scan",
    "images_first",
    "images_last",
    "plain_scan",
    "row_scan",
    "skew",
    "unskew",
]


class Cell:
    """A recurrent cell: a function of its gates, the sum of one contribution of the input and one of previous states.

    Gates come before places, so that a gate of all places is one block of memory.

    Attributes:
        gates: gates per unit; they are laid out gate by gate.
    """

    gates: int

    def from_input(self, gates: Tensor) -> Tensor:
        """The contribution of the input in the layout of the sum.

        Shape:
            gates: (..., gates x units, places).
        """
        return gates

    def from_state(self, weight: Tensor) -> Tensor:
        """The state-to-state weight in the layout of the sum.

        Shape:
            weight: (..., gates x units, inputs).
        """
        return weight

    def step(self, gates: Tensor, memory: Tensor, out: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The next hidden state h and the next memory.

        Args:
            gates: sum of both contributions.
            memory: memory of the last step.
            out: tensor that receives h, if no gradient is needed.

        Shape:
            gates: (..., G, places) in the layout of the sum; memory, outputs: (..., units, places).
        """
        raise NotImplementedError


class LSTM(Cell):
    """c = sigmoid(f) c_previous + sigmoid(i) tanh(g), h = sigmoid(o) tanh(c); c is the memory.

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


def _three_above(h: Tensor) -> Tensor:
    return torch.cat([F.pad(h, (1, -1)), h, F.pad(h, (-1, 1))], 1)


def _upper_and_left(h: Tensor) -> Tensor:
    # On the skewed map the upper pixel is in the column before, one row up: zeros enter at the top, never below.
    return torch.cat([F.pad(h, (0, 0, 1, -1)), h], 1)


def plain_scan(
    steps: Sequence[Tensor], weight: Tensor, cell: Cell, taps: int, neighbors: Callable[[Tensor], Tensor]
) -> list[Tensor]:
    """Hidden states step by step.

    Args:
        steps: the input's contributions to the gates.
        weight: state-to-state weight.
        cell: the cell.
        taps: previous states that a state follows from.
        neighbors: these states, one after the other in the axis of units.

    Shape:
        steps: (D, gates x units, A, B) each, all pixels of a step of all images; weight: (D, gates x units, taps x
        units); outputs: (D, units, A, B).
    """
    directions, _, *pixels = steps[0].shape
    weight = cell.from_state(weight)
    h = weight.new_zeros(directions, weight.size(2) // taps, *pixels)
    memory = h.flatten(2)
    hidden = []
    # The input's contribution is computed for all steps at once: a step is one product and the cell.
    for gates in steps:
        state, memory = cell.step(torch.baddbmm(gates.flatten(2), weight, neighbors(h).flatten(2)), memory)
        h = state.unflatten(2, pixels)
        hidden.append(h)
    return hidden


Scan = Callable[..., list[Tensor]]
"""What `plain_scan` is."""


def compiled_scan() -> Scan:
    """`plain_scan` with all its steps in one compiled graph: fewer kernels, and minutes of compilation.

    It serves training on batches of the first one's size; others would be compiled again.
    """
    compiled = torch.compile(plain_scan, dynamic=False)
    form: list[tuple[Any, ...]] = []

    def scan(steps: Sequence[Tensor], weight: Tensor, *rest: Any) -> list[Tensor]:
        if not torch.is_grad_enabled():
            return plain_scan(steps, weight, *rest)
        own = len(steps), steps[0].shape, weight.shape
        form[:] = form or [own]
        return (compiled if own == form[0] else plain_scan)(steps, weight, *rest)

    return scan


def row_scan(gates: Tensor, weight: Tensor, cell: Cell, scan: Scan = plain_scan) -> Tensor:
    """Hidden states row by row; a state follows from three of the row above.

    Args:
        gates: the input's contributions to the gates.
        weight: its columns belong to the left, the middle and the right state above.
        cell: the cell.
        scan: goes through the rows.

    Shape:
        gates: (gates x units, H, N, W); weight: (1, gates x units, 3 units); output: (units, H, N, W).
    """
    steps = cell.from_input(gates.flatten(1)).unflatten(1, gates.shape[1:])[None].unbind(2)
    return torch.stack(scan(steps, weight, cell, 3, _three_above), 2)[0]


def images_last(x: Tensor) -> Tensor:
    """(N, C, H, W) to (C, H, W, N): there, a pixel of all images is one block of memory, which a skew moves whole."""
    return cast(Tensor, x.flatten(1).t().contiguous().unflatten(0, x.shape[1:]))


def images_first(x: Tensor) -> Tensor:
    """The inverse of `images_last`."""
    return cast(Tensor, x.flatten(0, -2).t().contiguous().unflatten(1, x.shape[:-1]))


def diagonal_scan(x: Tensor, input_weight: Tensor, weight: Tensor, cell: Cell, scan: Scan = plain_scan) -> Tensor:
    """Hidden states diagonal by diagonal; a state follows from the pixel and the states of the upper and the left one.

    What is beside the image stays zero through all steps, if its gates are: the input has a map of ones for the bias.

    Args:
        x: the input, by direction.
        input_weight: input-to-state weight.
        weight: state-to-state weight; its columns belong to the upper and the left state.
        cell: the cell.
        scan: goes through the diagonals.

    Shape:
        x: (D, C, H, W, N); input_weight: (D, gates x units, C); weight: (D, gates x units, 2 units); output: (D, units,
        H, W, N).
    """
    # Skewed before the product, not after: the gates have several times the maps of the input.
    x = skew(x)  # (T, D, C, H, N)
    steps = (cell.from_input(input_weight) @ x.flatten(3)).unflatten(3, x.shape[3:])
    return unskew(torch.stack(scan(steps.unbind(), weight, cell, 2, _upper_and_left)))


class _Skew(torch.autograd.Function):
    """One copy between the two layouts; each direction is the gradient of the other."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, back: bool) -> Tensor:
        ctx.back = back
        if back:
            steps, *_, height, _ = x.shape
            return _diagonals(x.contiguous(), steps - height + 1).movedim(0, -2).contiguous()
        *rest, height, width, n = x.shape
        y = x.new_zeros(height + width - 1, *rest, height, n)
        _diagonals(y, width).copy_(x.movedim(-2, 0))
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return _Skew.apply(grads[0], not ctx.back), None


def _diagonals(skewed: Tensor, width: int) -> Tensor:
    """A view (W, ..., H, N) on the pixels in a skewed map (T, ..., H, N): one row further down is one step later."""
    *outer, rows, images = skewed.stride()
    return skewed.as_strided((width, *skewed.shape[1:]), (*outer, outer[0] + rows, images))


def skew(x: Tensor) -> Tensor:
    """Diagonals as steps: row r is shifted to the right by r, zeros fill the rest, and columns come first.

    Shape:
        x: (..., H, W, N); output: (H + W - 1, ..., H, N).
    """
    if is_exported():  # strides are no part of a graph
        height = x.size(-3)
        rows = F.pad(x, (0, 0, 0, height)).flatten(-3, -2)[..., :-height, :]
        return cast(Tensor, rows.unflatten(-2, (height, -1)).movedim(-2, 0))
    return cast(Tensor, _Skew.apply(x, False))


def unskew(x: Tensor) -> Tensor:
    """The inverse of `skew`.

    Shape:
        x: (T, ..., H, N); output: (..., H, T - H + 1, N).
    """
    if is_exported():
        steps, *_, height, _ = x.shape
        rows = F.pad(x.movedim(0, -2).flatten(-3, -2), (0, 0, 0, height)).unflatten(-2, (height, steps + 1))
        return cast(Tensor, rows[..., : steps - height + 1, :])
    return cast(Tensor, _Skew.apply(x, True))
