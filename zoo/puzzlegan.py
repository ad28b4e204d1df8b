"""Puzzle-GAN: a few key patches of an image go in, without their places; the whole image comes out.

    D minimizes  -E log D(x) - E log(1 - D(y)) - E log(1 - D(s m + x (1 - m))) - E log(1 - D(x m + s (1 - m)))
    G minimizes  -E log D(y) + w sum |m' - m| + w sum |y m' - x m|,   (y, m') = G(patches of x, z),   z ~ U(-1, 1)

m is 1 where the patches of x lie, m' the mask generator's estimate of m, and s another image: the two composites show
the discriminator parts of one image on the background of another, so that parts and background come to agree. Lee, Yun,
Choi, Yoo, Yang and Oh, "Unsupervised Holistic Image Generation from Key Local Patches", ECCV 2018, arXiv 1703.10730;
the paper itself does not use the name Puzzle-GAN. The defaults are those of the authors' code at 64 pixels.
"""

from __future__ import annotations

import math
from itertools import chain
from typing import Any, Unpack, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from zoo.base import AdversarialModel, Batch, Terms, TrainingOptions, inference
from zoo.engine import rng
from zoo.engine.cross_rank import world_size
from zoo.nn.losses import at_least_float32, discriminator_terms, generator_term
from zoo.nn.puzzlegan import Discriminator, Encoder, ImageGenerator, MaskGenerator, canonical_order

__all__ = ["PuzzleGAN"]

MAKERS = ("encoder", "mask_generator", "generator")
"""The networks that make images and masks."""


