"""Orderless NADE: one deep network that predicts every value of an image from any others, in any order.

    minimize  E_o E_d  D / (D - d)  sum_{i >= d} -log p(x_{o_i} | x_{o_<d})  =  E_o [-log p(x | o)],   d ~ U{0..D-1}

The same network is one model for each order o; K of them together are an ensemble, p(x) = 1/K sum_k p(x | o_k).

Uria, Murray and Larochelle, "A Deep and Tractable Density Estimator", ICML 2014, arXiv 1310.1757; Uria et al., "Neural
Autoregressive Distribution Estimation", JMLR 17, 2016, arXiv 1605.02226.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Unpack

import torch
from torch import Tensor

from zoo.base import Batch, Terms, inference
from zoo.base.autoregressive import AutoregressiveModel, LikelihoodOptions, OptimizerName
from zoo.engine import rng
from zoo.engine.tracing import is_traced
from zoo.nn.losses import bernoulli_nats
from zoo.nn.orderless_nade import OrderlessNetwork
from zoo.nn.sampling import pick

__all__ = ["OrderlessNADE"]


class OrderlessNADE(AutoregressiveModel):
    """Deep orderless NADE of binary images, an ensemble over orders.

    Training logs the objective, an unbiased estimate, as `nats`; validation and test log the exact likelihood of
    `val_orderings` fixed random orders: D passes through the hidden layers for each image and order.

    Args:
        image_size: side of the images.
        image_channels: channels of the images.
        hidden_features: widths of the hidden layers.
        val_orderings: orders of validation and test; 0 logs the objective there too.
        optimizer: "adam", "rmsprop", or "sgd" with momentum.
        options: see `LikelihoodOptions`.

    Raises:
        ValueError: no hidden layer, or a negative number of orders.

    References:
        Uria, Murray and Larochelle 2014, sections 2 to 4.
    """

    # NOTE(paper): Adam from the start instead of gradient descent after layer-wise pretraining.

    network: OrderlessNetwork

    def __init__(
        self,
        image_size: int = 28,
        image_channels: int = 1,
        hidden_features: Sequence[int] = (500, 500),
        *,
        val_orderings: int = 1,
        optimizer: OptimizerName = "adam",
        **options: Unpack[LikelihoodOptions],
    ) -> None:
        super().__init__(2, optimizer=optimizer, **options)
        self.save_hyperparameters()
        if not hidden_features:
            raise ValueError("hidden_features must name at least one layer")
        self.dims = math.prod(self.image_shape)
        self.network = OrderlessNetwork(self.dims, hidden_features)
        self._orders: dict[tuple[int, int], Tensor] = {}

    # Values in raster order ------------------------------------------------------------------------------------------

    def values(self, x: Tensor) -> Tensor:
        """Binary values of images in raster order: row, column, channel.

        Shape:
            x: (N, C, H, W) in [-1, 1]; output: (N, D) in {0, 1}.
        """
        return self.to_levels(x).to(self.dtype).permute(0, 2, 3, 1).flatten(1)

    def images(self, values: Tensor) -> Tensor:
        """The inverse of `values`."""
        return 2 * self._grid(values) - 1

    def _grid(self, values: Tensor) -> Tensor:
        """Shape: values: (N, D) in raster order; output: (N, C, H, W)."""
        channels, height, width = self.image_shape
        return values.reshape(-1, height, width, channels).permute(0, 3, 1, 2)

    # Likelihood ------------------------------------------------------------------------------------------------------

    def logits(self, x: Tensor) -> Tensor:
        """Logits of each value given all before it in raster order, which is one order among others."""
        order = torch.arange(self.dims, device=x.device)
        return self._grid(self.network.in_order(self.values(x), order))[:, None]

    def log_likelihood(self, x: Tensor, order: Tensor | None = None) -> Tensor:
        """log p of images in one order, without an ensemble.

        Args:
            x: images.
            order: places in the raster (row, column, channel) in the order in which they are read; None: raster order.

        Shape:
            x: (N, C, H, W) in [-1, 1]; order: (D,); output: (N,) nats.
        """
        values = self.values(x)
        order = torch.arange(self.dims, device=x.device) if order is None else order
        logits = self.network.in_order(values, order)
        return -bernoulli_nats(logits, values).sum(1)

    @inference
    def log_prob(self, x: Tensor, num_orderings: int = 8, seed: int = 0) -> Tensor:
        """log p of images under an ensemble of random orders: log mean exp of each one's log p.

        Args:
            x: images.
            num_orderings: size of the ensemble; larger ones assign higher probabilities on average.
            seed: seed of the orders, which are the same for all images.

        Shape:
            x: (N, C, H, W) in [-1, 1]; output: (N,) nats.

        Raises:
            ValueError: no orders.
        """
        if num_orderings < 1:
            raise ValueError(f"num_orderings must be at least 1, not {num_orderings}")
        orders = [self.order(seed, k).to(x.device) for k in range(num_orderings)]
        return torch.stack([self.log_likelihood(x, o) for o in orders]).logsumexp(0) - math.log(num_orderings)

    def order(self, seed: int, k: int) -> Tensor:
        """Order number k of an ensemble, a function of the seed; the first orders of a larger one are the same."""
        if (seed, k) not in self._orders:
            order = rng.permutation(self.dims, rng.key(seed, "ordering", k))
            if is_traced():
                return order
            self._orders[seed, k] = order
        return self._orders[seed, k]

    def train(self, mode: bool = True) -> OrderlessNADE:
        """Set the mode; in evaluation the orders of `log_prob` are kept, as a graph could not draw them."""
        for k in range(0 if mode else 8):
            self.order(0, k)
        return super().train(mode)

    # Sampling --------------------------------------------------------------------------------------------------------

    def draw_images(self, x: Tensor, rows: int, *, seed: int, first: int, temperature: float, naive: bool) -> Tensor:
        """Draw value by value, each image in a random order of its own.

        Given rows come first in the order, so the rest follows the model's exact conditional distribution.
        """
        known = torch.zeros_like(x, dtype=torch.bool)
        known[:, :, :rows] = True
        return self.complete(x, known, seed=seed, first=first, temperature=temperature, naive=naive)

    @inference
    def complete(
        self,
        x: Tensor,
        known: Tensor,
        *,
        seed: int | None = None,
        first: int = 0,
        temperature: float = 1.0,
        naive: bool = False,
    ) -> Tensor:
        """Keep any part of images and draw the rest.

        Args:
            x: images.
            known: where they are kept.
            seed: seed of orders and values; None takes a new one.
            first: global index of the first image.
            temperature: divides the logits.
            naive: run the whole network for every value. The same draws, slowly.

        Shape:
            x: (N, C, H, W) in [-1, 1]; known: a mask that broadcasts to it; output: (N, C, H, W).
        """
        seed, n, network = self.resolve_seed(seed), len(x), self.network
        values = self.values(x)
        given = known.expand_as(x).permute(0, 2, 3, 1).flatten(1)
        u = rng.uniform(values.shape, rng.key(seed, "sample"), first, device=x.device, dtype=values.dtype)
        rank = rng.ranks(values.shape, rng.key(seed, "ordering"), first, device=x.device)
        order = torch.where(given, rank - 2**53, rank).argsort(1)  # given values come first
        images, a = torch.arange(n, device=x.device), network.first.bias.repeat(n, 1)
        mask = torch.zeros_like(values)
        for places in order.unbind(1):
            if naive:
                logits = network(values, mask)[images, places]
            else:
                weight = network.last.weight[places]
                logits = (network.features(a) * weight).sum(1) + network.last.bias[places]
            drawn = pick(logits[:, None], u[images, places], temperature).to(values.dtype)
            value = torch.where(given[images, places], values[images, places], drawn)
            values[images, places] = value
            mask.scatter_(1, places[:, None], 1.0)
            weight, flag = network.columns(places)
            a += value[:, None] * weight + flag
        return self.images(values)

    # Training --------------------------------------------------------------------------------------------------------

    def objective(self, batch: Batch) -> Terms:
        """An unbiased estimate of -log p, the mean over all orders, in nats per image.

        Shape:
            Output: a scalar.
        """
        values = self.values(batch["image"])
        n = len(values)
        size = rng.integers(self.dims, (n, 1), self.draw_key("size"), self.first_index(n), device=values.device)
        return {"nats": self.estimate(values, self.subsets(size)).mean()}

    def subsets(self, size: Tensor) -> Tensor:
        """A random subset of the places for each image; all subsets of its size are equally likely.

        Shape:
            size: (N, 1), from 0 to D - 1; output: (N, D), bool.
        """
        n, first = len(size), self.first_index(len(size))
        key = self.draw_key("subset")
        rank = rng.ranks((n, self.dims), key, first, device=size.device)
        return rank < rank.sort(1).values.gather(1, size)

    def estimate(self, values: Tensor, known: Tensor) -> Tensor:
        """D / (D - d) times the negative log-likelihoods of the D - d values that are not known.

        Shape:
            values, known: (N, D); output: (N,).
        """
        logits = self.network(values, known.to(values.dtype))
        nats = bernoulli_nats(logits, values)
        missing = ~known
        return (nats * missing).sum(1) * self.dims / missing.sum(1)

    def _log_terms(self, split: str, batch: Batch) -> None:
        if (num := int(self.hparams["val_orderings"])) == 0:
            return super()._log_terms(split, batch)
        nats = -self.log_prob(batch["image"], num).mean()
        self._log_nats(split, nats, batch)
