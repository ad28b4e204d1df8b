"""NADE: a network with one hidden layer that reads an image value by value and predicts each value before reading it.

    a_1 = c,   h_i = sigma(a_i),   p(x_i = 1 | x_<i) = sigmoid(b_i + V_i . h_i),   a_{i+1} = a_i + W_i x_i
    minimize  -log p(x) = -sum_i log p(x_i | x_<i)

Larochelle and Murray, "The Neural Autoregressive Distribution Estimator", AISTATS 2011; Uria, Côté, Gregor, Murray and
Larochelle, "Neural Autoregressive Distribution Estimation", JMLR 17, 2016, arXiv 1605.02226. Real values have their own
file, `zoo.rnade`, and so has the deep network for any order, `zoo.orderless_nade`.
"""

from __future__ import annotations

import math
from typing import Literal, Unpack

import torch
from torch import Tensor, nn

from zoo.base.autoregressive import AutoregressiveModel, LikelihoodOptions, OptimizerName
from zoo.engine import rng
from zoo.nn.nade import recursion
from zoo.nn.sampling import Sampler, pick

__all__ = ["NADE", "NADENetwork"]


class NADENetwork(nn.Module):
    """The recursion; row i of each parameter but the hidden bias belongs to the i-th value in the order.

    Args:
        order: places of the values in the raster, in the order in which they are read.
        hidden: number of hidden units H.
        outputs: numbers K that describe the distribution of a value.
        relu: sigma is a ReLU instead of a sigmoid.
        rescaled: multiply each a_i by a learned rho_i.

    Shape:
        input: (N, D) in [0, 1], in raster order; output: (N, D, K) in raster order.
    """

    order: Tensor

    def __init__(
        self, order: Tensor, hidden: int, outputs: int = 1, *, relu: bool = False, rescaled: bool = False
    ) -> None:
        super().__init__()
        dims = len(order)
        self.relu = relu
        self.register_buffer("order", order)
        self.input_weight = nn.Parameter(0.01 * torch.randn(dims, hidden))  # W
        self.hidden_bias = nn.Parameter(torch.zeros(hidden))  # c
        self.output_weight = nn.Parameter(0.01 * torch.randn(dims, outputs, hidden))  # V
        self.output_bias = nn.Parameter(torch.zeros(dims, outputs))  # b
        # Sums of more and more values grow, and with them the activations.
        self.rescaling = nn.Parameter(torch.ones(dims)) if rescaled else None  # rho

    def hidden_units(self, a: Tensor, i: int) -> Tensor:
        """h_i = sigma(a_i).

        Shape:
            a, output: (N, H).
        """
        a = a if self.rescaling is None else a * self.rescaling[i]
        return a.relu() if self.relu else a.sigmoid()

    def naive_forward(self, x: Tensor) -> Tensor:
        """The recursion as the paper writes it: D steps. `forward` computes the same faster."""
        a = self.hidden_bias.expand(x.size(0), -1)  # a_1 = c
        outputs = []
        for i, place in enumerate(self.order):
            h = self.hidden_units(a, i)
            outputs.append(self.output_bias[i] + h @ self.output_weight[i].T)  # b_i + V_i . h_i
            a = a + x[:, place, None] * self.input_weight[i]  # a_{i+1} = a_i + W_i x_i
        return torch.stack(outputs, 1)[:, self.order.argsort()]

    def forward(self, x: Tensor) -> Tensor:
        """All outputs; memory holds the activations of a few values at a time."""
        outputs = recursion(
            x[:, self.order],
            input_weight=self.input_weight,
            hidden_bias=self.hidden_bias,
            output_weight=self.output_weight,
            rescaling=self.rescaling,
            relu=self.relu,
        )  # (D, N, K)
        return (outputs + self.output_bias[:, None])[self.order.argsort()].transpose(0, 1)


