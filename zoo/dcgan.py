"""DCGAN: a GAN of strided convolutions and batch normalization, without pooling or hidden linear layers.

    D minimizes  -E log D(x) - E log(1 - D(G(z))),   G minimizes  -E log D(G(z)),   z ~ N(0, I)

Radford, Metz and Chintala, "Unsupervised Representation Learning with Deep Convolutional Generative Adversarial
Networks", ICLR 2016, arXiv 1511.06434. The defaults are those of the PyTorch example; `DCGAN.paper()` has those of the
authors' Theano code. Other objectives on these networks have their own files: `zoo.wgan_gp`, `zoo.sngan`; the
class-conditional form is `zoo.conditional_dcgan`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Unpack, cast

from torch import Tensor, nn
from torch.optim import Optimizer

from zoo.base import Batch, Terms
from zoo.base.noise import NoiseOptions, NoiseToImageGAN
from zoo.nn.layers import StartMap, stages
from zoo.nn.losses import discriminator_terms, generator_term

__all__ = ["DCGAN", "Discriminator", "Generator"]


class Layer(nn.Sequential):
    """A convolution (or linear map) `conv`, a normalization `norm` and an activation `act`."""

    def __init__(self, **modules: nn.Module) -> None:
        super().__init__()
        for name, module in modules.items():
            self.add_module(name, module)


class Generator(nn.Module):
    """Noise to image: a 4x4 map, doubled by transposed convolutions until it has the image's size.

    Shape:
        z: (N, latent_dim); output: (N, image_channels, image_size, image_size) in (-1, 1).
    """

    def __init__(
        self, image_size: int, image_channels: int, latent_dim: int, base_channels: int, theano: bool = False
    ) -> None:
        super().__init__()
        start, doublings = stages(image_size)  # 64 pixels: 4, 4
        c = base_channels * 2 ** (doublings - 1)
        up: dict[str, Any] = {"kernel_size": 4, "stride": 2, "padding": 1, "bias": False}
        norm: dict[str, Any] = {}
        first: tuple[nn.Module, nn.Module]
        if theano:  # 5x5 kernels, a linear first layer normalized per feature, a smaller epsilon
            up |= {"kernel_size": 5, "padding": 2, "output_padding": 1}
            norm = {"eps": 1e-8}
            first = nn.Linear(latent_dim, c * start * start, bias=False), nn.BatchNorm1d(c * start * start, **norm)
        else:
            first = StartMap(latent_dim, c, start, bias=False), nn.BatchNorm2d(c)
        self.start_shape = (c, start, start)
        layers = [Layer(conv=first[0], norm=first[1], act=nn.ReLU(True))]  # (N, 8C, 4, 4)
        for _ in range(doublings - 1):
            c //= 2
            conv = nn.ConvTranspose2d(2 * c, c, **up)
            layers.append(Layer(conv=conv, norm=nn.BatchNorm2d(c, **norm), act=nn.ReLU(True)))  # (N, 4C, 8, 8), ...
        layers.append(Layer(conv=nn.ConvTranspose2d(c, image_channels, **up), act=nn.Tanh()))  # (N, 3, 64, 64)
        self.layers = nn.ModuleList(layers)

    def forward(self, z: Tensor) -> Tensor:
        """Generate images from noise."""
        first, *rest = self.layers
        x = first(z).view(-1, *self.start_shape)
        for layer in rest:
            x = layer(x)
        return cast(Tensor, x)


class Discriminator(nn.Module):
    """Image to logit: convolutions that halve the side and double the channels; no norm at either end.

    Shape:
        x: (N, image_channels, image_size, image_size); output: (N,) logits.
    """

    def __init__(
        self,
        image_size: int,
        image_channels: int,
        base_channels: int,
        theano: bool = False,
        norm: Callable[[int], nn.Module] = nn.BatchNorm2d,
    ) -> None:
        super().__init__()
        start, doublings = stages(image_size)
        c = base_channels
        down: dict[str, Any] = {"kernel_size": 5, "padding": 2} if theano else {"kernel_size": 4, "padding": 1}
        down |= {"stride": 2, "bias": False}
        layers = [Layer(conv=nn.Conv2d(image_channels, c, **down), act=nn.LeakyReLU(0.2, True))]  # (N, C, 32, 32)
        for _ in range(doublings - 1):
            conv = nn.Conv2d(c, 2 * c, **down)
            c *= 2
            normed = nn.BatchNorm2d(c, 1e-8) if theano else norm(c)
            layers.append(Layer(conv=conv, norm=normed, act=nn.LeakyReLU(0.2, True)))  # (N, 2C, 16, 16), ...
        # A linear map of the last 4x4 map, which the example writes as a convolution.
        last = nn.Linear(c * start * start, 1, bias=False) if theano else nn.Conv2d(c, 1, start, bias=False)
        self.layers = nn.ModuleList([*layers, Layer(conv=last)])
        self.flat = theano

    def forward(self, x: Tensor) -> Tensor:
        """Logits: positive for images taken to be real."""
        *convolutions, last = self.layers
        for layer in convolutions:
            x = layer(x)
        return cast(Tensor, last(x.flatten(1) if self.flat else x)).flatten()


def initialize(module: nn.Module) -> None:
    """Weights from N(0, 0.02), scales of norms from N(1, 0.02), all else 0."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and module.affine:
        nn.init.normal_(module.weight, 1.0, 0.02)


