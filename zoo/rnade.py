"""RNADE: NADE for real values, each distributed as a mixture of Gaussians given the values before it.

    h_i = relu(rho_i a_i),   a_{i+1} = a_i + W_i x_i,   p(x_i | x_<i) = sum_k pi_ik N(x_i; mu_ik, sigma_ik^2)

with the logits of pi_i, mu_i and log sigma_i linear in h_i. Uria, Murray and Larochelle, "RNADE: The real-valued neural
autoregressive density-estimator", NIPS 2013, arXiv 1306.0186.
"""

from __future__ import annotations

import math
from typing import Literal, Unpack

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.base.autoregressive import LikelihoodOptions, OptimizerName
from zoo.nade import NADE, NADENetwork

__all__ = ["RNADE"]


class RNADE(NADE):
    """Real-valued neural autoregressive density estimator. Densities refer to the image in [0, 1].

    Args:
        image_size: side of the images.
        image_channels: channels of the images.
        hidden_features: number of hidden units.
        num_components: Gaussians per value.
        ordering: as in `NADE`.
        optimizer: as in `NADE`.
        options: see `LikelihoodOptions`.

    Raises:
        ValueError: no components.

    References:
        Uria et al. 2013, section 3.
    """

    real_valued = True

    # NOTE(paper): RNADE multiplies the gradients of its means by their deviation; here Adam sets the scale.

    def __init__(
        self,
        image_size: int = 28,
        image_channels: int = 1,
        hidden_features: int = 500,
        *,
        num_components: int = 10,
        ordering: Literal["raster", "random"] = "raster",
        optimizer: OptimizerName = "adam",
        **options: Unpack[LikelihoodOptions],
    ) -> None:
        super().__init__(image_size, image_channels, hidden_features, ordering=ordering, optimizer=optimizer, **options)
        self.save_hyperparameters()
        self.network = NADENetwork(self.network.order, hidden_features, 3 * num_components, relu=True, rescaled=True)
        with torch.no_grad():  # components that start apart: evenly over [0, 1]
            _, mean, log_std = self.network.output_bias.chunk(3, 1)
            mean.copy_((torch.arange(num_components) + 0.5) / num_components)
            log_std.fill_(-math.log(num_components))

    # Likelihood ------------------------------------------------------------------------------------------------------

    def log_likelihood(self, x: Tensor) -> Tensor:
        """log p of images in [0, 1], with gradients.

        Shape:
            x: (N, C, H, W) in [-1, 1]; output: (N,) nats.
        """
        logits, mean, log_std = mixture(self.logits(x))
        z = ((x[:, None] + 1) / 2 - mean) * (-log_std).exp()
        density = logits.log_softmax(1) - 0.5 * z.square() - log_std - 0.5 * math.log(2 * math.pi)
        nats: Tensor = density.logsumexp(1).flatten(1).sum(1)
        return nats

    # Sampling --------------------------------------------------------------------------------------------------------

    def to_levels(self, x: Tensor) -> Tensor:
        """The images themselves: real values have no levels."""
        return x

    def to_images(self, levels: Tensor) -> Tensor:
        """The inverse of `to_levels`."""
        return levels

    def draw(self, outputs: Tensor, u: Tensor, temperature: float) -> Tensor:
        """A value drawn from its mixture, clamped to the range before others see it.

        Args:
            outputs: those of the network for this value.
            u: uniform draws in [0, 1). One draw chooses the component; its place within the component's share of
                [0, 1), which is uniform again, gives the quantile of the Gaussian.
            temperature: divides the logits and multiplies the variances.

        Shape:
            outputs: (N, 3K); u, output: (N,).
        """
        logits, mean, log_std = mixture(outputs)
        upper = (logits / temperature).softmax(1).cumsum(1)
        k = torch.searchsorted(upper, u[:, None].contiguous(), right=True).clamp_(max=upper.size(1) - 1)
        lower = torch.cat([torch.zeros_like(u[:, None]), upper], 1).gather(1, k)
        tiny = torch.finfo(u.dtype).eps
        within = ((u[:, None] - lower) / (upper.gather(1, k) - lower)).clamp_(tiny, 1 - tiny)
        std = log_std.gather(1, k).exp() * math.sqrt(temperature)
        value: Tensor = mean.gather(1, k) + std * torch.special.ndtri(within)
        return (2 * value[:, 0] - 1).clamp_(-1, 1)


def mixture(outputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, means and log deviations of a mixture's components, from a network's outputs.

    Shape:
        outputs: (N, 3K, ...); output: three of (N, K, ...).
    """
    logits, mean, log_std = outputs.chunk(3, 1)
    # NOTE(paper): half an 8-bit step more, as the density of a value that never varies has no upper bound.
    return logits, mean, F.softplus(log_std + math.log(512)) - math.log(512)
