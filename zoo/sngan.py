"""SNGAN: every weight of the discriminator is divided by its largest singular value, so its slope is at most 1.

    D minimizes  E max(0, 1 - D(x)) + E max(0, 1 + D(G(z))),   G minimizes  -E D(G(z)),   W = W' / sigma(W')

Miyato, Kataoka, Koyama and Yoshida, "Spectral Normalization for Generative Adversarial Networks", ICLR 2018, arXiv
1802.05957: the standard CNN of table 3 with the hinge loss of equations 16 and 17, trained with the rates and the five
discriminator steps of the authors' published setting.
"""

from __future__ import annotations

from typing import Unpack, cast

from torch import Tensor, nn
from torch.optim import Optimizer

from zoo.base import Batch, Terms
from zoo.base.noise import NoiseOptions, NoiseToImageGAN
from zoo.nn.layers import stages
from zoo.nn.losses import discriminator_terms, generator_term
from zoo.nn.spectral import normalize

__all__ = ["SNGAN", "Discriminator", "Generator", "initialize", "trunk"]


class Generator(nn.Sequential):
    """Noise to image: a linear map to the start map, doubled by transposed convolutions; a last 3x3 convolution.

    Shape:
        z: (N, latent_dim); output: (N, image_channels, image_size, image_size) in (-1, 1).
    """

    def __init__(self, image_size: int, image_channels: int, latent_dim: int, base_channels: int) -> None:
        start, doublings = stages(image_size)  # 32 pixels: 4, 3
        c = base_channels * 2**doublings
        layers: list[nn.Module] = [nn.Linear(latent_dim, c * start**2), nn.Unflatten(1, (c, start, start))]
        for _ in range(doublings):
            conv = nn.ConvTranspose2d(c, c // 2, 4, 2, 1, bias=False)  # the normalization has a shift of its own
            layers += [conv, nn.BatchNorm2d(c // 2), nn.ReLU(True)]  # (N, 4C, 8, 8), ...
            c //= 2
        super().__init__(*layers, nn.Conv2d(c, image_channels, 3, 1, 1), nn.Tanh())  # (N, 3, 32, 32)


def trunk(image_size: int, image_channels: int, base_channels: int) -> tuple[list[nn.Module], int]:
    """Layers from an image to its features: 3x3 convolutions, each but the last followed by a 4x4 one that halves.

    Args:
        image_size: side of the images.
        image_channels: channels of the images.
        base_channels: channels of the largest map.

    Returns:
        The layers, whose output is (N, C, 4, 4), and C.
    """
    layers: list[nn.Module] = []
    before, c = image_channels, base_channels
    for _ in range(stages(image_size)[1]):
        for conv in (nn.Conv2d(before, c, 3, 1, 1), nn.Conv2d(c, c, 4, 2, 1)):  # (N, C, 32, 32), (N, C, 16, 16)
            layers += [conv, nn.LeakyReLU(0.1, True)]
        before, c = c, 2 * c
    return [*layers, nn.Conv2d(before, c, 3, 1, 1), nn.LeakyReLU(0.1, True)], c  # (N, 8C, 4, 4)


class Discriminator(nn.Sequential):
    """Image to logit, with spectral norm everywhere.

    Shape:
        x: (N, image_channels, image_size, image_size); output: (N,) logits.
    """

    def __init__(self, image_size: int, image_channels: int, base_channels: int) -> None:
        layers, c = trunk(image_size, image_channels, base_channels)
        super().__init__(*layers, nn.Flatten(), nn.Linear(c * stages(image_size)[0] ** 2, 1), nn.Flatten(0))


def initialize(module: nn.Module) -> None:
    """Weights from N(0, 0.02), biases 0."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class SNGAN(NoiseToImageGAN):
    """GAN with a spectrally normalized discriminator.

    Args:
        image_size: side of the images: 28, or a power of two from 8.
        image_channels: channels of the images.
        latent_dim: length of the noise vector.
        base_channels: channels of the largest feature map in both networks.
        n_critic: discriminator steps per generator step.
        learning_rate: Adam's step size, for both networks.
        options: see `NoiseOptions`.

    Raises:
        ValueError: an unsupported size.

    References:
        Miyato et al. 2018, section 2.1 and algorithm 1 (normalization), table 3 (networks), equations 16 and 17 (loss).
    """

    def __init__(
        self,
        image_size: int = 32,
        image_channels: int = 3,
        latent_dim: int = 128,
        base_channels: int = 64,
        *,
        n_critic: int = 5,
        learning_rate: float = 2e-4,
        **options: Unpack[NoiseOptions],
    ) -> None:
        super().__init__(step_every={"generator": n_critic}, **options)
        self.save_hyperparameters()
        self.latent_dim = latent_dim
        self.generator = Generator(image_size, image_channels, latent_dim, base_channels).apply(initialize)
        self.discriminator = Discriminator(image_size, image_channels, base_channels).apply(initialize)
        self.discriminator.apply(normalize)
        self.average_networks()

    # Training --------------------------------------------------------------------------------------------------------

    def forward_shared(self, batch: Batch) -> Tensor:
        """The fakes of this batch."""
        return cast(Tensor, self.generator(self.training_noise(len(batch["image"]))))

    def discriminator_loss(self, batch: Batch, fake: Tensor) -> Terms:
        """E max(0, 1 - D(x)) + E max(0, 1 + D(G(z)))."""
        real_logits = self.discriminator(self.augmented(batch["image"], "real"))
        fake_logits = self.discriminator(self.augmented(fake.detach(), "fake"))
        return discriminator_terms("hinge", real_logits, fake_logits)

    def generator_loss(self, batch: Batch, fake: Tensor) -> Terms:
        """-E D(G(z))."""
        return {"adversarial": generator_term("hinge", self.discriminator(self.augmented(fake, "fake")))}

    def configure_optimizers(self) -> list[Optimizer]:
        """Adam for each network."""
        return self.adam_for_each((self.discriminator, self.generator), self.hparams["learning_rate"], (0.0, 0.9))