class PuzzleGAN(AdversarialModel):
    """Makes an image, and the mask of where the given parts are in it, of key patches and noise.

    Batches hold `image`, `patches` (N, P, C, S, S) each resized to the image's size, `mask` (N, 1, S, S) and `other`,
    another image (N, C, S, S) of the data for each: the batches of `zoo.datamodules.Patches`. Any number of patches
    will do, the same for all images of a batch, and their order has no influence, not even on a rounding.

    Args:
        image_size: side of images and patches: 28, or a power of two from 8.
        image_channels: channels of the images.
        latent_dim: length of the noise vector.
        embedding_dim: length of the embedding of the patches.
        base_channels: channels of the largest hidden map in all networks; smaller maps have up to 8 times as many.
        l1_weight: weight w of both differences in the first and in the last of the `weight_epochs`.
        weight_epochs: epochs over which the weight changes, evenly in its logarithm; then it stays.
        n_critic: discriminator steps per generator step.
        learning_rate: Adam's step size, for all networks.
        options: see `TrainingOptions`.

    Raises:
        ValueError: an unsupported size, or a weight that is not above zero.

    References:
        Lee et al. 2017, and the authors' code for sizes, weights and the step ratio.
    """

    inference_networks: tuple[str, ...] = MAKERS
    averaged_networks = MAKERS
    unsupported_options = {"capture": "the weight of the masks falls on the host"}  # noqa: RUF012

    def __init__(
        self,
        image_size: int = 64,
        image_channels: int = 3,
        latent_dim: int = 128,
        embedding_dim: int = 128,
        base_channels: int = 64,
        *,
        l1_weight: tuple[float, float] = (1e-2, 1e-4),
        weight_epochs: int = 25,
        n_critic: int = 2,
        learning_rate: float = 2e-4,
        **options: Unpack[TrainingOptions],
    ) -> None:
        super().__init__(step_every={"generator": n_critic}, **options)
        self.save_hyperparameters()
        if min(l1_weight) <= 0 or weight_epochs < 1:
            raise ValueError("l1_weight must be above 0, and weight_epochs at least 1")
        self.latent_dim = latent_dim
        self.encoder = Encoder(image_size, image_channels, base_channels, embedding_dim)
        self.mask_generator = MaskGenerator(image_size, base_channels, embedding_dim)
        self.generator = ImageGenerator(image_size, image_channels, base_channels, embedding_dim, latent_dim)
        self.discriminator = Discriminator(image_size, image_channels, base_channels)
        self.average_networks()

    def lay_out(self) -> None:
        """The chosen layout, but not for the weights of transposed convolutions."""
        super().lay_out()
        for module in self.modules():
            # They would be copied from one layout into the other, and their gradients back, in each pass: for their
            # size and the few small maps that they meet, that takes longer than the convolution.
            if type(module) is nn.ConvTranspose2d:
                module.to(memory_format=torch.contiguous_format)

    # Assembling ------------------------------------------------------------------------------------------------------

    def forward(self, patches: Tensor, z: Tensor, averaged: bool = False) -> tuple[Tensor, Tensor]:
        """Images and masks.

        Args:
            patches: patches of each image.
            z: noise vectors.
            averaged: take the averages of the networks, where they are kept.

        Shape:
            patches: (N, P, C, S, S); z: (N, latent_dim); output: (N, C, S, S) in (-1, 1) and (N, 1, S, S) in (0, 1).

        Raises:
            ValueError: the patches have another shape.
        """
        if patches.dim() != 5 or tuple(patches.shape[2:]) != self.image_shape:
            wanted = ", ".join(map(str, self.image_shape))
            raise ValueError(f"patches must be (N, P, {wanted}), resized to the images' size; got {(*patches.shape,)}")
        encoder, mask_generator, generator = (self.averaged(m) if averaged else getattr(self, m) for m in MAKERS)
        rows = self.laid_out(canonical_order(patches).flatten(0, 1))
        features, embedding = encoder(rows.unflatten(0, patches.shape[:2]))
        mask, joined = mask_generator(features, embedding)
        image = generator(embedding, z, joined)
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
        image, mask = self(patches, z, averaged=True)
        return image.clamp(-1, 1), mask

    @inference
    def real_and_fake(self, batch: Batch, *, seed: int, first: int) -> tuple[Tensor, Tensor]:
        """The images of a batch, and the images made of their patches.

        Shape:
            Output: two of (N, C, S, S) in [-1, 1].
        """
        return batch["image"], self.assemble(_require_field(batch, "patches"), seed=seed, first=first)[0]

    def noise(self, n: int, key: rng.Key, first: int = 0) -> Tensor:
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
        return cast(tuple[Tensor, Tensor], self(_require_field(batch, "patches"), z))

    def discriminator_loss(self, batch: Batch, shared: tuple[Tensor, Tensor]) -> Terms:
        """Real images, generated ones, parts of another image on this one's background, and the other way round."""
        x, m = batch["image"], _require_field(batch, "mask")
        # Evaluation splits have no other image for each: there it is the next one of the batch.
        other = x.roll(1, 0) if self.evaluated else _require_field(batch, "other")
        images = (x, shared[0].detach(), other * m + x * (1 - m), x * m + other * (1 - m))
        real, fake, *composites = self.discriminator.discriminate_all(*map(self.laid_out, images))
        terms = discriminator_terms("non_saturating", real, fake)
        for name, logits in zip(("other_parts", "own_parts"), composites, strict=True):
            terms[name] = F.softplus(at_least_float32(logits)).mean()  # -E log(1 - D)
        return terms

    def generator_loss(self, batch: Batch, shared: tuple[Tensor, Tensor]) -> Terms:
        """-E log D(y) + w sum |m' - m| + w sum |y m' - x m|."""
        x, m, (fake, mask) = batch["image"], batch["mask"], shared
        # Sums over all images of a step: gradients are averaged over ranks and accumulated batches afterwards.
        scale = self.l1_weight() * world_size() * self.accumulate
        return {
            "adversarial": generator_term("non_saturating", self.discriminator(self.laid_out(fake))),
            "mask": scale * (mask - m).abs().sum(),
            "appearance": scale * (fake * mask - x * m).abs().sum(),
        }

    def l1_weight(self) -> float:
        """w in the present epoch: from the first to the last value, evenly in the logarithm."""
        first, last = (math.log10(value) for value in self.hparams["l1_weight"])
        steps = self.hparams["weight_epochs"] - 1
        gone = min(1.0, self.current_epoch / steps) if steps else 1.0
        return float(10 ** (first + gone * (last - first)))

    def configure_optimizers(self) -> list[Optimizer]:
        """Adam for the discriminator, and for the other three networks together."""
        makers = chain(*(getattr(self, name).parameters() for name in MAKERS))
        rate = self.hparams["learning_rate"]
        return [self.adam(each, rate, betas=(0.5, 0.999)) for each in (self.discriminator.parameters(), makers)]


def _require_field(batch: Batch, name: str) -> Tensor:
    """A field of a batch, or an error that says where such batches are made."""
    if name not in batch:
        raise ValueError(f"batches must hold {name!r}; there are {', '.join(batch)}: take zoo.datamodules.Patches")
    return cast(Tensor, batch[name])
