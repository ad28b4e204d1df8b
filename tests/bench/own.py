"""What a user may bring along: an architecture and a measure that are not this package's."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric

from zoo.base import Batch, Terms
from zoo.base.noise import NoiseToImageGAN
from zoo.callbacks.base import Result, Samples
from zoo.callbacks.measures import Evaluation, measure


class LSGAN(NoiseToImageGAN):
    """Least-squares GAN of two layers (Mao et al. 2017)."""

    def __init__(self, image_size: int = 8, image_channels: int = 3, latent_dim: int = 4, width: int = 16) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.latent_dim = latent_dim
        pixels = image_channels * image_size**2
        layers = [nn.Linear(latent_dim, width), nn.ReLU(), nn.Linear(width, pixels), nn.Tanh()]
        self.generator = nn.Sequential(*layers, nn.Unflatten(1, self.image_shape))
        self.discriminator = nn.Sequential(nn.Flatten(), nn.Linear(pixels, width), nn.ReLU(), nn.Linear(width, 1))

    def discriminator_loss(self, batch: Batch, shared: dict[str, Tensor]) -> Terms:
        """E (D(x) - 1)^2 + E D(G(z))^2."""
        fake = self.generator(self.training_noise(len(batch["image"]))).detach()
        real, fake = self.discriminator(batch["image"]), self.discriminator(fake)
        return {"adversarial": (real - 1).square().mean() + fake.square().mean()}

    def generator_loss(self, batch: Batch, shared: dict[str, Tensor]) -> Terms:
        """E (D(G(z)) - 1)^2."""
        fake = self.discriminator(self.generator(self.training_noise(len(batch["image"]))))
        return {"adversarial": (fake - 1).square().mean()}

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """Adam for each network."""
        return [self.adam(network.parameters(), 1e-3) for network in (self.discriminator, self.generator)]


@measure(needs=Samples, better="higher", num_samples=16)
def brightness(at: Evaluation) -> Result:
    """Mean of the samples' pixels."""
    metric = at.in_float64(MeanMetric())
    for first, n in at.draws():
        metric.update(at.model.sample(n, seed=at.seed, first=first).double())
    return at.result(metric.compute(), samples=at.num_samples)
