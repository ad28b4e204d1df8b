"""InfoGAN with the convolutional networks of the paper's experiments on SVHN and CelebA.

The generator starts from a map of 2x2, and only its first two layers have batch normalization; the trunk that the
discriminator and Q share has convolutions alone. The objective is that of `InfoGAN`.

Chen et al., "InfoGAN: Interpretable Representation Learning by Information Maximizing Generative Adversarial Nets",
NIPS 2016, arXiv 1606.03657, appendix C.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Unpack

import torch
from torch import Tensor, nn

from zoo.base import inference
from zoo.base.noise import NoiseOptions
from zoo.infogan import InfoGAN
from zoo.nn.infogan import Trunk
from zoo.nn.layers import unit

__all__ = ["ConvInfoGAN"]


class Generator(nn.Module):
    """Noise and codes to image: a map of 2x2 pixels, doubled until it has the image's size.

    Shape:
        z: (N, inputs); output: (N, image_channels, image_size, image_size), in (0, 1) if signed, else in (-1, 1).
    """

    def __init__(self, inputs: int, image_size: int, image_channels: int, base_channels: int, signed: bool) -> None:
        super().__init__()
        self.signed = signed
        inner = image_size.bit_length() - 3  # maps between the first and the image
        width, widths = 7 * base_channels, [base_channels * 2**i for i in reversed(range(inner))]
        layers: list[nn.Module] = [
            nn.ConvTranspose2d(inputs, width, 2, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(True),  # (N, 7C, 2, 2)
        ]
        for i, c in enumerate(widths):
            norm = [nn.BatchNorm2d(c)] if i == 0 else []
            layers += [nn.ConvTranspose2d(width, c, 4, 2, 1, bias=False), *norm, nn.ReLU(True)]  # (N, 4C, 4, 4)
            width = c
        self.layers = nn.Sequential(*layers, nn.ConvTranspose2d(width, image_channels, 4, 2, 1, bias=False))

    def forward(self, z: Tensor) -> Tensor:
        """Generate images."""
        image = torch.tanh(self.layers(z[:, :, None, None]))
        return unit(image) if self.signed else image


class ConvTrunk(Trunk):
    """A trunk of strided convolutions alone."""

    def __init__(
        self, image_size: int, image_channels: int, base_channels: int, signed: bool, negative_slope: float
    ) -> None:
        super().__init__()
        self.signed = signed
        width = base_channels
        layers: list[nn.Module] = [nn.Conv2d(image_channels, width, 4, 2, 1), nn.LeakyReLU(negative_slope, True)]
        for _ in range(image_size.bit_length() - 4):
            layers += [
                nn.Conv2d(width, 2 * width, 4, 2, 1, bias=False),
                nn.BatchNorm2d(2 * width),
                nn.LeakyReLU(negative_slope, True),
            ]
            width *= 2  # (N, 2C, H / 2, W / 2)
        self.layers = nn.Sequential(*layers)  # (N, 4C, 4, 4)
        self.features = width * 4 * 4

    def forward(self, x: Tensor) -> Tensor:
        """Features of images."""
        features: Tensor = self.layers(2 * x - 1 if self.signed else x).flatten(1)
        return features


def make_networks(inputs: int, options: Mapping[str, Any]) -> tuple[Generator, ConvTrunk]:
    """Generator and trunk; see `zoo.nn.infogan.make_networks`."""
    sizes = [options[name] for name in ("image_size", "image_channels", "base_channels", "signed")]
    return Generator(inputs, *sizes), ConvTrunk(*[*sizes, options["negative_slope"]])


class ConvInfoGANOptions(NoiseOptions, total=False):
    """Options that are those of `InfoGAN`, with its defaults in brackets."""

    noise: Literal["uniform", "normal"]
    """z ~ U(-1, 1), or N(0, 1) ("uniform")."""
    category_weight: float
    """Weight of the mutual information with categorical codes (1)."""
    continuous_weight: float
    """Weight of the mutual information with continuous codes (1)."""
    generator_learning_rate: float
    """Adam's step size for the generator (0.001)."""
    discriminator_learning_rate: float
    """Adam's step size for the discriminator and Q (0.0002)."""
    update: Literal["alternating", "simultaneous"]
    """Two steps with latents of their own, or both steps from one pass ("alternating")."""


class ConvInfoGAN(InfoGAN):
    """InfoGAN for images in color.

    Args:
        image_size: side of the images, a power of two from 16; the paper's is 32.
        image_channels: channels of the images.
        latent_dim: length of the incompressible noise z.
        categorical_codes: number of values of each categorical code.
        num_continuous: number of continuous codes.
        base_channels: channels of the largest hidden feature map in both networks.
        negative_slope: of the leaky ReLUs.
        signed: the networks work on images in [-1, 1]; False: in [0, 1], also behind the tanh, as in a common port's
            experiment with SVHN.
        options: see `ConvInfoGANOptions`.

    Raises:
        ValueError: an unsupported size, or as in `InfoGAN`.

    References:
        Chen et al. 2016, appendix C: networks and codes for SVHN, which are the defaults; CelebA has ten categorical
        codes, no continuous one and a z of 128.
    """

    make_networks: Callable[..., tuple[nn.Module, Trunk]] = staticmethod(make_networks)

    def __init__(
        self,
        image_size: int = 32,
        image_channels: int = 3,
        latent_dim: int = 124,
        categorical_codes: Sequence[int] = (10, 10, 10, 10),
        num_continuous: int = 4,
        *,
        base_channels: int = 64,
        negative_slope: float = 0.1,
        signed: bool = True,
        **options: Unpack[ConvInfoGANOptions],
    ) -> None:
        if image_size < 16 or image_size & (image_size - 1):
            raise ValueError(f"image_size must be a power of two from 16, not {image_size}")
        super().__init__(
            image_size,
            image_channels,
            latent_dim,
            categorical_codes,
            num_continuous,
            base_channels=base_channels,
            negative_slope=negative_slope,
            **options,
        )
        self.save_hyperparameters()

    @inference
    def generate(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """Images from given inputs of the generator.

        Shape:
            z: (N, latent_dim + size of the codes); output: (N, C, H, W) in [-1, 1].
        """
        return super().generate(z).clamp(-1, 1)
