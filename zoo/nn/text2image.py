"""Networks of Text2Image: a generator and a discriminator that see the embedding of a sentence."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from zoo.nn.layers import StartMap, stages

__all__ = ["Discriminator", "Generator", "Residual", "initialize"]

PROJECTION_DIM = 128
"""Length to which each network compresses an embedding."""


class Residual(nn.Module):
    """act(x + f(x)) with a bottleneck of a quarter of the channels.

    Shape:
        Input and output: (N, C, H, W).
    """

    def __init__(self, channels: int, slope: float) -> None:
        super().__init__()
        c = max(1, channels // 4)
        self.act = nn.LeakyReLU(slope, True)
        self.layers = nn.Sequential(
            *(nn.Conv2d(channels, c, 1, bias=False), nn.BatchNorm2d(c), nn.LeakyReLU(slope, True)),
            *(nn.Conv2d(c, c, 3, 1, 1, bias=False), nn.BatchNorm2d(c), nn.LeakyReLU(slope, True)),
            *(nn.Conv2d(c, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels)),
        )

    def forward(self, x: Tensor) -> Tensor:
        """The sum, activated."""
        return cast(Tensor, self.act(x + self.layers(x)))


class Generator(nn.Module):
    """Noise and the embedding of a sentence to image.

    The compressed embedding is appended to the noise. Maps of 4x4 are doubled to the image's size, and the first two of
    them pass a residual block.

    Args:
        image_size: side of the images.
        image_channels: channels of the images.
        latent_dim: length of the noise.
        text_features: length of an embedding.
        base_channels: channels of the last hidden map.

    Shape:
        z: (N, latent_dim); text: (N, text_features); output: (N, image_channels, image_size, image_size) in (-1, 1).
    """

    def __init__(
        self, image_size: int, image_channels: int, latent_dim: int, text_features: int, base_channels: int
    ) -> None:
        super().__init__()
        start, doublings = stages(image_size)  # 64 pixels: 4, 4
        self.project = nn.Sequential(nn.Linear(text_features, PROJECTION_DIM), nn.LeakyReLU(0.2, True))
        width = base_channels * 2 ** (doublings - 1)
        self.start = StartMap(latent_dim + PROJECTION_DIM, width, start, bias=False)
        layers: list[nn.Module] = [nn.BatchNorm2d(width), Residual(width, 0.0)]  # (N, 8C, 4, 4)
        for i in range(1, doublings):
            layers += [nn.ConvTranspose2d(width, width // 2, 4, 2, 1, bias=False), nn.BatchNorm2d(width // 2)]
            width //= 2
            layers += [Residual(width, 0.0) if i == 1 else nn.ReLU(True)]  # (N, 4C, 8, 8), (N, 2C, 16, 16), ...
        layers += [nn.ConvTranspose2d(width, image_channels, 4, 2, 1, bias=False), nn.Tanh()]  # (N, 3, 64, 64)
        self.layers = nn.Sequential(*layers)

    def forward(self, z: Tensor, text: Tensor) -> Tensor:
        """Generate images."""
        return cast(Tensor, self.layers(self.start(torch.cat([z, self.project(text)], 1))))


class Discriminator(nn.Module):
    """Image and the embedding of a sentence to logit: is it real, and does it show what the sentence says?

    `features` of the image and the compressed sentence (`project`) meet in `discriminate`, so that one pass over the
    images serves several sentences.

    Args:
        image_size: side of the images.
        image_channels: channels of the images.
        text_features: length of an embedding.
        base_channels: channels of the first hidden map.
        projection_norm: batch norm of compressed embeddings.

    Shape:
        x: (N, image_channels, image_size, image_size); text: (N, text_features); output: (N,) logits.
    """

    def __init__(
        self,
        image_size: int,
        image_channels: int,
        text_features: int,
        base_channels: int,
        projection_norm: bool = True,
    ) -> None:
        super().__init__()
        # NOTE(paper): the authors' code for CUB and Oxford-102 has no activation behind the third convolution, that for
        # COCO has one; here it is there.
        start, halvings = stages(image_size)
        width = base_channels
        layers: list[nn.Module] = [nn.Conv2d(image_channels, width, 4, 2, 1, bias=False), nn.LeakyReLU(0.2, True)]
        for i in range(1, halvings):
            layers += [nn.Conv2d(width, 2 * width, 4, 2, 1, bias=False), nn.BatchNorm2d(2 * width)]
            width *= 2
            if i < halvings - 1:
                layers += [nn.LeakyReLU(0.2, True)]
        self.features = nn.Sequential(*layers, Residual(width, 0.2))  # (N, 8C, 4, 4)
        norm = [nn.BatchNorm1d(PROJECTION_DIM)] if projection_norm else []
        self.project = nn.Sequential(nn.Linear(text_features, PROJECTION_DIM), *norm, nn.LeakyReLU(0.2, True))
        self.meet = nn.Sequential(
            nn.Conv2d(width + PROJECTION_DIM, width, 1, bias=False), nn.BatchNorm2d(width), nn.LeakyReLU(0.2, True)
        )
        self.end = nn.Conv2d(width, 1, start, bias=False)

    def discriminate(self, features: Tensor, projected: Tensor) -> Tensor:
        """Logits of images by their features, for compressed sentences.

        Shape:
            features: (N, 8C, 4, 4); projected: (N, P); output: (N,).
        """
        maps = projected[:, :, None, None].expand(-1, -1, *features.shape[2:])
        return cast(Tensor, self.end(self.meet(torch.cat([features, maps], 1)))).flatten()

    def forward(self, x: Tensor, text: Tensor) -> Tensor:
        """Logits: positive for images taken for real and fitting."""
        return self.discriminate(self.features(x), self.project(text))


def initialize(module: nn.Module) -> None:
    """Weights of convolutions from N(0, 0.02), scales of norms from N(1, 0.02); linear maps keep torch's weights."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
