"""WAE-GAN: a Wasserstein autoencoder whose codes a discriminator compares with the prior.

    autoencoder:    minimize  E_x c(x, G(enc(x))) - lambda E_x log D(enc(x)),   c = squared error
    discriminator:  minimize  -lambda (E_z log D(z) + E_x log(1 - D(enc(x)))),   z ~ prior

Tolstikhin et al., "Wasserstein Auto-Encoders", ICLR 2018, arXiv 1711.01558. The defaults are those of the authors' code
for MNIST; the recipe `wae_gan-celeba64-paper` has the paper's setting for CelebA.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Unpack, cast

import torch
from torch import Tensor
from torch.optim import Optimizer

from zoo.base import Batch, Objective, Terms, TrainingOptions
from zoo.nn.autoencoders import mlp
from zoo.nn.layers import unit
from zoo.nn.losses import discriminator_terms, generator_term
from zoo.nn.schedules import Decay
from zoo.wae import BETAS, DECAY, WAE, initialize

__all__ = ["WAEGAN"]


class WAEGAN(WAE):
    """Wasserstein autoencoder with a discriminator of codes, which rests while the encoder is pretrained.

    Args:
        image_size: side of the images.
        image_channels: channels of the images.
        latent_dim: length of the code.
        base_channels: channels of the first feature map.
        penalty_weight: lambda.
        reconstruction_weight: weight of the squared error per image, which is summed over pixels in [0, 1].
        prior_std: deviation of the Gaussian prior.
        discriminator_features: widths of the discriminator's hidden layers.
        density_trick: add the log density of the prior to the discriminator's logits.
        input_noise_std: deviation of Gaussian noise added to the encoder's input in training.
        pretraining_steps: as in `WAE`.
        learning_rate: Adam's step size for encoder and decoder.
        discriminator_learning_rate: Adam's step size for the discriminator.
        decay: schedule of the step sizes.
        options: see `TrainingOptions`.

    References:
        Tolstikhin et al. 2018, algorithm 1, appendix D, and the authors' code.
    """

    def __init__(
        self,
        image_size: int = 28,
        image_channels: int = 1,
        latent_dim: int = 8,
        *,
        base_channels: int = 128,
        penalty_weight: float = 10.0,
        reconstruction_weight: float = 0.05,
        prior_std: float = 1.0,
        discriminator_features: Sequence[int] = (512, 512, 512, 512),
        density_trick: bool = False,
        input_noise_std: float = 0.01,
        pretraining_steps: int = 200,
        learning_rate: float = 1e-3,
        discriminator_learning_rate: float = 5e-4,
        decay: Decay | None = DECAY,
        **options: Unpack[TrainingOptions],
    ) -> None:
        super().__init__(
            image_size,
            image_channels,
            latent_dim,
            base_channels=base_channels,
            penalty_weight=penalty_weight,
            reconstruction_weight=reconstruction_weight,
            prior_std=prior_std,
            input_noise_std=input_noise_std,
            pretraining_steps=pretraining_steps,
            learning_rate=learning_rate,
            decay=decay,
            **options,
        )
        self.save_hyperparameters()
        self.rates["discriminator"] = discriminator_learning_rate
        self.discriminator = mlp([latent_dim, *discriminator_features, 1]).apply(initialize)

    # Training --------------------------------------------------------------------------------------------------------

    def objectives(self) -> dict[str, Objective]:
        """The autoencoder's objective, then the discriminator's."""
        return super().objectives() | {"discriminator": self.discriminator_loss}

    def penalty(self, z: Tensor, prior: Tensor) -> Tensor:
        """-E log D(enc(x)).

        Shape:
            z, prior: (N, latent_dim); output: scalar.
        """
        return generator_term("non_saturating", self.discriminate(z))

    def discriminator_loss(self, batch: Batch, shared: None) -> Terms:
        """-lambda E log D(z) - lambda E log(1 - D(enc(x))); the prior's draws are the autoencoder's."""
        x = unit(batch["image"])
        prior = self.prior(len(x), self.draw_key("prior"), self.first_index(len(x)))
        with torch.no_grad():
            z = self.code(x, "discriminator")
        prior_logits, code_logits = self.discriminate(torch.cat([prior, z])).chunk(2)
        terms = discriminator_terms("non_saturating", prior_logits, code_logits)
        weight = self.hparams["penalty_weight"]
        return {"prior": weight * terms["real"], "code": weight * terms["fake"]}

    def discriminate(self, z: Tensor) -> Tensor:
        """Logits of codes: positive for those taken to be the prior's.

        Shape:
            z: (N, latent_dim); output: (N,).
        """
        logits = cast(Tensor, self.discriminator(z)).flatten()
        if self.hparams["density_trick"]:
            variance = self.prior_std**2
            constant = 0.5 * self.latent_dim * math.log(2 * math.pi * variance)
            logits = logits - z.square().sum(1) / (2 * variance) - constant
        return logits

    def should_step(self, phase: str, step: int) -> bool:
        """The discriminator rests while the encoder is pretrained."""
        return phase == "autoencoder" or not self.pretraining

    def configure_optimizers(self) -> list[Optimizer]:
        """Adam for encoder and decoder, and for the discriminator."""
        own = self.adam(self.discriminator.parameters(), self.rates["discriminator"], betas=BETAS)
        return [*super().configure_optimizers(), own]
