"""WGAN-GP: a critic instead of a discriminator, held to slopes of 1 by a penalty on its gradient.

    D minimizes  E D(G(z)) - E D(x) + 10 E (||grad D(x')||_2 - 1)^2,   G minimizes  -E D(G(z)),   x' between x and G(z)

Gulrajani et al., "Improved Training of Wasserstein GANs", NIPS 2017, arXiv 1704.00028, on the networks of DCGAN, the
critic without batch normalization, as the penalty is one per image.
"""

from __future__ import annotations

from typing import Unpack

from torch import Tensor, nn

from zoo.base import Batch, Terms
from zoo.base.noise import NoiseOptions
from zoo.dcgan import DCGAN, Discriminator, initialize
from zoo.nn.losses import discriminator_terms, generator_term, gradient_penalty

__all__ = ["WGANGP"]


class WGANGP(DCGAN):
    """Wasserstein GAN with gradient penalty.

    Args:
        image_size: side of the images: 28, or a power of two from 8.
        image_channels: channels of the images.
        latent_dim: length of the noise vector.
        base_channels: channels of the largest feature map in both networks.
        penalty_weight: weight of the gradient penalty.
        n_critic: critic steps per generator step.
        learning_rate: Adam's step size, for both networks.
        options: see `NoiseOptions`.

    References:
        Gulrajani et al. 2017, algorithm 1.
    """

    unsupported_options = {"compile": "torch.compile cannot differentiate the gradient penalty"}  # noqa: RUF012

    def __init__(
        self,
        image_size: int = 64,
        image_channels: int = 3,
        latent_dim: int = 128,
        base_channels: int = 64,
        *,
        penalty_weight: float = 10.0,
        n_critic: int = 5,
        learning_rate: float = 1e-4,
        **options: Unpack[NoiseOptions],
    ) -> None:
        super().__init__(
            image_size,
            image_channels,
            latent_dim,
            base_channels,
            learning_rate=learning_rate,
            betas=(0.0, 0.9),
            **options,
        )
        self.save_hyperparameters()
        self.step_every = {"generator": n_critic}
        # NOTE(paper): layer normalization with one scale and shift for each channel, as one group of all channels.
        critic = Discriminator(image_size, image_channels, base_channels, norm=lambda c: nn.GroupNorm(1, c))
        self.discriminator = critic.apply(initialize)

    def discriminator_loss(self, batch: Batch, fake: Tensor) -> Terms:
        """E D(G(z)) - E D(x) + w E (||grad D(x')||_2 - 1)^2."""
        real, fake = self.augmented(batch["image"], "real"), self.augmented(fake.detach(), "fake")
        terms = discriminator_terms("wasserstein", self.discriminator(real), self.discriminator(fake))
        penalty = gradient_penalty(self.discriminator, real, fake, self.training_uniform("mix", len(real)))
        return terms | {"gradient_penalty": self.hparams["penalty_weight"] * penalty}

    def generator_loss(self, batch: Batch, fake: Tensor) -> Terms:
        """-E D(G(z))."""
        return {"adversarial": generator_term("wasserstein", self.discriminator(self.augmented(fake, "fake")))}
