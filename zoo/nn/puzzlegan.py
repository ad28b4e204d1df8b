"""Networks of Puzzle-GAN: an encoder of patches, generators of mask and image with skips from it, a discriminator."""

from __future__ import annotations

from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

from zoo.engine import rng
from zoo.engine.devices import double, upload
from zoo.engine.tracing import is_exported
from zoo.nn.layers import StartMap, stages

__all__ = ["Discriminator", "Encoder", "ImageGenerator", "MaskGenerator", "canonical_order"]


def widths(image_size: int, base_channels: int) -> list[int]:
    """Channels of each level, from half the image's side to the smallest map: C, 2C, 4C, 8C, and 8C ever after."""
    _, halvings = stages(image_size)
    return [base_channels * 2 ** min(3, i) for i in range(halvings)]


def down(image_channels: int, channels: list[int]) -> nn.ModuleList:
    """Levels that halve the side and have these channels: (N, C, S / 2, S / 2), (N, 2C, S / 4, S / 4) to side 4."""
    # In place, unless this level is the last: its maps are then parts of a tensor that several kinds of images share.
    levels = [nn.Sequential(nn.Conv2d(image_channels, channels[0], 5, 2, 2), nn.LeakyReLU(0.2, len(channels) > 1))]
    for before, width in pairwise(channels):
        # NOTE(paper): the authors' convolutions have a bias here, which the normalization takes away again.
        conv = nn.Conv2d(before, width, 5, 2, 2, bias=False)
        levels.append(nn.Sequential(conv, nn.BatchNorm2d(width), nn.LeakyReLU(0.2, True)))
    return nn.ModuleList(levels)


def up(features: int, start: int, channels: list[int], skips: int, image_channels: int) -> nn.ModuleList:
    """A start map and levels that double it, with the channels of the way down in the other order.

    Before each level but the start, `skips` times as many further channels are appended.
    """
    channels = channels[::-1]
    # NOTE(paper): without the biases that the normalization takes away again.
    first = StartMap(features, channels[0], start, bias=False)
    levels = [nn.Sequential(first, nn.BatchNorm2d(channels[0]), nn.ReLU(True))]
    for before, width in pairwise(channels):
        conv = nn.ConvTranspose2d((1 + skips) * before, width, 5, 2, 2, 1, bias=False)
        levels.append(nn.Sequential(conv, nn.BatchNorm2d(width), nn.ReLU(True)))
    levels.append(nn.Sequential(nn.ConvTranspose2d((1 + skips) * channels[-1], image_channels, 5, 2, 2, 1)))
    return nn.ModuleList(levels)


class Encoder(nn.Module):
    """The part encoder: patches to features of every level and an embedding, each summed over an image's patches.

    Shape:
        patches: (N, P, image_channels, S, S); output: a list of (N, C, S / 2, S / 2), (N, 2C, S / 4, S / 4), ... to
        side 4 with at most 8C channels, and (N, embedding_dim).
    """

    def __init__(self, image_size: int, image_channels: int, base_channels: int, embedding_dim: int) -> None:
        super().__init__()
        start, _ = stages(image_size)
        channels = widths(image_size, base_channels)
        self.levels = down(image_channels, channels)
        self.embed = nn.Sequential(nn.Conv2d(channels[-1], embedding_dim, start), nn.LeakyReLU(0.2, True))

    def forward(self, patches: Tensor) -> tuple[list[Tensor], Tensor]:
        """All patches in one pass, normalized together: none has a place of its own."""
        n, features = patches.size(0), []
        # NOTE(paper): the authors pass the patches one slot after the other, so that their batch normalization has
        # statistics of each slot. Here they are of all patches, so that the order has no influence.
        x = patches.flatten(0, 1)  # (N P, C, S, S)
        for level in self.levels:
            x = level(x)
            features.append(x.unflatten(0, (n, -1)).sum(1))
        return features, self.embed(x).flatten(1).unflatten(0, (n, -1)).sum(1)