class DCGAN(NoiseToImageGAN):
    """Deep convolutional GAN. Both phases use the same fakes, drawn once per batch.

    Args:
        image_size: side of the images: 28, or a power of two from 8.
        image_channels: channels of the images.
        latent_dim: length of the noise vector.
        base_channels: channels of the generator's largest feature map.
        discriminator_channels: the same of the discriminator; None takes `base_channels`.
        variant: "pytorch" is the PyTorch example. "theano" is the authors' code: 5x5 kernels, linear first and last
            layers, z ~ U(-1, 1), weight decay, and the two networks trained on batches in turn.
        learning_rate: Adam's step size, for both networks.
        betas: Adam's decay rates.
        options: see `NoiseOptions`.

    Raises:
        ValueError: an unsupported size.

    References:
        Radford et al. 2016, section 3 and figure 1.
    """

    def __init__(
        self,
        image_size: int = 64,
        image_channels: int = 3,
        latent_dim: int = 100,
        base_channels: int = 64,
        *,
        discriminator_channels: int | None = None,
        variant: Literal["pytorch", "theano"] = "pytorch",
        learning_rate: float = 2e-4,
        betas: tuple[float, float] = (0.5, 0.999),
        **options: Unpack[NoiseOptions],
    ) -> None:
        super().__init__(**options)
        self.save_hyperparameters()
        self.latent_dim, self.betas = latent_dim, betas
        self.theano = variant == "theano"
        self.noise_kind = "uniform" if self.theano else "normal"
        self.generator = Generator(image_size, image_channels, latent_dim, base_channels, self.theano).apply(initialize)
        sizes = image_size, image_channels, discriminator_channels or base_channels
        self.discriminator = Discriminator(*sizes, self.theano).apply(initialize)
        self.average_networks()

    @classmethod
    def paper(cls, image_size: int = 64, **options: Any) -> DCGAN:
        """The authors' setting for faces, 128 channels wide; use a batch size of 128.

        Args:
            image_size: side of the images.
            options: replace further arguments of the constructor.
        """
        # NOTE(paper): the authors' sampling uses batch statistics; here samples use the running ones, so that a sample
        # does not depend on the others of its batch.
        setting: dict[str, Any] = {"base_channels": 128, "variant": "theano"}
        return cls(image_size, **setting | options)

    # Training --------------------------------------------------------------------------------------------------------

    def forward_shared(self, batch: Batch) -> Tensor:
        """The fakes of this batch."""
        return cast(Tensor, self.generator(self.training_noise(len(batch["image"]))))

    def discriminator_loss(self, batch: Batch, fake: Tensor) -> Terms:
        """-E log D(x) - E log(1 - D(G(z))); separate passes, so that batch statistics of real and fake do not mix."""
        real_logits = self.discriminator(self.augmented(batch["image"], "real"))
        fake_logits = self.discriminator(self.augmented(fake.detach(), "fake"))
        return discriminator_terms("non_saturating", real_logits, fake_logits)

    def generator_loss(self, batch: Batch, fake: Tensor) -> Terms:
        """-E log D(G(z))."""
        return {"adversarial": generator_term("non_saturating", self.discriminator(self.augmented(fake, "fake")))}

    def should_step(self, phase: str, step: int) -> bool:
        """The authors train the generator on even batches, the discriminator on odd ones."""
        return (step % 2 == 0) == (phase == "generator") if self.theano else super().should_step(phase, step)

    def configure_optimizers(self) -> list[Optimizer]:
        """Adam for each network."""
        weight_decay = 1e-5 if self.theano else 0.0
        networks, rate = (self.discriminator, self.generator), self.hparams["learning_rate"]
        return self.adam_for_each(networks, rate, self.betas, weight_decay=weight_decay)
