"""Puzzle-GAN: a few key patches of an image go in, without their places; the whole image comes out.

    D minimises  -E log D(x) - E log(1 - D(y)) - E log(1 - D(s m + x (1 - m))) - E log(1 - D(x m + s (1 - m)))
    G minimises  -E log D(y) + w sum |m' - m| + w sum |y m' - x m|,   (y, m') = G(patches of x, z),   z ~ U(-1, 1)

m is 1 where the patches of x lie, m' what the mask generator thinks of it, and s another image: the two composites show
the discriminator parts of one image on the background of another, so that parts and background come to agree. Lee, Yun,
Choi, Yoo, Yang and Oh, "Unsupervised Holistic Image Generation from Key Local Patches", ECCV 2018, arXiv 1703.10730;
the paper itself does not use the name Puzzle-GAN. The defaults are those of the authors' code at 64 pixels.
"""

from __future__ import annotations

import math
from itertools import chain, pairwise
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from zoo.base import AdversarialModel, Batch, Terms, inference
from zoo.engine import rng
from zoo.nn.losses import at_least_float32, discriminator_terms, generator_term

__all__ = ["Discriminator", "Encoder", "ImageGenerator", "MaskGenerator", "PuzzleGAN"]


def halvings(image_size: int) -> int:
    """How many times the side of an image is halved to reach 4.

    Raises:
        ValueError: the size is not a power of two from 8.
    """
    count = (image_size // 4).bit_length() - 1
    if count < 1 or 4 * 2**count != image_size:
        raise ValueError(f"image_size {image_size} is not supported: take a power of two from 8 (32, 64, 128, ...)")
    return count


def widths(image_size: int, base_channels: int) -> list[int]:
    """Channels of each level, from half the image's side to side 4: C, 2C, 4C, 8C, and 8C ever after."""
    return [base_channels * 2 ** min(3, i) for i in range(halvings(image_size))]


def down(image_channels: int, channels: list[int]) -> nn.ModuleList:
    """Levels that halve the side and have these channels: (N, C, S / 2, S / 2), (N, 2C, S / 4, S / 4) to side 4."""
    # In place, unless this level is the last: its maps are then parts of a tensor that several kinds of images share.
    levels = [nn.Sequential(nn.Conv2d(image_channels, channels[0], 5, 2, 2), nn.LeakyReLU(0.2, len(channels) > 1))]
    for before, width in pairwise(channels):
        # NOTE(paper): the authors' convolutions have a bias here, which the normalisation takes away again.
        conv = nn.Conv2d(before, width, 5, 2, 2, bias=False)
        levels.append(nn.Sequential(conv, nn.BatchNorm2d(width), nn.LeakyReLU(0.2, True)))
    return nn.ModuleList(levels)


class StartMap(nn.ConvTranspose2d):
    """Transposed convolution of vectors, taken as maps of 1x1: a matrix product, and several times faster as one.

    Shape:
        input: (N, in_channels); output: (N, out_channels, kernel_size, kernel_size).
    """

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Maps from vectors."""
        # In the weights' own order in memory, so that nothing is copied and the maps come out in the network's layout.
        if self.weight.is_contiguous(memory_format=torch.channels_last):
            weight = self.weight.permute(0, 2, 3, 1)  # (Z, S, S, C)
            return (input @ weight.flatten(1)).view(-1, *weight.shape[1:]).permute(0, 3, 1, 2)
        return (input @ self.weight.flatten(1)).view(-1, *self.weight.shape[1:])  # (N, C, S, S)


def up(features: int, channels: list[int], beside: int, image_channels: int) -> nn.ModuleList:
    """A start map of side 4 and levels that double it, with the channels of the way down in the other order.

    Before each level but the start come `beside` times as many further channels.
    """
    channels = channels[::-1]
    # NOTE(paper): without the biases that the normalisation takes away again.
    start = StartMap(features, channels[0], 4, bias=False)
    levels = [nn.Sequential(start, nn.BatchNorm2d(channels[0]), nn.ReLU(True))]
    for before, width in pairwise(channels):
        conv = nn.ConvTranspose2d((1 + beside) * before, width, 5, 2, 2, 1, bias=False)
        levels.append(nn.Sequential(conv, nn.BatchNorm2d(width), nn.ReLU(True)))
    levels.append(nn.Sequential(nn.ConvTranspose2d((1 + beside) * channels[-1], image_channels, 5, 2, 2, 1)))
    return nn.ModuleList(levels)


class Encoder(nn.Module):
    """The part encoder: patches to features of every level and an embedding, each summed over an image's patches.

    Shape:
        patches: (N, P, image_channels, S, S); output: a list of (N, C, S / 2, S / 2), (N, 2C, S / 4, S / 4), ... to
        side 4 with at most 8C channels, and (N, embedding_dim).
    """

    def __init__(self, image_size: int, image_channels: int, base_channels: int, embedding_dim: int) -> None:
        super().__init__()
        channels = widths(image_size, base_channels)
        self.levels = down(image_channels, channels)
        self.embed = nn.Sequential(nn.Conv2d(channels[-1], embedding_dim, 4), nn.LeakyReLU(0.2, True))

    def forward(self, patches: Tensor) -> tuple[list[Tensor], Tensor]:
        """All patches in one pass, normalised together: none has a place of its own."""
        n, features = len(patches), []
        # NOTE(paper): the authors pass the patches one slot after the other, so that their batch normalisation has
        # statistics of each slot. Here they are of all patches: that no order has any influence rests on it.
        x = patches.flatten(0, 1)  # (N P, C, S, S)
        for level in self.levels:
            x = level(x)
            features.append(x.unflatten(0, (n, -1)).sum(1))
        return features, self.embed(x).flatten(1).unflatten(0, (n, -1)).sum(1)


class MaskGenerator(nn.Module):
    """Embedding to mask, with the encoder's features of each level beside its own.

    Shape:
        features, embedding: as `Encoder` gives them; output: (N, 1, S, S) in (0, 1), and a list of
        (N, 2 C_l, S_l, S_l), its features and the encoder's together, from side 4 upwards.
    """

    def __init__(self, image_size: int, base_channels: int, embedding_dim: int) -> None:
        super().__init__()
        self.levels = up(embedding_dim, widths(image_size, base_channels), 1, 1)

    def forward(self, features: list[Tensor], embedding: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The mask, and what the image generator gets of the way to it."""
        first, *rest = self.levels
        x, joined = first(embedding), []
        for level, skip in zip(rest, reversed(features), strict=True):
            joined.append(torch.cat([x, skip], 1))
            x = level(joined[-1])
        return x.sigmoid(), joined


class ImageGenerator(nn.Module):
    """Embedding and noise to image, with the mask generator's features of each level beside its own.

    Shape:
        embedding: (N, embedding_dim); z: (N, latent_dim); joined: as `MaskGenerator` gives them; output:
        (N, image_channels, S, S) in (-1, 1).
    """

    def __init__(
        self, image_size: int, image_channels: int, base_channels: int, embedding_dim: int, latent_dim: int
    ) -> None:
        super().__init__()
        self.levels = up(embedding_dim + latent_dim, widths(image_size, base_channels), 2, image_channels)

    def forward(self, embedding: Tensor, z: Tensor, joined: list[Tensor]) -> Tensor:
        """The whole image."""
        first, *rest = self.levels
        x = first(torch.cat([embedding, z.to(embedding.dtype)], 1))
        for level, beside in zip(rest, joined, strict=True):
            x = level(torch.cat([x, beside], 1))
        return cast(Tensor, x.tanh())


class Discriminator(nn.Module):
    """Image to logit.

    Shape:
        x: (N, image_channels, S, S); output: (N,), positive for images taken for real.
    """

    def __init__(self, image_size: int, image_channels: int, base_channels: int) -> None:
        super().__init__()
        channels = widths(image_size, base_channels)
        self.levels = down(image_channels, channels)
        self.judge = nn.Conv2d(channels[-1], 1, 4)

    def forward(self, x: Tensor) -> Tensor:
        """The logits."""
        return self.each(x)[0]

    def each(self, *kinds: Tensor) -> list[Tensor]:
        """The logits of several kinds of images, each normalised by its own statistics.

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


class PuzzleGAN(AdversarialModel):
    """Makes an image, and the mask of where the given parts are in it, of key patches and noise.

    Batches hold `image`, `patches` (N, P, C, S, S) each resized to the image's size, `mask` (N, 1, S, S) and `other`,
    another image (N, C, S, S) of the data for each: what `zoo.datamodules.Patches` gives. Any number of patches will
    do, the same for all images of a batch, and their order has no influence, not even on a rounding.

    Args:
        image_size: side of images and patches: a power of two from 8.
        image_channels: channels of the images.
        latent_dim: length of the noise vector.
        embedding_dim: length of the embedding of the patches.
        base_channels: channels of the largest hidden map in all networks; smaller maps have up to 8 times as many.
        mask_weight: weight of the mask's term in the first and in the last of the `weight_epochs`.
        appearance_weight: weight of the appearance's term, likewise.
        weight_epochs: epochs over which both weights change, evenly in their logarithm; then they stay.
        l1_reduction: take those two terms as sums over all images of a step and their values, or as means. A mean is
            smaller by the number of values: give larger weights.
        n_critic: discriminator steps per generator step.
        learning_rate: Adam's step size, for all networks.
        betas: Adam's decay rates.
        accumulate: batches whose gradients make one step.
        gradient_clip: largest gradient norm per optimizer; None does not clip.
        channels_last: lay out convolutions channels last, which is faster on most devices.

    Raises:
        ValueError: an unsupported size or reduction, or weights that are not above zero.

    References:
        Lee et al. 2017, and the authors' code for sizes, weights and the step ratio.
    """

    inference_networks = ("encoder", "mask_generator", "generator")

    def __init__(
        self,
        image_size: int = 64,
        image_channels: int = 3,
        latent_dim: int = 128,
        embedding_dim: int = 128,
        base_channels: int = 64,
        *,
        mask_weight: tuple[float, float] = (1e-2, 1e-4),
        appearance_weight: tuple[float, float] = (1e-2, 1e-4),
        weight_epochs: int = 25,
        l1_reduction: Literal["sum", "mean"] = "sum",
        n_critic: int = 2,
        learning_rate: float = 2e-4,
        betas: tuple[float, float] = (0.5, 0.999),
        accumulate: int = 1,
        gradient_clip: float | None = None,
        channels_last: bool = False,
    ) -> None:
        super().__init__(step_every={"generator": n_critic}, accumulate=accumulate, gradient_clip=gradient_clip)
        self.save_hyperparameters()
        if l1_reduction not in ("sum", "mean"):
            raise ValueError(f"l1_reduction must be 'sum' or 'mean', not {l1_reduction!r}")
        if min(*mask_weight, *appearance_weight) <= 0 or weight_epochs < 1:
            raise ValueError("mask_weight and appearance_weight must be above 0, and weight_epochs at least 1")
        self.latent_dim = latent_dim
        self.encoder = Encoder(image_size, image_channels, base_channels, embedding_dim)
        self.mask_generator = MaskGenerator(image_size, base_channels, embedding_dim)
        self.generator = ImageGenerator(image_size, image_channels, base_channels, embedding_dim, latent_dim)
        self.discriminator = Discriminator(image_size, image_channels, base_channels)
        if channels_last:
            self.to(memory_format=torch.channels_last)
            for module in self.modules():
                # These weights would be copied from one layout into the other, and their gradients back, in each pass:
                # for their size and the few small maps that they meet, that takes longer than the convolution.
                if type(module) is nn.ConvTranspose2d:
                    module.to(memory_format=torch.contiguous_format)

    # Assembling ------------------------------------------------------------------------------------------------------

    def forward(self, patches: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Images and masks.

        Shape:
            patches: (N, P, C, S, S); z: (N, latent_dim); output: (N, C, S, S) in (-1, 1) and (N, 1, S, S) in (0, 1).

        Raises:
            ValueError: the patches have another shape.
        """
        if patches.dim() != 5 or tuple(patches.shape[2:]) != self.image_shape:
            wanted = ", ".join(map(str, self.image_shape))
            raise ValueError(f"patches must be (N, P, {wanted}), resized to the images' size; got {(*patches.shape,)}")
        features, embedding = self.encoder(self._laid_out(in_one_order(patches)))
        mask, joined = self.mask_generator(features, embedding)
        image = self.generator(embedding, z, joined)
        return image.to(patches.dtype), mask.to(patches.dtype)

    @inference
    def assemble(self, patches: Tensor, *, seed: int | None = None, first: int = 0) -> tuple[Tensor, Tensor]:
        """Whole images that have the given patches, and masks of where they are in them.

        Args:
            patches: patches of each image, in any order.
            seed: seed of the noise; None takes a new one.
            first: global index of the first image: its noise depends on (seed, first) only.

        Shape:
            patches: (N, P, C, S, S) in [-1, 1]; output: (N, C, S, S) in [-1, 1] and (N, 1, S, S) in [0, 1].

        Raises:
            ValueError: the patches have another shape.
        """
        z = self.noise(len(patches), rng.key(self.resolve_seed(seed), "sample"), first)
        image, mask = self(patches, z)
        return image.clamp(-1, 1), mask

    @inference
    def real_and_fake(self, batch: Batch, *, seed: int, first: int) -> tuple[Tensor, Tensor]:
        """The images of a batch, and what is made of their patches.

        Shape:
            Output: two of (N, C, S, S) in [-1, 1].
        """
        return batch["image"], self.assemble(self._given(batch, "patches"), seed=seed, first=first)[0]

    def noise(self, n: int, key: int, first: int = 0) -> Tensor:
        """Noise vectors from U(-1, 1); row i depends on (key, first + i) only.

        Shape:
            Output: (n, latent_dim).
        """
        options: dict[str, Any] = {"device": self.device, "dtype": self.dtype}
        return rng.uniform((n, self.latent_dim), key, first, low=-1.0, high=1.0, **options)

    # Training --------------------------------------------------------------------------------------------------------

    def forward_shared(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The images made of this batch's patches, and their masks."""
        n = len(batch["image"])
        z = self.noise(n, self.draw_key("z"), self.first_index(n))
        with torch.set_grad_enabled("generator" in self.active_phases):
            image, mask = self(self._given(batch, "patches"), z)
        return image, mask

    def discriminator_loss(self, batch: Batch, shared: tuple[Tensor, Tensor]) -> Terms:
        """Real images, generated ones, parts of another image on this one's background, and the other way round.

        Shape:
            Output: scalars.
        """
        x, m, other = batch["image"], self._given(batch, "mask"), self._given(batch, "other")
        images = (x, shared[0].detach(), other * m + x * (1 - m), x * m + other * (1 - m))
        real, fake, *composites = self.discriminator.each(*map(self._laid_out, images))
        terms = discriminator_terms("non_saturating", real, fake)
        for name, logits in zip(("other_parts", "own_parts"), composites, strict=True):
            terms[name] = F.softplus(at_least_float32(logits)).mean()  # -E log(1 - D)
        return terms

    def generator_loss(self, batch: Batch, shared: tuple[Tensor, Tensor]) -> Terms:
        """-E log D(y) + w sum |m' - m| + w sum |y m' - x m|.

        Shape:
            Output: scalars.
        """
        x, m, (fake, mask) = batch["image"], batch["mask"], shared
        return {
            "adversarial": generator_term("non_saturating", self.discriminator(self._laid_out(fake))),
            "mask": self.weight("mask_weight") * self._reduced(mask - m),
            "appearance": self.weight("appearance_weight") * self._reduced(fake * mask - x * m),
        }

    def weight(self, name: str) -> float:
        """A weight in the present epoch: from the first to the last value, evenly in the logarithm.

        Args:
            name: "mask_weight" or "appearance_weight".
        """
        first, last = (math.log10(value) for value in self.hparams[name])
        steps = self.hparams["weight_epochs"] - 1
        gone = min(1.0, self.current_epoch / steps) if steps else 1.0
        return float(10 ** (first + gone * (last - first)))

    def _reduced(self, difference: Tensor) -> Tensor:
        if self.hparams["l1_reduction"] == "mean":
            return difference.abs().mean()
        # Over all images of a step: gradients are averaged over ranks and accumulated batches afterwards.
        world = 1 if self._trainer is None else self.trainer.world_size
        return difference.abs().sum() * (world * self.accumulate)

    def configure_optimizers(self) -> list[Optimizer]:
        """Adam for the discriminator, and for the other three networks together."""
        rate, betas = self.hparams["learning_rate"], tuple(self.hparams["betas"])
        makers = chain(*(network.parameters() for network in (self.encoder, self.mask_generator, self.generator)))
        return [self.adam(each, rate, betas=betas) for each in (self.discriminator.parameters(), makers)]

    def _laid_out(self, x: Tensor) -> Tensor:
        """Images, or patches (N, P, C, S, S), as the convolutions take them."""
        if not self.hparams["channels_last"]:
            return x
        if x.dim() == 5:
            rows = x.flatten(0, 1).contiguous(memory_format=torch.channels_last)
            return cast(Tensor, rows.unflatten(0, x.shape[:2]))
        return x.contiguous(memory_format=torch.channels_last)

    @staticmethod
    def _given(batch: Batch, name: str) -> Tensor:
        """A field of a batch.

        Raises:
            ValueError: there is none.
        """
        if name not in batch:
            raise ValueError(f"batches must hold {name!r}; there are {', '.join(batch)}: take zoo.datamodules.Patches")
        return cast(Tensor, batch[name])


def in_one_order(patches: Tensor) -> Tensor:
    """The patches of each image in an order that depends on what they show alone.

    A sum in another order differs by roundings. Behind this, patches in any order are the same numbers in the same
    places, so that whatever is computed from them is the same, bit for bit.

    Shape:
        Input and output: (N, P, C, S, S).
    """
    rows = patches.flatten(2).double()
    # Random weights: only patches that are equal have sums that are equal but for roundings.
    weights = rng.uniform((rows.size(2),), rng.key(0, "order of patches"), device=rows.device, dtype=rows.dtype)
    order = (rows @ weights).argsort(1)
    return patches[torch.arange(len(patches), device=patches.device)[:, None], order]