class MaskGenerator(nn.Module):
    """Embedding to mask, with the encoder's features of each level appended to its own.

    Shape:
        features, embedding: as `Encoder` gives them; output: (N, 1, S, S) in (0, 1), and a list of
        (N, 2 C_l, S_l, S_l), its features and the encoder's together, from side 4 upwards.
    """

    def __init__(self, image_size: int, base_channels: int, embedding_dim: int) -> None:
        super().__init__()
        start, _ = stages(image_size)
        self.levels = up(embedding_dim, start, widths(image_size, base_channels), 1, 1)

    def forward(self, features: list[Tensor], embedding: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The mask, and the joined features that the image generator gets."""
        first, *rest = self.levels
        x, joined = first(embedding), []
        for level, skip in zip(rest, reversed(features), strict=True):
            joined.append(torch.cat([x, skip], 1))
            x = level(joined[-1])
        return x.sigmoid(), joined


class ImageGenerator(nn.Module):
    """Embedding and noise to image, with the mask generator's joined features of each level appended to its own.

    Shape:
        embedding: (N, embedding_dim); z: (N, latent_dim); joined: as `MaskGenerator` gives them; output:
        (N, image_channels, S, S) in (-1, 1).
    """

    def __init__(
        self, image_size: int, image_channels: int, base_channels: int, embedding_dim: int, latent_dim: int
    ) -> None:
        super().__init__()
        start, _ = stages(image_size)
        self.levels = up(embedding_dim + latent_dim, start, widths(image_size, base_channels), 2, image_channels)

    def forward(self, embedding: Tensor, z: Tensor, joined: list[Tensor]) -> Tensor:
        """The whole image."""
        first, *rest = self.levels
        x = first(torch.cat([embedding, z.to(embedding.dtype)], 1))
        for level, skip in zip(rest, joined, strict=True):
            x = level(torch.cat([x, skip], 1))
        return cast(Tensor, x.tanh())


class Discriminator(nn.Module):
    """Image to logit.

    Shape:
        x: (N, image_channels, S, S); output: (N,), positive for images taken for real.
    """

    def __init__(self, image_size: int, image_channels: int, base_channels: int) -> None:
        super().__init__()
        start, _ = stages(image_size)
        channels = widths(image_size, base_channels)
        self.levels = down(image_channels, channels)
        self.judge = nn.Conv2d(channels[-1], 1, start)

    def forward(self, x: Tensor) -> Tensor:
        """The logits."""
        return self.discriminate_all(x)[0]

    def discriminate_all(self, *kinds: Tensor) -> list[Tensor]:
        """The logits of several kinds of images, each normalized by its own statistics.

        Shape:
            kinds: each (N, image_channels, S, S); output: for each (N,).
        """
        *early, (conv, *rest) = cast(list[nn.Sequential], self.levels)
        maps = list(kinds)
        for level in early:
            maps = [level(x) for x in maps]
        # Maps this small a CPU convolves far faster all at once.
        maps = list(conv(torch.cat(maps)).chunk(len(maps)))
        for layer in rest:
            maps = [layer(x) for x in maps]
        return list(self.judge(torch.cat(maps)).flatten().chunk(len(maps)))


def canonical_order(patches: Tensor) -> Tensor:
    """The patches of each image in an order that depends on their pixels alone.

    A sum in another order differs by roundings. In this order the same patches are the same numbers in the same places,
    so that whatever is computed from them is the same, bit for bit.

    Shape:
        Input and output: (N, P, C, S, S).
    """
    if is_exported():  # a graph for other runtimes may round as it likes
        return patches
    rows = double(patches.flatten(2))
    # Random weights: only patches that are equal have sums that are equal but for roundings.
    weights = rng.uniform((rows.size(2),), rng.key(0, "order of patches"), device=rows.device, dtype=rows.dtype)
    order = upload((rows @ weights).argsort(1), patches.device)
    return patches[torch.arange(patches.size(0), device=patches.device)[:, None], order]
