"""StarGAN with a critic for each domain, domains in the normalizations, and a residual generator.

    D minimizes  E (D_c(x) - 1)^2 + 1/2 E D_c'(G(x, c'))^2 + 1/2 E D_k(x)^2
    G minimizes  E (D_c'(G(x, c')) - 1)^2 + 10 E |x - G(G(x, c'), c)|_1

x is of the domain c, c' another one, k runs over all domains other than c. What differs from the paper (Choi et al.
2018, `zoo.stargan`), and why:

- One critic per domain replaces critic and classifier, as in StarGAN v2 (Choi et al. 2020, section 2). The critic
  separates real images of its domain from translations into it and from real images of other domains, with equal
  weight, as Reed et al. 2016 (algorithm 1) do with mismatched captions. There is no gradient penalty: this lies
  between an image and its translation, which different critics judge.
- The domain sets scale and shift of every normalization (Dumoulin et al. 2017, "A Learned Representation for Artistic
  Style", equation 5). In the paper the domain enters as constant channels, which the first instance normalization
  removes except at the borders.
- The generator draws what is added to the image, at first nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Unpack, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.base import Batch, Terms, TrainingOptions
from zoo.base.augmentation import AugmentedModel
from zoo.engine import rng
from zoo.nn.layers import instance_norm
from zoo.nn.losses import discriminator_terms, generator_term
from zoo.nn.schedules import Decay
from zoo.nn.stargan import Generator, InstanceNorm, ResidualBlock, halving_layers
from zoo.stargan import DECAY, StarGAN

__all__ = ["DomainCriticStarGAN", "DomainCritics", "DomainGenerator"]


class DomainNorm(InstanceNorm):
    """Instance normalization whose scale and shift differ from domain to domain, at first not.

    Args:
        channels: channels of the maps.
        num_domains: length of a domain vector.

    Shape:
        input: (N, C, H, W); domain: (N, num_domains); output as input.
    """

    def __init__(self, channels: int, num_domains: int) -> None:
        super().__init__(channels)
        self.domain = nn.Linear(num_domains, 2 * channels, bias=False)
        nn.init.zeros_(self.domain.weight)

    def forward(self, input: Tensor, domain: Tensor) -> Tensor:  # type: ignore[override]
        """Normalize each map of each image."""
        normal = instance_norm(input, eps=self.eps)
        scale, shift = self.domain(domain).chunk(2, 1)
        scale, shift = (self.weight + scale).to(normal.dtype), (self.bias + shift).to(normal.dtype)
        return torch.addcmul(shift[:, :, None, None], normal, scale[:, :, None, None])


class DomainGenerator(Generator):
    """The paper's layers with the domain in their normalizations; they draw what is added to the image.

    Args:
        image_channels: channels of the images.
        base_channels: channels of the largest hidden map.
        num_blocks: residual blocks.
        num_domains: length of a domain vector.

    Shape:
        x: (N, image_channels, H, W), both sides divisible by 4; domain: (N, num_domains); output as x, without bounds.
    """

    def __init__(self, image_channels: int, base_channels: int, num_blocks: int, num_domains: int) -> None:
        super().__init__(image_channels, base_channels, num_blocks, 0, partial(DomainNorm, num_domains=num_domains))
        nn.init.zeros_(cast(Tensor, self.layers[-1].weight))

    def forward(self, x: Tensor, domain: Tensor) -> Tensor:
        """The images in their target domains."""
        return x + _through(self.layers, x, domain.to(x.dtype))


def _through(layers: nn.Sequential, x: Tensor, domain: Tensor) -> Tensor:
    """What layers make of x, their normalizations told the domain."""
    for layer in layers:
        if isinstance(layer, ResidualBlock):
            x = x + _through(layer.layers, x, domain)
        else:
            x = layer(x, domain) if isinstance(layer, DomainNorm) else layer(x)
    return x


class DomainCritics(nn.Module):
    """Image to values of its patches by the critic of each domain.

    Args:
        image_size: side of the images.
        image_channels: channels of the images.
        base_channels: channels of the first hidden map.
        num_layers: convolutions that halve the side.
        num_domains: number of critics.

    Shape:
        x: (N, image_channels, S, S); output: (N, num_domains, S / 2^L, S / 2^L) values, and (N, num_domains) their
            means, which serve as logits of the domains.
    """

    def __init__(
        self, image_size: int, image_channels: int, base_channels: int, num_layers: int, num_domains: int
    ) -> None:
        super().__init__()
        self.layers, channels = halving_layers(image_channels, base_channels, num_layers)
        self.critic = nn.Conv2d(channels, num_domains, 3, 1, 1, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Critic values, higher for images taken for real images of the domain, and their means."""
        values = self.critic(self.layers(x))
        return values, values.mean((2, 3))


