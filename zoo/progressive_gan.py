"""Progressive GAN: both networks start at 4x4 pixels and grow, one faded-in doubling after the other, up to 1024.

    D minimizes  E D(G(z)) - E D(x) + 10 / t^2 E (||grad D(x')||_2 - t)^2 + 0.001 E D(x)^2
    G minimizes  -E D(G(z)),    z ~ N(0, I), x' between x and G(z)

Karras, Aila, Laine and Lehtinen, "Progressive growing of GANs for improved quality, stability, and variation", ICLR
2018, arXiv 1710.10196. The networks are in `zoo.nn.progressive_gan`, how they grow is in `zoo.base.growing`.
"""

from __future__ import annotations

import math
from typing import Any, Unpack, cast

import torch
from torch import Tensor
from torch.optim import Optimizer

from zoo.base import Batch, Terms
from zoo.base.growing import GrowingGAN
from zoo.base.noise import NoiseOptions
from zoo.nn.losses import discriminator_terms, generator_term, gradient_penalty
from zoo.nn.progressive_gan import Discriminator, Generator
from zoo.nn.progressive_gan_growth import Growth

__all__ = ["ProgressiveGAN"]

PENALTY_WEIGHT = 10.0
DRIFT_WEIGHT = 0.001


class ProgressiveGAN(GrowingGAN):
    """Progressive GAN with the objective of WGAN-GP.

    Training follows the images seen (see `GrowingGAN`): at each resolution for `growth.training_images`, then the next
    one is faded in over `growth.transition_images`.

    Args:
        image_size: side of the grown images, a power of two from 4.
        image_channels: channels of the images.
        latent_dim: length of the noise vector.
        fmap_base: maps of side s have 2 * fmap_base / s channels, up to max_channels.
        max_channels: largest number of channels.
        growth: when the networks grow, and batch sizes and learning rates by resolution: a `Growth` or its fields.
        gradient_target: norm t of the critic's gradient.
        penalty_every: steps from one gradient penalty to the next, each with as many times its weight; the paper's
            value is 1.
        minibatch_stddev_group: images over which the minibatch standard deviation is taken, at most the global batch;
            0 takes all of a device's batch.
        fused_downscale: average 2x2 pixels before the activation, as the official code does and which is faster, not
            after the activation as in the paper.
        simultaneous: step both networks at once, from the same weights.
        learning_rate: Adam's step size, for both networks.
        options: see `NoiseOptions`; `ema_decay` is 0.999 by default.

    Raises:
        ValueError: an unsupported size or schedule.

    References:
        Karras et al. 2018, sections 2 to 4 and appendix A; Gulrajani et al. 2017 (WGAN-GP); Karras et al. 2020, section
        3.1 (`penalty_every`).
    """

    # NOTE(paper): the official code draws other noise for the generator's step; here both phases see the same fakes.
    # Its least-squares objective, which weights the fake images' term by 0.1 and multiplies activations by noise, and
    # its classes are not built.

    unsupported_options = {  # noqa: RUF012
        **GrowingGAN.unsupported_options,
        "compile": "torch.compile cannot differentiate the gradient penalty",
    }
    unit_bias = False
    """Whether the first map has a bias for each channel and pixel, as in files of other codes."""

    def __init__(
        self,
        image_size: int = 1024,
        image_channels: int = 3,
        latent_dim: int = 512,
        *,
        fmap_base: int = 8192,
        max_channels: int = 512,
        growth: Growth | dict[str, Any] | None = None,
        gradient_target: float = 1.0,
        penalty_every: int = 1,
        minibatch_stddev_group: int = 4,
        fused_downscale: bool = False,
        simultaneous: bool = False,
        learning_rate: float = 1e-3,
        **options: Unpack[NoiseOptions],
    ) -> None:
        options.setdefault("ema_decay", 0.999)
        update = "simultaneous" if simultaneous else "alternating"
        super().__init__(Growth.of(growth) or Growth(), image_size, update=update, **options)
        self.save_hyperparameters()
        self.latent_dim, self.minibatch_stddev_group = latent_dim, minibatch_stddev_group
        self.gradient_target, self.penalty_every = gradient_target, penalty_every
        sides = [4 << stage for stage in range((image_size // 4).bit_length())]
        widths = [max(1, min(2 * fmap_base // side, max_channels)) for side in sides]
        self.generator = Generator(widths, image_channels, latent_dim, self.unit_bias)
        self.discriminator = Discriminator(widths, image_channels, min(fmap_base, max_channels), fused_downscale)
        self.average_networks()
        self.grow(0)

    @classmethod
    def paper(cls, image_size: int = 1024, **options: Any) -> ProgressiveGAN:
        """The paper's setting for CelebA-HQ and LSUN, on one device; 19 million images for 1024 pixels.

        Args:
            image_size: side of the images.
            options: replace further arguments of the constructor.
        """
        growth = Growth(global_batch_sizes={256: 14, 512: 6, 1024: 3})
        setting: dict[str, Any] = {"growth": growth, "minibatch_stddev_group": 0}
        return cls(image_size, **setting | options)

    # Training --------------------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Refuse batches that cannot be shared among the devices."""
        super().setup(stage)
        group, world = self.minibatch_stddev_group, self.trainer.world_size
        for resolution in self.growth_schedule.resolutions if stage == "fit" else ():
            share, rest = divmod(batch := self.growth_schedule.batch(resolution), world)
            # Groups of one process, whatever the number of devices; 0 asks for each device's batch.
            if rest or share % min(group or share, batch):
                raise ValueError(
                    f"{batch} images per step at {resolution} pixels cannot be shared among {world} device(s) in "
                    f"groups of {group or 'any size'}: set growth.global_batch_sizes or minibatch_stddev_group"
                )

    def discriminate(self, x: Tensor, n: int) -> Tensor:
        """The discriminator's values.

        Args:
            x: images, one or more batches of n: no group of the minibatch standard deviation lies in two batches.
            n: size of a batch.

        Shape:
            x: (N, C, S, S); output: (N,).

        Raises:
            ValueError: the batch cannot be cut into groups.
        """
        group = min(self.minibatch_stddev_group or n, n)
        if not self.training:  # the last batch of a split has any size
            group = math.gcd(group, n)
        if n % group:
            raise ValueError(
                f"a batch of {n} per device cannot be cut into groups of {group} for the minibatch standard deviation: "
                f"take a multiple of {group}, or another minibatch_stddev_group"
            )
        return cast(Tensor, self.discriminator(x, self.stage, self.alpha, group))

    def forward_shared(self, batch: Batch) -> Tensor:
        """The fakes of this batch, at the present stage."""
        return cast(Tensor, self.generator(self.training_noise(len(batch["image"])), self.stage, self.alpha))

    def discriminator_loss(self, batch: Batch, fake: Tensor) -> Terms:
        """E D(G(z)) - E D(x) + 0.001 E D(x)^2 + 10 / t^2 E (||grad D(x')||_2 - t)^2."""
        n, target = len(batch["image"]), self.gradient_target
        real = self.augmented(self.real(batch["image"]), "real")
        fake = self.augmented(fake.detach().to(real.dtype), "fake")
        on_real, on_fake = self.discriminate(torch.cat([real, fake]), n).chunk(2)
        terms = discriminator_terms("wasserstein", on_real, on_fake)
        terms["drift"] = DRIFT_WEIGHT * on_real.square().mean()
        # Counted as `should_step` counts, so that loggers, who look at each n-th step, see it.
        # NOTE(paper): Karras et al. 2020 do this with R1, in a step of its own; here the penalty joins the other terms.
        every = self.penalty_every if self.training else 1
        if (self.batch_index + 1) % every == 0:
            # Gradients of gradients lose too much in half precision.
            with torch.autocast(self.device.type, enabled=False):
                mix = self.training_uniform("mix", n)
                penalty = gradient_penalty(lambda x: self.discriminate(x, n), real, fake, mix, target)
            terms["gradient_penalty"] = every * PENALTY_WEIGHT / target**2 * penalty
        return terms

    def generator_loss(self, batch: Batch, fake: Tensor) -> Terms:
        """-E D(G(z))."""
        values = self.discriminate(self.augmented(fake, "fake"), len(fake))
        return {"adversarial": generator_term("wasserstein", values)}

    def configure_optimizers(self) -> list[Optimizer]:
        """Adam for each network."""
        return self.adam_for_each((self.discriminator, self.generator), self.learning_rate(0), betas=(0.0, 0.99))
