"""Class-conditional DCGAN: both networks see the class, appended to the input of every layer.

    D minimizes  -E log D(x, y) - E log(1 - D(G(z, y), y)),   G minimizes  -E log D(G(z, y), y),   z ~ U(-1, 1)

Radford, Metz and Chintala, ICLR 2016, arXiv 1511.06434: the setting of the authors' code on MNIST, which their paper
evaluates in section 6 (supplementary material); the conditioning is that of Mirza and Osindero 2014, arXiv 1411.1784.
"""

from __future__ import annotations

from typing import Unpack, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from zoo.base import Batch, Terms
from zoo.base.noise import NoiseOptions, NoiseToImageGAN
from zoo.dcgan import Layer, initialize
from zoo.nn.layers import stages
from zoo.nn.losses import discriminator_terms, generator_term

__all__ = ["ConditionalDCGAN", "Discriminator", "Generator"]

HIDDEN = 1024
"""Features of the hidden linear layer in both networks."""


def with_label(x: Tensor, onehot: Tensor) -> Tensor:
    """The one-hot label appended to vectors, or to feature maps as constant maps.

    Shape:
        x: (N, C) or (N, C, H, W); onehot: (N, K); output: (N, C + K) or (N, C + K, H, W).
    """
    if x.dim() == 4:
        onehot = onehot.view(*onehot.shape, 1, 1).expand(-1, -1, *x.shape[2:])
    return torch.cat([x, onehot.to(x.dtype)], 1)


class Generator(nn.Module):
    """Noise and class to image: two linear layers, then transposed 5x5 convolutions that double the side.

    Shape:
        z: (N, latent_dim); label: (N,) int64; output: (N, image_channels, image_size, image_size) in (-1, 1).
    """

    def __init__(
        self, image_size: int, image_channels: int, latent_dim: int, base_channels: int, num_classes: int
    ) -> None:
        super().__init__()
        start, doublings = stages(image_size)  # 28 pixels: 7, 2
        k, c = num_classes, base_channels * 2 ** (doublings - 1)
        self.num_classes, self.start_shape = k, (c, start, start)
        hidden, first = (
            Layer(
                conv=nn.Linear(before, after, bias=False),
                norm=nn.BatchNorm1d(after, 1e-8, affine=False),
                act=nn.ReLU(True),
            )
            for before, after in ((latent_dim + k, HIDDEN), (HIDDEN + k, c * start * start))
        )
        layers = [hidden, first]
        for i in reversed(range(doublings)):
            after = c // 2 if i else image_channels
            conv = nn.ConvTranspose2d(c + k, after, 5, 2, 2, output_padding=1, bias=False)
            norm = nn.BatchNorm2d(after, 1e-8, affine=False)
            layers.append(Layer(conv=conv, norm=norm, act=nn.ReLU(True)) if i else Layer(conv=conv, act=nn.Tanh()))
            c = after  # (N, C, 14, 14), (N, 1, 28, 28)
        self.layers = nn.ModuleList(layers)

    def forward(self, z: Tensor, label: Tensor) -> Tensor:
        """Generate images of classes from noise."""
        onehot = F.one_hot(label, self.num_classes)
        x = z
        for i, layer in enumerate(self.layers):
            x = layer(with_label(x, onehot))
            x = x.view(-1, *self.start_shape) if i == 1 else x
        return x


