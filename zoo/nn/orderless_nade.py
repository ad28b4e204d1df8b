"""The network of orderless NADE, and its fast pass over all values in one order."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from zoo.engine.tracing import is_exported

__all__ = ["OrderlessNetwork"]

ROWS = 4096
"""Rows that pass through the hidden layers together in `OrderlessNetwork.in_order`."""


class OrderlessNetwork(nn.Module):
    """A logit of each value, given some of the values and a mask that says which.

    Args:
        dims: number of values D.
        hidden: widths of the hidden layers.

    Shape:
        x, known: (N, D) in {0, 1}; output: (N, D).
    """

    def __init__(self, dims: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.dims = dims
        # A masked value is zero, and so may be a known one: the network also reads the mask.
        self.first = nn.Linear(2 * dims, hidden[0])
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(hidden))
        self.last = nn.Linear(hidden[-1], dims)

    def forward(self, x: Tensor, known: Tensor) -> Tensor:
        """All logits; those of known values have no meaning."""
        logits: Tensor = self.last(self.features(self.first(torch.cat([x * known, known], 1))))
        return logits

    def features(self, a: Tensor) -> Tensor:
        """The last hidden layer, from the activations of the first one.

        Shape:
            a: (..., H); output: (..., H').
        """
        h = a.relu()
        for layer in self.hidden:
            h = layer(h).relu()
        return h

    def columns(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """Weights that multiply a value and its entry in the mask, in the first activations.

        Shape:
            places: any shape; outputs: that shape + (H,).
        """
        weight = self.first.weight.T
        return weight[places], weight[places + self.dims]

    def in_order(self, x: Tensor, order: Tensor) -> Tensor:
        """Logits of each value given those before it in an order: D passes through the hidden layers, in chunks.

        Shape:
            x: (N, D); order: (D,); output: (N, D) in raster order.
        """
        n, logits = x.size(0), []
        with torch.autocast(x.device.type, enabled=False):  # sums of many values: in full precision
            a = self.first.bias.expand(1, n, -1)
            for places in order.split(64 if is_exported() else max(1, ROWS // n)):
                weight, flag = self.columns(places)
                steps = torch.cat([a, x.T[places, :, None] * weight[:, None] + flag[:, None]]).cumsum(0)
                a = steps[-1:]  # of all values up to the next chunk; a value enters after its prediction
                h = self.features(steps[:-1])  # (chunk, N, H)
                logits.append(torch.baddbmm(self.last.bias[places, None, None], h, self.last.weight[places, :, None]))
            return torch.cat(logits)[order.argsort(), :, 0].T
