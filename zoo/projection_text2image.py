"""Text2Image with a projection discriminator: how well an image fits a sentence is an inner product of the two.

    D(x, t) = (a + V t) . sum_ij phi(x)_ij + b,   every weight divided by its largest singular value
    D minimizes  E max(0, 1 - D(x, t)) + (1 - w) E max(0, 1 + D(G(z, t), t)) + w E max(0, 1 + D(x, t'))
    G minimizes  -E D(G(z, t), t) - v E min(|G(z, t) - G(z', t)| / |z - z'|, tau)

t is the embedding of the image's own sentence, t' that of an image of another class. What differs from GAN-CLS (Reed et
al. 2016, `zoo.text2image`), and why:

- The sentence meets the image in an inner product and the losses are hinges, as Miyato and Koyama do with classes
  ("cGANs with Projection Discriminator", ICLR 2018, arXiv 1802.05637, equations 3 and 4); phi are the layers of
  `zoo.sngan`.
- Noise and sentence set scale and shift of every normalization of the generator (de Vries et al. 2017, "Modulating
  early visual processing by language"; noise and class together: Brock et al. 2019, section 3).
- Images of one sentence are to differ by tau times the difference of their noises (Yang et al. 2019, "Diversity-
  Sensitive Conditional Generative Adversarial Networks", equation 3; |.| are means of absolute values). With v = 0
  noise changes little: the card of projection_text2image-emoji64 has the figures.
- Mismatched pairs stay, with the paper's weight. Sentences between two (GAN-INT) are gone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Unpack, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from zoo.base import Batch, Terms
from zoo.base.noise import NoiseOptions
from zoo.base.sentences import SentenceToImageGAN
from zoo.nn.layers import stages
from zoo.nn.losses import at_least_float32, discriminator_terms, generator_term
from zoo.nn.spectral import normalize
from zoo.nn.text import load_text_encoder
from zoo.nn.text2image import PROJECTION_DIM
from zoo.sngan import initialize, trunk

__all__ = ["ConditionalBatchNorm", "ProjectionDiscriminator", "ProjectionText2Image", "SentenceGenerator"]


class ConditionalBatchNorm(nn.Module):
    """Batch normalization whose scale and shift a vector sets: 1 + A c and B c.

    Args:
        channels: channels of the maps.
        features: length of the vector.

    Shape:
        x: (N, C, H, W); condition: (N, features); output as x.
    """

    def __init__(self, channels: int, features: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.scale_and_shift = nn.Linear(features, 2 * channels)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Normalize, scale and shift."""
        normal = self.norm(x)
        scale, shift = self.scale_and_shift(condition).to(normal.dtype)[:, :, None, None].chunk(2, 1)
        return torch.addcmul(shift, normal, 1 + scale)