class DomainCriticStarGAN(StarGAN, AugmentedModel):
    """Translator between domains, each with a critic of its own.

    Batches hold `image` and `label` (N,) int64, or `attributes` (N, number of domains) one-hot. Probabilities
    (`classify`) are the softmax of the critics' mean values: ordered as these are, not calibrated; `score` is that of
    the critic who takes the image for real most.

    Args:
        image_size: side of the images.
        image_channels: channels of the images.
        domains: names of the domains.
        base_channels: channels of the generator's largest hidden map.
        discriminator_channels: channels of the critics' first map; None takes `base_channels`.
        num_blocks: residual blocks in the generator.
        discriminator_layers: halving convolutions of the critics.
        cycle_weight: weight of the reconstruction.
        n_critic: critic steps per generator step.
        learning_rate: Adam's step size, for both networks.
        decay: how this rate falls, by steps of the critics; None keeps it.
        augment: DiffAugment's translation and cutout for whatever the critics see, real images and translations alike.
        options: see `TrainingOptions`.

    Raises:
        ValueError: an unsupported size, fewer than two domains, or a name given twice.
    """

    augment_colors = False  # by which domains may differ
    generator_class = DomainGenerator
    discriminator_class = DomainCritics

    def __init__(
        self,
        image_size: int = 128,
        image_channels: int = 3,
        *,
        domains: Sequence[str],
        base_channels: int = 64,
        discriminator_channels: int | None = None,
        num_blocks: int = 6,
        discriminator_layers: int = 6,
        cycle_weight: float = 10.0,
        n_critic: int = 5,
        learning_rate: float = 1e-4,
        decay: Decay | dict[str, Any] | None = DECAY,
        augment: bool = False,
        **options: Unpack[TrainingOptions],
    ) -> None:
        domains = list(domains)
        if len(domains) < 2:
            raise ValueError(f"domains must name at least two, not {domains}")
        super().__init__(
            image_size,
            image_channels,
            (),
            [domains],
            base_channels=base_channels,
            discriminator_channels=discriminator_channels,
            num_blocks=num_blocks,
            discriminator_layers=discriminator_layers,
            cycle_weight=cycle_weight,
            n_critic=n_critic,
            learning_rate=learning_rate,
            decay=decay,
            **options,
        )
        self.save_hyperparameters()
        self.augment = augment

    def draw_targets(self, domain: Tensor) -> Tensor:
        """For each image another domain, drawn.

        Shape:
            Input and output: (N, number of domains).
        """
        n, count = domain.shape
        drawn = rng.integers(count - 1, (n,), self.draw_key("target"), self.first_index(n), device=self.device)
        return F.one_hot((domain.argmax(1) + 1 + drawn) % count, count).to(domain.dtype)

    def discriminator_loss(self, batch: Batch, shared: dict[str, Tensor]) -> Terms:
        """E (D_c(x) - 1)^2 + 1/2 E D_c'(G(x, c'))^2 + 1/2 E D_k(x)^2."""
        x, own, target = batch["image"], shared["domain"].argmax(1), shared["target"].argmax(1)
        # In one pass: nothing is normalized here.
        fake = self.augmented(shared["fake"].detach(), "fake").to(x.dtype)
        values, _ = self.discriminator(torch.cat([self.augmented(x, "real"), fake]))
        n, count = len(x), len(self.target_names)
        image = torch.arange(n, device=x.device)
        others = (own[:, None] + 1 + torch.arange(count - 1, device=x.device)) % count
        real = values[image, own]
        terms = discriminator_terms("least_squares", real, values[n + image, target])
        mismatched = discriminator_terms("least_squares", real, values[image[:, None], others])["fake"]
        return {"real": terms["real"], "fake": terms["fake"] / 2, "mismatched": mismatched / 2}

    def generator_loss(self, batch: Batch, shared: dict[str, Tensor]) -> Terms:
        """E (D_c'(G(x, c')) - 1)^2 + w E |x - G(G(x, c'), c)|_1."""
        x, fake = batch["image"], shared["fake"]
        values, _ = self.discriminator(self.augmented(fake, "fake"))
        back = self.generator(fake, shared["domain"])
        wanted = values[torch.arange(len(x), device=x.device), shared["target"].argmax(1)]
        return {
            "adversarial": generator_term("least_squares", wanted),
            "reconstruction": self.hparams["cycle_weight"] * (x - back).abs().mean(),
        }
