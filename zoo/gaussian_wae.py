"""WAE with a random encoder: the encoder gives a Gaussian for each image, and the code is drawn from this Gaussian.

    minimize  E_x E_q(z|x) c(x, G(z)) + lambda MMD(Q_Z, P_Z),   q(z|x) = N(mu(x), diag sigma(x)^2)

Tolstikhin et al., "Wasserstein Auto-Encoders", ICLR 2018, arXiv 1711.01558: theorem 1 holds for random encoders, and
the authors' code has this one; the paper's experiments use the deterministic encoder of `zoo.wae`.
"""

from __future__ import annotations

from torch import Tensor

from zoo.engine import rng
from zoo.wae import WAE

__all__ = ["GaussianWAE"]


class GaussianWAE(WAE):
    """Wasserstein autoencoder whose encoder gives mean and log variance of the code; arguments as for `WAE`.

    References:
        Tolstikhin et al. 2018, theorem 1, and the authors' code.
    """

    numbers_per_dimension = 2

    def code(self, x: Tensor, purpose: str) -> Tensor:
        """Codes of images in [0, 1], drawn from q(z|x).

        Shape:
            x: (N, C, H, W); output: (N, latent_dim).
        """
        mean, log_var = super().code(x, purpose).chunk(2, 1)
        key, first = self.draw_key(f"{purpose}/code"), self.first_index(len(x))
        noise = rng.normal(mean.shape, key, first, device=x.device, dtype=mean.dtype)
        return mean + (0.5 * log_var.clamp(-50, 50)).exp() * noise  # bounded against overflow

    def mean_code(self, x: Tensor) -> Tensor:
        """Means of q(z|x) for images in [0, 1].

        Shape:
            x: (N, C, H, W); output: (N, latent_dim).
        """
        return super().mean_code(x)[:, : self.latent_dim]