class SentenceGenerator(nn.Module):
    """Noise and the embedding of a sentence to image.

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
        features = latent_dim + PROJECTION_DIM
        widths = [base_channels * 2**i for i in range(doublings, -1, -1)]
        start_map = (widths[0], start, start)
        self.start = nn.Sequential(nn.Linear(features, math.prod(start_map)), nn.Unflatten(1, start_map))
        self.doubling = nn.ModuleList(nn.ConvTranspose2d(c, d, 4, 2, 1, bias=False) for c, d in pairwise(widths))
        self.norms = nn.ModuleList(ConditionalBatchNorm(d, features) for d in widths[1:])
        self.end = nn.Sequential(nn.Conv2d(base_channels, image_channels, 3, 1, 1), nn.Tanh())

    def forward(self, z: Tensor, text: Tensor) -> Tensor:
        """Generate images."""
        condition = torch.cat([z, self.project(text)], 1)
        x = self.start(condition)  # (N, 16C, 4, 4)
        for double, norm in zip(self.doubling, self.norms, strict=True):
            x = norm(double(x), condition).relu()  # (N, 8C, 8, 8), (N, 4C, 16, 16), ...
        return cast(Tensor, self.end(x))


class ProjectionDiscriminator(nn.Module):
    """Image and the embedding of a sentence to logit: is it real, and does it show what the sentence says?

    Args:
        image_size: side of the images.
        image_channels: channels of the images.
        text_features: length of an embedding.
        base_channels: channels of the first hidden map.

    Shape:
        x: (N, image_channels, image_size, image_size); text: (N, text_features); output: (N,) logits.
    """

    def __init__(self, image_size: int, image_channels: int, text_features: int, base_channels: int) -> None:
        super().__init__()
        layers, channels = trunk(image_size, image_channels, base_channels)
        self.layers = nn.Sequential(*layers)
        self.real = nn.Linear(channels, 1)
        self.text = nn.Linear(text_features, channels, bias=False)

    def features(self, x: Tensor) -> Tensor:
        """phi, summed over all places.

        Shape:
            Output: (N, 16C).
        """
        return cast(Tensor, self.layers(x).sum((2, 3)))

    def discriminate(self, features: Tensor, text: Tensor) -> Tensor:
        """Logits of images by their features.

        Shape:
            features: (N, 16C); text: (N, text_features); output: (N,).
        """
        # Embeddings come with the norm sqrt(D); a class, in the paper, has the norm 1.
        fits = (self.text(text / math.sqrt(text.shape[1])) * features).sum(1)
        return cast(Tensor, self.real(features).flatten() + fits)

    def forward(self, x: Tensor, text: Tensor) -> Tensor:
        """Logits: positive for images taken for real and fitting."""
        return self.discriminate(self.features(x), text)


class ProjectionText2Image(SentenceToImageGAN):
    """Generator of images of sentences, trained by a projection discriminator.

    Batches as those of `zoo.Text2Image`. Every embedding is brought to the same norm first.

    Args:
        image_size: side of the images: 28, or a power of two from 8.
        image_channels: channels of the images.
        text_encoder: as in `zoo.Text2Image`.
        text_features: length of an embedding where there is no text encoder.
        prompts: sentences that `sample` draws from when it is given none.
        latent_dim: length of the noise.
        base_channels: channels of the largest map of both networks.
        mismatch_weight: w, the share of mismatched pairs among the pairs that the discriminator refuses.
        diversity_weight: v, the weight of the difference between images of one sentence; 0 makes no second images.
        diversity_limit: tau, the difference from which on it is not counted, as a part of that of the noises.
        learning_rate: Adam's step size, for both networks.
        options: see `NoiseOptions`.

    Raises:
        ValueError: an unsupported size.
    """

    def __init__(
        self,
        image_size: int = 64,
        image_channels: int = 3,
        text_encoder: str | dict[str, Any] | None = None,
        text_features: int = 1024,
        prompts: Sequence[str] = (),
        *,
        latent_dim: int = 128,
        base_channels: int = 64,
        mismatch_weight: float = 0.5,
        diversity_weight: float = 5.0,
        diversity_limit: float = 0.35,
        learning_rate: float = 2e-4,
        **options: Unpack[NoiseOptions],
    ) -> None:
        encoder = None if text_encoder is None else load_text_encoder(text_encoder)
        super().__init__(encoder, prompts, normalize_embeddings=True, **options)
        text_encoder = None if encoder is None else encoder.settings
        text_features = text_features if encoder is None else encoder.embedding_dim
        self.save_hyperparameters(ignore=["text_encoder", "text_features", "prompts"])
        self.save_hyperparameters({"text_encoder": text_encoder, "text_features": text_features, "prompts": [*prompts]})
        self.latent_dim, self.text_features = latent_dim, text_features
        sizes = (image_size, image_channels)
        self.generator = SentenceGenerator(*sizes, latent_dim, text_features, base_channels).apply(initialize)
        self.discriminator = ProjectionDiscriminator(*sizes, text_features, base_channels).apply(initialize)
        self.discriminator.apply(normalize)
        self.average_networks()

    # Training --------------------------------------------------------------------------------------------------------

    def forward_shared(self, batch: Batch) -> dict[str, Tensor]:
        """Embeddings of the batch and fakes of them; for the generator's step as many of other noise."""
        text = self.embedding(batch, "caption")
        n, z = len(text), self.training_noise(len(text))
        if self.hparams["diversity_weight"] == 0 or self.active_phases == ("discriminator",):
            return {"text": text, "fake": self.generator(z, text)}
        z = torch.cat([z, self.noise(n, self.draw_key("z of others"), self.first_index(n))])
        fake, others = self.generator(z, torch.cat([text, text])).chunk(2)
        return {"text": text, "fake": fake, "others": others, "z": z}

    def discriminator_loss(self, batch: Batch, shared: dict[str, Tensor]) -> Terms:
        """E max(0, 1 - D(x, t)), (1 - w) E max(0, 1 + D(G(z, t), t)) and w E max(0, 1 + D(x, t'))."""
        x, text, weight = batch["image"], shared["text"], float(self.hparams["mismatch_weight"])
        # In one pass: nothing is normalized over the batch here.
        images = torch.cat([self.augmented(x, "real"), self.augmented(shared["fake"].detach(), "fake").to(x.dtype)])
        real, fake = self.discriminator.features(images).chunk(2)
        own, generated, other = self.discriminator.discriminate(
            torch.cat([real, fake, real]), torch.cat([text, text, self.embedding(batch, "mismatched")])
        ).chunk(3)
        terms = discriminator_terms("hinge", own, generated)
        mismatched = discriminator_terms("hinge", own, other)["fake"]
        return {"real": terms["real"], "fake": (1 - weight) * terms["fake"], "mismatched": weight * mismatched}

    def generator_loss(self, batch: Batch, shared: dict[str, Tensor]) -> Terms:
        """-E D(G(z, t), t) and -v E min(|G(z, t) - G(z', t)| / |z - z'|, tau)."""
        fake = shared["fake"]
        terms = {
            "adversarial": generator_term("hinge", self.discriminator(self.augmented(fake, "fake"), shared["text"]))
        }
        if "others" in shared:
            images, noises = (
                (a - b).abs().flatten(1).mean(1) for a, b in ((fake, shared["others"]), shared["z"].chunk(2))
            )
            ratio = at_least_float32(images) / noises
            terms["diversity"] = (
                -self.hparams["diversity_weight"] * ratio.clamp(max=self.hparams["diversity_limit"]).mean()
            )
        return terms

    def configure_optimizers(self) -> list[Optimizer]:
        """Adam for each network."""
        return self.adam_for_each((self.discriminator, self.generator), self.hparams["learning_rate"], (0.0, 0.9))
