"""PixelRNN with gated recurrent units in place of the LSTM: three gates instead of four, and no cell state.

    r, z = sigmoid(K_ss * h_previous + K_is * x)
    n = tanh(K_is^n * x + r (K_ss^n * h_previous)),   h = (1 - z) n + z h'

h' is the state of the same place, one step before. Cho et al., "Learning Phrase Representations using RNN
Encoder-Decoder for Statistical Machine Translation", EMNLP 2014, arXiv 1406.1078, for the cell; `zoo.pixelrnn` for all
else.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.nn.pixelrnn import Cell
from zoo.pixelrnn import PixelRNN

__all__ = ["GRU", "GRUPixelRNN"]


class GRU(Cell):
    """h = (1 - z) tanh(n_x + r n_h) + z h', with r and z sigmoids; h is the memory.

    The reset gate multiplies the contribution n_h of the previous states, as in cuDNN, so that one product with these
    states is enough. Both contributions to n have places of their own in the sum of the gates.

    References:
        Cho et al. 2014, section 2.3.
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
        # The memory must not change when `out` is written again.
        return h, h if out is None else h.clone()


class GRUPixelRNN(PixelRNN):
    """PixelRNN with GRU cells; its arguments are those of `PixelRNN`."""

    cell = GRU()