class NADESampler:
    """Keeps the activations of the values so far: O(H) work per value and image.

    Args:
        network: the network.
        n: number of images.
    """

    def __init__(self, network: NADENetwork, n: int) -> None:
        self.network, self.i = network, 0
        self.a = network.hidden_bias.repeat(n, 1)
        self.last: tuple[int, int, int] | None = None

    def start_row(self, x: Tensor, row: int) -> None:
        """Nothing belongs to a row."""

    def logits(self, x: Tensor, row: int, column: int, channel: int) -> Tensor:
        """Outputs of the next value in the order, which must be that of the sub-pixel."""
        network, i = self.network, self.i
        if self.last is not None:
            self.a.addr_((x[:, self.last[2], self.last[0], self.last[1]] + 1) / 2, network.input_weight[i - 1])
        self.last, self.i = (row, column, channel), i + 1
        return torch.addmm(network.output_bias[i], network.hidden_units(self.a, i), network.output_weight[i].T)


class NADE(AutoregressiveModel):
    """Neural autoregressive distribution estimator of binary images.

    Args:
        image_size: side of the images.
        image_channels: channels of the images.
        hidden_features: number of hidden units.
        nonlinearity: "sigmoid", as in the paper, or "relu".
        ordering: order in which values are read: "raster", or a "random" one, drawn once and kept with the weights.
        optimizer: "adam", "rmsprop", or "sgd" with momentum.
        options: see `LikelihoodOptions`.

    Raises:
        ValueError: an unknown nonlinearity or ordering.

    References:
        Larochelle and Murray 2011, section 3; Uria et al. 2016, section 2.
    """

    # NOTE(paper): Adam as in later implementations, not the papers' plain gradient descent with rates from a grid.

    network: NADENetwork

    def __init__(
        self,
        image_size: int = 28,
        image_channels: int = 1,
        hidden_features: int = 500,
        *,
        nonlinearity: Literal["sigmoid", "relu"] = "sigmoid",
        ordering: Literal["raster", "random"] = "raster",
        optimizer: OptimizerName = "adam",
        **options: Unpack[LikelihoodOptions],
    ) -> None:
        super().__init__(2, optimizer=optimizer, **options)
        self.save_hyperparameters()
        if nonlinearity not in ("sigmoid", "relu"):
            raise ValueError(f"nonlinearity must be 'sigmoid' or 'relu', not {nonlinearity!r}")
        if ordering not in ("raster", "random"):
            raise ValueError(f"ordering must be 'raster' or 'random', not {ordering!r}")
        dims = math.prod(self.image_shape)
        order = torch.arange(dims) if ordering == "raster" else rng.permutation(dims, rng.key(0, "ordering"))
        self.network = NADENetwork(order, hidden_features, relu=nonlinearity == "relu")

    # Likelihood ------------------------------------------------------------------------------------------------------

    def logits(self, x: Tensor) -> Tensor:
        """The network's outputs for each value, given those before it in the order.

        Shape:
            x: (N, C, H, W) in [-1, 1]; output: (N, K, C, H, W).
        """
        out: Tensor = self.network((x.permute(0, 2, 3, 1).flatten(1) + 1) / 2)
        channels, height, width = self.image_shape
        rows: Tensor = out.unflatten(1, (height, width, channels))
        return rows.permute(0, 4, 3, 1, 2)

    # Sampling --------------------------------------------------------------------------------------------------------

    def sampler(self, n: int) -> Sampler:
        """One that keeps the activations."""
        return NADESampler(self.network, n)

    def fill(self, x: Tensor, rows: int, u: Tensor, temperature: float, sampler: Sampler) -> None:
        """Draw value by value in the model's order.

        Raises:
            ValueError: rows are given, and the order is not that of the raster.
        """
        if rows and self.hparams["ordering"] != "raster":
            raise ValueError("prefix needs ordering='raster': in another order rows are not read from the top")
        channels, _, width = self.image_shape
        raster = self.hparams["ordering"] == "raster"
        for place in range(len(self.network.order)) if raster else self.network.order.tolist():
            pixel, channel = divmod(place, channels)
            row, column = divmod(pixel, width)
            outputs = sampler.logits(x, row, column, channel)
            if row >= rows:
                x[:, channel, row, column] = self.draw(outputs, u[:, channel, row, column], temperature)

    def draw(self, outputs: Tensor, u: Tensor, temperature: float) -> Tensor:
        """A value drawn from its distribution.

        Args:
            outputs: those of the network for this value.
            u: uniform draws in [0, 1).
            temperature: divides the logits.

        Shape:
            outputs: (N, K); u, output: (N,).
        """
        return self.to_images(pick(outputs, u, temperature))