class Discriminator(nn.Module):
    """Image and class to logit: 5x5 convolutions that halve the side, then two linear layers.

    Shape:
        x: (N, image_channels, image_size, image_size); label: (N,) int64; output: (N,) logits.
    """

    def __init__(self, image_size: int, image_channels: int, base_channels: int, num_classes: int) -> None:
        super().__init__()
        start, halvings = stages(image_size)
        self.num_classes, k, before, c = num_classes, num_classes, image_channels, base_channels
        layers: list[nn.Module] = []
        for i in range(halvings):
            conv = nn.Conv2d(before + k, c, 5, 2, 2, bias=False)  # (N, C, 14, 14), (N, 2C, 7, 7)
            norm = {"norm": nn.BatchNorm2d(c, 1e-8, affine=False)} if i else {}
            layers.append(Layer(conv=conv, **norm, act=nn.LeakyReLU(0.2, True)))
            before, c = c, 2 * c
        self.flatten_at = len(layers)
        hidden = nn.Linear(before * start * start + k, HIDDEN, bias=False)
        layers.append(Layer(conv=hidden, norm=nn.BatchNorm1d(HIDDEN, 1e-8, affine=False), act=nn.LeakyReLU(0.2, True)))
        self.layers = nn.ModuleList([*layers, Layer(conv=nn.Linear(HIDDEN + k, 1, bias=False))])

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        """Logits: positive for images taken to be real images of their class."""
        onehot = F.one_hot(label, self.num_classes)
        for i, layer in enumerate(self.layers):
            x = layer(with_label(x.flatten(1) if i == self.flatten_at else x, onehot))
        return x.flatten()


class ConditionalDCGAN(NoiseToImageGAN):
    """DCGAN of classes; batches carry `label`.

    Args:
        image_size: side of the images: 28, or a power of two from 8.
        image_channels: channels of the images.
        latent_dim: length of the noise vector.
        base_channels: channels of the largest feature map in both networks.
        num_classes: number of classes.
        learning_rate: Adam's step size, for both networks.
        options: see `NoiseOptions`.

    Raises:
        ValueError: an unsupported size, or no class.

    References:
        Radford et al. 2016, the authors' code for MNIST.
    """

    # NOTE(paper): the authors' images lie in [0, 1] behind a sigmoid; here they lie in [-1, 1] behind a tanh, the same
    # function up to the scale of its argument.

    conditions = ("label",)
    data_options = ("image_size", "image_channels", "num_classes")
    noise_kind = "uniform"

    def __init__(
        self,
        image_size: int = 28,
        image_channels: int = 1,
        latent_dim: int = 100,
        base_channels: int = 64,
        num_classes: int = 10,
        *,
        learning_rate: float = 2e-4,
        **options: Unpack[NoiseOptions],
    ) -> None:
        super().__init__(**options)
        self.save_hyperparameters()
        self.latent_dim, self.num_classes = latent_dim, num_classes
        sizes = (image_size, image_channels)
        self.generator = Generator(*sizes, latent_dim, base_channels, num_classes).apply(initialize)
        self.discriminator = Discriminator(*sizes, base_channels, num_classes).apply(initialize)
        self.average_networks()

    # Training --------------------------------------------------------------------------------------------------------

    def label_values(self, batch: Batch) -> range:
        """The classes."""
        return range(self.num_classes)

    def forward_shared(self, batch: Batch) -> Tensor:
        """The fakes of this batch, of the classes of its real images."""
        return cast(Tensor, self.generator(self.training_noise(len(batch["image"])), batch["label"]))

    def discriminator_loss(self, batch: Batch, fake: Tensor) -> Terms:
        """-E log D(x, y) - E log(1 - D(G(z, y), y))."""
        real_logits = self.discriminator(self.augmented(batch["image"], "real"), batch["label"])
        fake_logits = self.discriminator(self.augmented(fake.detach(), "fake"), batch["label"])
        return discriminator_terms("non_saturating", real_logits, fake_logits)

    def generator_loss(self, batch: Batch, fake: Tensor) -> Terms:
        """-E log D(G(z, y), y)."""
        logits = self.discriminator(self.augmented(fake, "fake"), batch["label"])
        return {"adversarial": generator_term("non_saturating", logits)}

    def should_step(self, phase: str, step: int) -> bool:
        """The authors train the generator on even batches, the discriminator on odd ones."""
        return (step % 2 == 0) == (phase == "generator")

    def configure_optimizers(self) -> list[Optimizer]:
        """Adam with weight decay for each network."""
        networks, rate = (self.discriminator, self.generator), self.hparams["learning_rate"]
        return self.adam_for_each(networks, rate, (0.5, 0.999), weight_decay=2.5e-5)
