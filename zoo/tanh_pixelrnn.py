"""PixelRNN with the plain recurrent cell in place of the LSTM: no gates, the least that a recurrence can be.

    h = tanh(K_ss * h_previous + K_is * x)

See `zoo.pixelrnn` for all else.
"""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.nn.pixelrnn import Cell
from zoo.pixelrnn import PixelRNN

__all__ = ["Tanh", "TanhPixelRNN"]


class Tanh(Cell):
    """h = tanh(n); the memory is not used."""

    gates = 1

    def step(self, gates: Tensor, memory: Tensor, out: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The next h."""
        return torch.tanh(gates, out=out), memory


class TanhPixelRNN(PixelRNN):
    """PixelRNN with tanh cells; its arguments are those of `PixelRNN`."""

    cell = Tanh()
