"""beta-VAE: a VAE whose KL term is weighted, so that single dimensions of the code come to mean single things.

    minimize  E_q(z|x) [-log p(x|z)] + beta KL(q(z|x) || p(z))
    capacity: E_q(z|x) [-log p(x|z)] + gamma |KL(q(z|x) || p(z)) - C(t)|,   C(t) from 0 to C_max

Higgins et al., "beta-VAE: Learning Basic Visual Concepts with a Constrained Variational Framework", ICLR 2017; Burgess
et al., "Understanding disentangling in beta-VAE", 2018, arXiv 1804.03599, for the second form.
"""

from __future__ import annotations

from typing import Unpack, cast

import torch
from torch import Tensor

from zoo.engine.cross_rank import average
from zoo.vae import VAE, Networks, VAEOptions

__all__ = ["BetaVAE"]


class BetaVAE(VAE):
    """VAE with a weighted KL term; with beta = 1 and no capacity it is the VAE.

    Args:
        image_size: side of the images.
        image_channels: channels of the images.
        latent_dim: length of the code.
        beta: weight of the KL term.
        capacity: final capacity C_max of the code in nats; None takes the constant beta instead.
        capacity_steps: training steps over which the capacity grows linearly from 0.
        gamma: weight of the distance to the capacity.
        networks: as in `VAE`.
        learning_rate: step size.
        options: see `VAEOptions`.

    Raises:
        ValueError: as in `VAE`, or a negative weight.

    References:
        Higgins et al. 2017, equation 4 and appendix A.1; Burgess et al. 2018, equation 8.
    """

    def __init__(
        self,
        image_size: int = 64,
        image_channels: int = 3,
        latent_dim: int = 10,
        *,
        beta: float = 4.0,
        capacity: float | None = None,
        capacity_steps: int = 100_000,
        gamma: float = 1000.0,
        networks: Networks = "conv",
        learning_rate: float = 1e-4,
        **options: Unpack[VAEOptions],
    ) -> None:
        super().__init__(
            image_size, image_channels, latent_dim, networks=networks, learning_rate=learning_rate, **options
        )
        self.save_hyperparameters()

    @property
    def current_capacity(self) -> float | Tensor:
        """C(t) at the present training step."""
        if (numbers := self.step_numbers) is not None:
            return numbers.number("capacity", self._capacity, cast(torch.dtype, self.dtype))
        return self._capacity()

    def _capacity(self) -> float:
        share = min(1.0, (self.batch_index + 1) / self.hparams["capacity_steps"])
        return float((self.hparams["capacity"] or 0.0) * share)

    def weighted(self, kl: Tensor) -> Tensor:
        """beta KL, or gamma |KL - C(t)|."""
        if self.hparams["capacity"] is None:
            return kl * float(self.hparams["beta"])
        # |KL - C| of the mean over all ranks: each rank's part has the sign of the whole. Ranks need not have equally
        # many validation batches, so there each batch has its own.
        mean = average(kl) if self.training else kl.detach()
        sign = (mean - self.current_capacity).sign()
        return float(self.hparams["gamma"]) * sign * (kl - self.current_capacity)
