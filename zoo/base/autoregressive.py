"""Models of exact likelihood: each sub-pixel is drawn from a distribution given all sub-pixels before it.

    log p(x) = sum_i log p(x_i | x_1, ..., x_{i-1})

The order is that of the raster: row after row from the top, pixel after pixel from the left, red, green, blue within a
pixel. A sub-pixel takes one of `num_levels` values; two levels are one logit, more are a softmax.
"""

from __future__ import annotations

import math
from typing import Any, Literal, TypedDict, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.base import Batch, SingleObjectiveModel, Terms, inference
from zoo.engine import rng
from zoo.engine.images import dequantized
from zoo.nn.losses import bernoulli_nats
from zoo.nn.sampling import NaiveSampler, Sampler, pick
from zoo.nn.schedules import Decay

__all__ = ["AutoregressiveModel", "LikelihoodOptions", "OptimizerName"]

OptimizerName = Literal["adam", "rmsprop", "sgd"]


class LikelihoodOptions(TypedDict, total=False):
    """How a model of exact likelihood is trained, whatever its paper."""

    learning_rate: float
    """Step size (0.001)."""
    decay: Decay | None
    """Schedule of the step size (constant)."""


class AutoregressiveModel(SingleObjectiveModel):
    """A model of exact likelihood, trained by maximum likelihood.

    Subclasses build `network`, which maps images to `logits` (or override `logits`), and define `sampler` where there
    is a faster one than the naive.

    Args:
        num_levels: values that a sub-pixel can take: 2 for binary images, 256 for 8 bits.
        optimizer: "adam", "rmsprop", or "sgd" with a momentum of 0.9.
        learning_rate: step size.
        decay: schedule of the step size; None keeps it.

    Raises:
        ValueError: fewer than two levels, or an unknown optimizer.
    """

    main_function = "log_prob"
    real_valued = False
    """Whether `log_prob` is a density of images in [0, 1], not a probability of levels."""
    inference_networks: tuple[str, ...] = ("network",)
    network: nn.Module

    def __init__(
        self,
        num_levels: int,
        *,
        optimizer: OptimizerName = "adam",
        learning_rate: float = 1e-3,
        decay: Decay | None = None,
    ) -> None:
        super().__init__()
        if optimizer not in ("adam", "rmsprop", "sgd"):
            raise ValueError(f"optimizer must be 'adam', 'rmsprop' or 'sgd', not {optimizer!r}")
        self.num_levels = num_levels
        self.optimizer_kind, self.learning_rate, self.decay = optimizer, learning_rate, Decay.of(decay)

    @property
    def outputs(self) -> int:
        """Logits per sub-pixel: 1 for two levels."""
        return 1 if self.num_levels == 2 else self.num_levels

    # Values ----------------------------------------------------------------------------------------------------------

    def to_levels(self, x: Tensor) -> Tensor:
        """Nearest levels of images; of two levels, 1 above the middle.

        Shape:
            x: (N, C, H, W) in [-1, 1]; output: the same, int64.
        """
        return (x > 0).long() if self.num_levels == 2 else ((x + 1) / 2 * (self.num_levels - 1)).round().long()

    def to_images(self, levels: Tensor) -> Tensor:
        """Images of levels.

        Shape:
            levels: (N, C, H, W) int64; output: the same, in [-1, 1].
        """
        return levels.to(self.dtype) * (2 / (self.num_levels - 1)) - 1

    # Likelihood ------------------------------------------------------------------------------------------------------

    def logits(self, x: Tensor) -> Tensor:
        """Logits of each sub-pixel given all earlier ones.

        Shape:
            x: (N, C, H, W) in [-1, 1], on the model's levels; output: (N, K, C, H, W), K = 1 for two levels.
        """
        return cast(Tensor, self.network(x))

    def log_likelihood(self, x: Tensor) -> Tensor:
        """log p of images, with gradients.

        Shape:
            x: (N, C, H, W) in [-1, 1]; output: (N,) nats.
        """
        target = self.to_levels(x)
        return self.density(self.logits(self.to_images(target)), target)

    def density(self, logits: Tensor, target: Tensor) -> Tensor:
        """log p of levels under their logits.

        Shape:
            logits: (N, K, C, H, W); target: (N, C, H, W) int64; output: (N,) nats.
        """
        if self.num_levels == 2:
            density = bernoulli_nats(logits[:, 0], target.to(logits.dtype))
        else:
            density = F.cross_entropy(logits, target, reduction="none")
        return -density.flatten(1).sum(1)

    @inference
    def log_prob(self, x: Tensor) -> Tensor:
        """log p of images, rounded to the model's levels.

        Shape:
            x: (N, C, H, W) in [-1, 1]; output: (N,) nats.
        """
        return self.log_likelihood(x)

    @inference
    def bits_per_dim(self, x: Tensor, *, seed: int = 0, first: int = 0) -> Tensor:
        """-log2 p per sub-pixel; for a density, a bound of that of 8-bit values, which get uniform noise.

        Args:
            x: images.
            seed: seed of the noise.
            first: global index of the first image.

        Shape:
            x: (N, C, H, W) in [-1, 1]; output: (N,).
        """
        x = dequantized(x, seed, first) if self.real_valued else x
        return 8 * self.real_valued - self.log_prob(x) / (x[0].numel() * math.log(2))

    @inference
    def score(self, x: Tensor) -> Tensor:
        """Anomaly score -log p in nats: higher means less likely.

        Shape:
            x: (N, C, H, W) in [-1, 1]; output: (N,).
        """
        return -self.log_prob(x)

    # Sampling --------------------------------------------------------------------------------------------------------

    def sampler(self, n: int) -> Sampler:
        """The model's fastest exact sampler.

        Args:
            n: number of images.
        """
        return NaiveSampler(self.logits)

    @inference
    def sample(
        self,
        n: int,
        *,
        seed: int | None = None,
        first: int = 0,
        temperature: float = 1.0,
        prefix: Tensor | None = None,
        naive: bool = False,
        **conditions: Any,
    ) -> Tensor:
        """Draw images sub-pixel by sub-pixel, or complete images whose upper rows are given.

        Args:
            n: number of images.
            seed: seed of the draw; None takes a new one.
            first: global index of the first image: image i depends on (seed, first + i) only.
            temperature: divides the logits; below 1 likely values become likelier.
            prefix: upper rows, kept as they are (on the model's levels); one image stands for all n.
            naive: run the whole model for every sub-pixel. The same draws, slowly.
            conditions: none.

        Shape:
            prefix: (n or 1, C, rows, W) in [-1, 1]; output: (n, C, H, W) in [-1, 1].

        Raises:
            ValueError: a condition was given, the temperature is not positive, or the prefix has another shape.
        """
        if conditions:
            raise ValueError(f"{type(self).__name__} has no condition {next(iter(conditions))!r}")
        if not temperature > 0:
            raise ValueError(f"temperature must be positive, not {temperature}")
        x, rows = self.canvas(n, prefix)
        seed = self.resolve_seed(seed)
        return self.draw_images(x, rows, seed=seed, first=first, temperature=temperature, naive=naive)

    @inference
    def completions(self, upper: Tensor, num: int, *, seed: int = 0) -> Tensor:
        """Images that go on from given upper rows.

        Args:
            upper: the rows.
            num: images for each.
            seed: seed of the draws.

        Shape:
            upper: (N, C, rows, W) in [-1, 1]; output: (N, num, C, H, W).
        """
        prefix = upper.repeat_interleave(num, 0)
        return cast(Tensor, self.sample(len(prefix), seed=seed, prefix=prefix).unflatten(0, (len(upper), num)))

    def canvas(self, n: int, prefix: Tensor | None) -> tuple[Tensor, int]:
        """Images with the rows of a prefix at the top, and the number of these rows.

        Shape:
            prefix: (n or 1, C, rows, W) in [-1, 1]; output: (n, C, H, W), a number.

        Raises:
            ValueError: the prefix has another shape.
        """
        options: dict[str, Any] = {"device": self.device, "dtype": self.dtype}
        x, rows = torch.zeros(n, *self.image_shape, **options), 0
        if prefix is not None:
            channels, height, width = self.image_shape
            shape, rows = tuple(prefix.shape), prefix.size(-2)
            if shape not in {(k, channels, rows, width) for k in (1, n)} or rows > height:
                raise ValueError(f"prefix must be ({n} or 1, {channels}, at most {height} rows, {width}), not {shape}")
            x[:, :, :rows] = self.to_images(self.to_levels(prefix.to(**options)))
        return x, rows

    def draw_images(self, x: Tensor, rows: int, *, seed: int, first: int, temperature: float, naive: bool) -> Tensor:
        """The drawing of `sample`, whose arguments these are; architectures that draw in another way override it.

        Args:
            x: images whose first rows are given.
            rows: number of given rows.

        Shape:
            x, output: (N, C, H, W).
        """
        sampler = NaiveSampler(self.logits) if naive else self.sampler(len(x))
        self.fill(x, rows, self.draws(x, seed, "sample", first), temperature, sampler)
        return x

    @staticmethod
    def draws(x: Tensor, seed: int, purpose: str, first: int) -> Tensor:
        """A uniform draw in [0, 1) for each sub-pixel; those of image i depend on (seed, purpose, first + i) only.

        Shape:
            x, output: (N, C, H, W).
        """
        return rng.uniform(x.shape, rng.key(seed, purpose), first, device=x.device, dtype=x.dtype)

    @torch.inference_mode()  # thousands of small operations: a seventh of the time is autograd's book-keeping
    def fill(self, x: Tensor, rows: int, u: Tensor, temperature: float, sampler: Sampler) -> None:
        """Draw all rows below the given ones, in place.

        Args:
            x: images whose first rows are given.
            rows: number of given rows.
            u: a uniform draw for each sub-pixel.
            temperature: divides the logits.
            sampler: gives the logits.

        Shape:
            x, u: (N, C, H, W).
        """
        _, channels, height, width = x.shape
        values = self.to_images(torch.arange(self.num_levels, device=x.device))
        for row in range(height):
            sampler.start_row(x, row)
            for column in range(width):
                for channel in range(channels):
                    logits = sampler.logits(x, row, column, channel)
                    if row >= rows:
                        level = pick(logits, u[:, channel, row, column], temperature)
                        x[:, channel, row, column] = values[level]

    # Training --------------------------------------------------------------------------------------------------------

    def objective(self, batch: Batch) -> Terms:
        """The mean negative log-likelihood in nats per image.

        Shape:
            Output: a scalar.
        """
        return {"nats": -self.log_likelihood(batch["image"]).mean()}

    def _log_terms(self, split: str, batch: Batch) -> None:
        self._log_nats(split, self.objective(batch)["nats"], batch)

    def _log_nats(self, split: str, nats: Tensor, batch: Batch) -> None:
        logged = {"loss": nats, "nats": nats}
        if not self.real_valued:
            logged["bits_per_dim"] = nats / (batch["image"][0].numel() * math.log(2))
        self.log_dict(
            {f"{split}/{name}": value for name, value in logged.items()},
            on_epoch=True,
            sync_dist=True,
            batch_size=len(batch["image"]),
        )

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam, RMSProp, or gradient descent with momentum."""
        parameters, rate = self.parameters(), self.learning_rate
        if self.optimizer_kind == "adam":
            return self.adam(parameters, rate)
        if self.optimizer_kind == "rmsprop":
            return torch.optim.RMSprop(parameters, rate)
        return torch.optim.SGD(parameters, rate, momentum=0.9)
