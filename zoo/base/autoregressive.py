"""Models of exact likelihood: each sub-pixel is drawn from a distribution given all that come before it.

    log p(x) = sum_i log p(x_i | x_1, ..., x_{i-1})

The order is that of the raster: row after row from the top, pixel after pixel from the left, red, green, blue within a
pixel. A sub-pixel takes one of `levels` values; two levels are one logit, more are a softmax.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, Protocol, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.base import Batch, SingleObjectiveModel, Terms, inference
from zoo.engine import rng

__all__ = ["AutoregressiveModel", "NaiveSampler", "Sampler", "pick"]


class Sampler(Protocol):
    """What knows the images so far and tells the distribution of the next sub-pixel."""

    def start_row(self, x: Tensor, row: int) -> None:
        """Called before a row; all rows above are final.

        Shape:
            x: (N, C, H, W) images in [-1, 1].
        """
        ...

    def logits(self, x: Tensor, row: int, column: int, channel: int) -> Tensor:
        """Logits of a sub-pixel; called once for each, in raster order.

        Shape:
            x: (N, C, H, W) images in [-1, 1], of which only earlier sub-pixels may be read; output: (N, K).
        """
        ...


class NaiveSampler:
    """Runs the whole model anew for every sub-pixel: the oracle of all faster samplers.

    Args:
        forward: logits (N, K, C, H, W) of images.
    """

    def __init__(self, forward: Callable[[Tensor], Tensor]) -> None:
        self.forward = forward

    def start_row(self, x: Tensor, row: int) -> None:
        """Nothing is kept from row to row."""

    def logits(self, x: Tensor, row: int, column: int, channel: int) -> Tensor:
        """Logits of a sub-pixel, out of those of all."""
        return self.forward(x)[:, :, channel, row, column]


def pick(logits: Tensor, u: Tensor, temperature: float = 1.0) -> Tensor:
    """Levels drawn by inversion of the distribution function.

    Args:
        logits: of one sub-pixel; a single logit is that of level 1.
        u: uniform draws in [0, 1).
        temperature: divides the logits.

    Shape:
        logits: (N, K); u: (N,); output: (N,) int64.
    """
    if temperature != 1:
        logits = logits / temperature
    if logits.size(1) == 1:
        return (u < logits[:, 0].sigmoid()).long()
    cumulative = logits.softmax(1).cumsum(1)
    # The last sum is 1 up to rounding: the draw must not lie above it.
    return torch.searchsorted(cumulative, u[:, None].contiguous(), right=True)[:, 0].clamp_(max=logits.size(1) - 1)


class AutoregressiveModel(SingleObjectiveModel):
    """A model of exact likelihood, trained by maximum likelihood.

    Subclasses define `logits`, and `sampler` where there is a faster one than the naive.

    Args:
        levels: values that a sub-pixel can take: 2 for binary images, 256 for 8 bits.
        learning_rate: step size.
        optimizer: "rmsprop", "adam", or "sgd" with a momentum of 0.9.
        final_rate: share of the step size that is left at the end of the run, to which it falls exponentially.

    Raises:
        ValueError: fewer than two levels.
    """

    inference_networks: tuple[str, ...] = ("network",)

    def __init__(
        self,
        levels: int,
        *,
        learning_rate: float,
        optimizer: Literal["rmsprop", "adam", "sgd"],
        final_rate: float = 1.0,
    ) -> None:
        super().__init__()
        if levels < 2:
            raise ValueError(f"levels must be at least 2, not {levels}")
        if optimizer not in ("rmsprop", "adam", "sgd"):
            raise ValueError(f"optimizer must be 'rmsprop', 'adam' or 'sgd', not {optimizer!r}")
        self.levels = levels
        self.optimization = optimizer, learning_rate, final_rate

    @property
    def outputs(self) -> int:
        """Logits per sub-pixel: 1 for two levels."""
        return 1 if self.levels == 2 else self.levels

    # Values ----------------------------------------------------------------------------------------------------------

    def to_levels(self, x: Tensor) -> Tensor:
        """Levels of images: the nearest; of two levels, 1 above the middle.

        Shape:
            x: (N, C, H, W) in [-1, 1]; output: the same, int64.
        """
        return (x > 0).long() if self.levels == 2 else ((x + 1) / 2 * (self.levels - 1)).round().long()

    def to_images(self, levels: Tensor) -> Tensor:
        """Images of levels.

        Shape:
            levels: (N, C, H, W) int64; output: the same, in [-1, 1].
        """
        return levels.to(self.dtype) * (2 / (self.levels - 1)) - 1

    # Likelihood ------------------------------------------------------------------------------------------------------

    def logits(self, x: Tensor) -> Tensor:
        """Logits of each sub-pixel given all earlier ones.

        Shape:
            x: (N, C, H, W) in [-1, 1], on the model's levels; output: (N, K, C, H, W), K = 1 for two levels.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no logits")

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
        if self.levels == 2:
            density = F.binary_cross_entropy_with_logits(logits[:, 0], target.to(logits.dtype), reduction="none")
        else:
            density = F.cross_entropy(logits, target, reduction="none")
        return -density.flatten(1).sum(1)

    @inference
    def log_prob(self, x: Tensor) -> Tensor:
        """log p of images on the model's levels, to which they are rounded.

        Shape:
            x: (N, C, H, W) in [-1, 1]; output: (N,) nats.
        """
        return self.log_likelihood(x)

    @inference
    def bits_per_dim(self, x: Tensor) -> Tensor:
        """-log2 p per sub-pixel.

        Shape:
            x: (N, C, H, W) in [-1, 1]; output: (N,).
        """
        return -self.log_prob(x) / (x[0].numel() * math.log(2))

    @inference
    def score(self, x: Tensor) -> Tensor:
        """Negative log-likelihood in nats: higher is more anomalous.

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
            temperature: divides the logits; below 1 the likelier values become likelier still.
            prefix: upper rows, kept as they are (on the model's levels); one image stands for all n.
            naive: run the whole model for every sub-pixel. The same draws, slowly.
            conditions: none.

        Shape:
            prefix: (n or 1, C, rows, W) in [-1, 1]; output: (n, C, H, W) in [-1, 1].

        Raises:
            ValueError: a condition was given, the temperature is not positive, or the prefix has another shape.
        """
        x, rows = self.canvas(n, temperature, prefix, conditions)
        key = rng.key(self.resolve_seed(seed), "sample")
        u = rng.uniform(x.shape, key, first, device=x.device, dtype=x.dtype)
        self.fill(x, rows, u, temperature, NaiveSampler(self.logits) if naive else self.sampler(n))
        return x

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

    def canvas(
        self, n: int, temperature: float, prefix: Tensor | None, conditions: dict[str, Any]
    ) -> tuple[Tensor, int]:
        """Images whose upper rows are given, and the number of these rows; arguments and errors as in `sample`.

        Shape:
            Output: (n, C, H, W), a number.
        """
        if conditions:
            raise ValueError(f"{type(self).__name__} has no condition {next(iter(conditions))!r}")
        if not temperature > 0:
            raise ValueError(f"temperature must be positive, not {temperature}")
        options: dict[str, Any] = {"device": self.device, "dtype": self.dtype}
        x, rows = torch.zeros(n, *self.image_shape, **options), 0
        if prefix is not None:
            channels, height, width = self.image_shape
            shape, rows = tuple(prefix.shape), prefix.size(-2)
            if shape not in {(k, channels, rows, width) for k in (1, n)} or rows > height:
                raise ValueError(
                    f"prefix must be ({n} or 1, {channels}, at most {height} rows, {width}), not {tuple(prefix.shape)}"
                )
            x[:, :, :rows] = self.to_images(self.to_levels(prefix.to(**options)))
        return x, rows

    @torch.inference_mode()  # thousands of small operations: a seventh of the time is autograd's book-keeping
    def fill(self, x: Tensor, rows: int, u: Tensor, temperature: float, sampler: Sampler) -> None:
        """Draw all rows from a given one on, in place.

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
        values = self.to_images(torch.arange(self.levels, device=x.device))
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
        logged = {"loss": nats, "nats": nats, "bits_per_dim": nats / (batch["image"][0].numel() * math.log(2))}
        self.log_dict(
            {f"{split}/{name}": value for name, value in logged.items()},
            on_epoch=True,
            sync_dist=True,
            batch_size=len(batch["image"]),
        )

    def configure_optimizers(self) -> Any:
        """RMSProp, Adam or gradient descent, with the schedule if there is one."""
        kind, learning_rate, final = self.optimization
        if kind == "adam":
            optimizer: torch.optim.Optimizer = self.adam(self.parameters(), learning_rate)
        elif kind == "sgd":
            optimizer = torch.optim.SGD(self.parameters(), learning_rate, momentum=0.9)
        else:
            optimizer = torch.optim.RMSprop(self.parameters(), learning_rate)
        if final == 1:
            return optimizer
        total = self.trainer.estimated_stepping_batches
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: final ** (step / total))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
