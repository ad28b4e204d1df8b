"""NADE: a network with one hidden layer that reads an image value by value and tells the distribution of the next.

    a_1 = c,   h_i = sigma(a_i),   p(x_i = 1 | x_<i) = sigmoid(b_i + V_i . h_i),   a_{i+1} = a_i + W_i x_i
    minimise  -log p(x) = -sum_i log p(x_i | x_<i)

Larochelle and Murray, "The Neural Autoregressive Distribution Estimator", AISTATS 2011; real values: Uria, Murray and
Larochelle, "RNADE: The real-valued neural autoregressive density-estimator", NeurIPS 2013, arXiv 1306.0186; both in
Uria et al., "Neural Autoregressive Distribution Estimation", JMLR 17, 2016, arXiv 1605.02226.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.base.autoregressive import AutoregressiveModel, Sampler, pick
from zoo.engine import rng
from zoo.nn.nade import Recursion

__all__ = ["NADE", "NADENetwork"]

Nonlinearity = Literal["sigmoid", "relu"]


class NADENetwork(nn.Module):
    """The recursion's parameters; those of place i belong to the i-th value in the order.

    Args:
        dims: number of values D.
        hidden: number of hidden units H.
        outputs: numbers K that tell the distribution of a value.
        order: the values' places in the raster, in the order in which they are read.
        nonlinearity: "sigmoid" or "relu".
        rescaled: learn a factor rho_i of the activations.
        tied: take V = W; only with one output.

    Shape:
        input: (N, D) in [0, 1], in raster order; output: (N, D, K) in raster order.
    """

    order: Tensor

    def __init__(
        self,
        dims: int,
        hidden: int,
        outputs: int,
        order: Tensor,
        nonlinearity: Nonlinearity,
        rescaled: bool,
        tied: bool,
    ) -> None:
        super().__init__()
        self.relu = nonlinearity == "relu"
        self.register_buffer("order", order)
        self.input_weight = nn.Parameter(0.01 * torch.randn(dims, hidden))
        self.hidden_bias = nn.Parameter(torch.zeros(hidden))
        self.output_weight = None if tied else nn.Parameter(0.01 * torch.randn(dims, outputs, hidden))
        self.output_bias = nn.Parameter(torch.zeros(dims, outputs))
        # Sums of more and more values grow, and with them the activations.
        self.rescaling = nn.Parameter(torch.ones(dims)) if rescaled else None

    @property
    def readout(self) -> Tensor:
        """V, (D, K, H)."""
        return self.input_weight[:, None] if self.output_weight is None else self.output_weight

    def forward(self, x: Tensor) -> Tensor:
        """All outputs; memory for the activations of a chunk of places at a time."""
        chunk = 8 if x.device.type == "cpu" else 56  # as many as lie in a CPU's cache; elsewhere fewer, larger calls
        out: Tensor = Recursion.apply(
            x[:, self.order], self.input_weight, self.hidden_bias, self.readout, self.rescaling, self.relu, chunk
        )  # (D, N, K)
        return (out + self.output_bias[:, None])[self.order.argsort()].transpose(0, 1)


class NADESampler:
    """Keeps the activations of the values so far: O(H) work per value and image.

    Args:
        network: the network.
        n: number of images.
    """

    def __init__(self, network: NADENetwork, n: int) -> None:
        self.network, self.place = network, 0
        self.a = network.hidden_bias.repeat(n, 1)
        self.last: tuple[int, int, int] | None = None

    def start_row(self, x: Tensor, row: int) -> None:
        """Nothing belongs to a row."""

    def logits(self, x: Tensor, row: int, column: int, channel: int) -> Tensor:
        """Outputs of the next place, which must be that of the sub-pixel."""
        network, i = self.network, self.place
        if self.last is not None:
            self.a.addr_((x[:, self.last[2], self.last[0], self.last[1]] + 1) / 2, network.input_weight[i - 1])
        self.last, self.place = (row, column, channel), i + 1
        a = self.a if network.rescaling is None else self.a * network.rescaling[i]
        return torch.addmm(network.output_bias[i], a.relu() if network.relu else a.sigmoid(), network.readout[i].T)


class NADE(AutoregressiveModel):
    """Neural autoregressive distribution estimator, of binary or real values.

    Args:
        image_size: side of the images.
        image_channels: channels of the images.
        hidden_features: number of hidden units.
        likelihood: "bernoulli" for binary images; "gaussian_mixture" for real values (RNADE), whose density refers to
            data in [0, 1].
        components: Gaussians per value ("gaussian_mixture").
        nonlinearity: "sigmoid" or "relu"; None takes the papers': sigmoid for binary, ReLU for real values.
        ordering: in which values are read: "raster", or a "random" one that is drawn once and kept with the weights.
        ordering_seed: seed of the random one.
        tied: one matrix for W and V ("bernoulli").
        learning_rate: step size.
        optimizer: "adam", "rmsprop" or "sgd" with momentum.
        final_rate: share of the step size that is left at the end of the run, to which it falls exponentially.

    Raises:
        ValueError: an unknown likelihood, ordering or nonlinearity, no components, or tied weights of a mixture.

    References:
        Larochelle and Murray 2011, section 3; Uria et al. 2013, section 3.
    """

    # NOTE(paper): Adam as in later implementations, not the papers' plain gradient descent with rates from a grid.
    # NOTE(paper): RNADE multiplies the gradients of its means by their deviation; here Adam sets the scale.

    def __init__(
        self,
        image_size: int = 28,
        image_channels: int = 1,
        hidden_features: int = 500,
        *,
        likelihood: Literal["bernoulli", "gaussian_mixture"] = "bernoulli",
        components: int = 10,
        nonlinearity: Nonlinearity | None = None,
        ordering: Literal["raster", "random"] = "raster",
        ordering_seed: int = 0,
        tied: bool = False,
        learning_rate: float = 1e-3,
        optimizer: Literal["rmsprop", "adam", "sgd"] = "adam",
        final_rate: float = 1.0,
    ) -> None:
        super().__init__(2, learning_rate=learning_rate, optimizer=optimizer, final_rate=final_rate)
        self.save_hyperparameters()
        if likelihood not in ("bernoulli", "gaussian_mixture"):
            raise ValueError(f"likelihood must be 'bernoulli' or 'gaussian_mixture', not {likelihood!r}")
        if ordering not in ("raster", "random"):
            raise ValueError(f"ordering must be 'raster' or 'random', not {ordering!r}")
        if nonlinearity not in ("sigmoid", "relu", None):
            raise ValueError(f"nonlinearity must be 'sigmoid' or 'relu', not {nonlinearity!r}")
        if components < 1:
            raise ValueError(f"components must be at least 1, not {components}")
        self.mixture = likelihood == "gaussian_mixture"
        if tied and self.mixture:
            raise ValueError("tied weights need one output per value: likelihood='bernoulli'")
        dims = math.prod(self.image_shape)
        key = rng.key(ordering_seed, "ordering")
        order = torch.arange(dims) if ordering == "raster" else rng.permutation(dims, key)
        self.network = NADENetwork(
            dims,
            hidden_features,
            self.outputs,
            order,
            nonlinearity or ("relu" if self.mixture else "sigmoid"),
            rescaled=self.mixture,
            tied=tied,
        )
        if self.mixture:  # components that start apart: side by side over [0, 1]
            with torch.no_grad():
                self.network.output_bias[:, components : 2 * components] = (torch.arange(components) + 0.5) / components
                self.network.output_bias[:, 2 * components :] = -math.log(components)

    @property
    def outputs(self) -> int:
        """Numbers per value: a logit, or the logits, means and log deviations of the components."""
        return 3 * int(self.hparams["components"]) if self.mixture else 1

    # Likelihood ------------------------------------------------------------------------------------------------------

    def to_levels(self, x: Tensor) -> Tensor:
        """Levels of binary images; real values stay as they are."""
        return x if self.mixture else super().to_levels(x)

    def to_images(self, levels: Tensor) -> Tensor:
        """The inverse of `to_levels`."""
        return levels if self.mixture else super().to_images(levels)

    def logits(self, x: Tensor) -> Tensor:
        """Logits, or the mixture's numbers, of each value given those before it in the order.

        Shape:
            x: (N, C, H, W) in [-1, 1]; output: (N, K, C, H, W).
        """
        out: Tensor = self.network((x.permute(0, 2, 3, 1).flatten(1) + 1) / 2)
        channels, height, width = self.image_shape
        return out.view(len(x), height, width, channels, -1).permute(0, 4, 3, 1, 2)

    def log_likelihood(self, x: Tensor) -> Tensor:
        """log p of images, with gradients; for real values the log density of the image in [0, 1].

        Shape:
            x: (N, C, H, W) in [-1, 1]; output: (N,) nats.
        """
        if not self.mixture:
            return super().log_likelihood(x)
        logits, mean, log_std = mixture(self.logits(x))
        z = ((x[:, None] + 1) / 2 - mean) * (-log_std).exp()
        density = logits.log_softmax(1) - 0.5 * z.square() - log_std - 0.5 * math.log(2 * math.pi)
        nats: Tensor = density.logsumexp(1).flatten(1).sum(1)
        return nats

    # Sampling --------------------------------------------------------------------------------------------------------

    def sampler(self, n: int) -> Sampler:
        """One that keeps the activations."""
        return NADESampler(self.network, n)

    def fill(self, x: Tensor, rows: int, u: Tensor, temperature: float, sampler: Sampler) -> None:
        """Draw value by value in the model's order; real values are clamped to the range before others see them.

        Raises:
            ValueError: rows are given, and the order is not that of the raster.
        """
        if rows and self.hparams["ordering"] != "raster":
            raise ValueError("prefix needs ordering='raster': in another order rows are not read from the top")
        channels, _, width = self.image_shape
        for place in self.network.order.tolist():
            row, column, channel = place // channels // width, place // channels % width, place % channels
            numbers = sampler.logits(x, row, column, channel)
            if row >= rows:
                x[:, channel, row, column] = self.draw(numbers, u[:, channel, row, column], temperature)

    def draw(self, numbers: Tensor, u: Tensor, temperature: float) -> Tensor:
        """A value drawn from its distribution.

        Args:
            numbers: what the network says of it.
            u: a uniform draw; for a mixture it chooses the component, and its place within the component's share of
                [0, 1), which is uniform again, the quantile of the Gaussian.
            temperature: divides the logits; a mixture's deviations grow with its square root.

        Shape:
            numbers: (N, K); u, output: (N,).
        """
        if not self.mixture:
            return self.to_images(pick(numbers, u, temperature))
        logits, mean, log_std = mixture(numbers)
        upper = (logits / temperature).softmax(1).cumsum(1)
        k = torch.searchsorted(upper, u[:, None].contiguous(), right=True).clamp_(max=upper.size(1) - 1)
        lower = torch.cat([torch.zeros_like(u[:, None]), upper], 1).gather(1, k)
        tiny = torch.finfo(u.dtype).eps
        within = ((u[:, None] - lower) / (upper.gather(1, k) - lower)).clamp_(tiny, 1 - tiny)
        std = log_std.gather(1, k).exp() * math.sqrt(temperature)
        value: Tensor = mean.gather(1, k) + std * torch.special.ndtri(within)
        return (2 * value[:, 0] - 1).clamp_(-1, 1)


def mixture(numbers: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, means and log deviations of a mixture's components, out of a network's outputs.

    Shape:
        numbers: (N, 3K, ...); output: three of (N, K, ...).
    """
    logits, mean, log_std = numbers.chunk(3, 1)
    # NOTE(paper): half an 8-bit step more, as the density of a value that never varies has no upper bound.
    return logits, mean, F.softplus(log_std + math.log(512)) - math.log(512)
