"""Text2Image: a conditional GAN that draws what a sentence says.

    D minimizes  -E log D(x, t) - (1 - w) E log(1 - D(G(z, t), t)) - w E log(1 - D(x, t'))
    G minimizes  -(sum_i log D(G(z_i, t_i), t_i) + v sum_j log D(G(z_j, s_j), s_j)) / (number of i and j)

t is the embedding of the image's own sentence, t' that of an image of another class, and s_j = (t_a + t_b) / 2 lies
between two sentences. w = 0 and v = 0 is the plain conditional GAN, w > 0 is GAN-CLS, v > 0 is GAN-INT, and both
together, the default, is GAN-INT-CLS. Reed, Akata, Yan, Logeswaran, Schiele and Lee, "Generative Adversarial Text to
Image Synthesis", ICML 2016, arXiv 1605.05396; networks and details are those of the authors' code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim import Optimizer

from zoo.base import Batch, Terms
from zoo.base.noise import NoiseOptions
from zoo.base.sentences import SentenceToImageGAN
from zoo.engine.cross_rank import all_gather_rows, global_mean
from zoo.nn.losses import at_least_float32, discriminator_terms
from zoo.nn.schedules import Decay
from zoo.nn.text import load_text_encoder
from zoo.nn.text2image import Discriminator, Generator, initialize

__all__ = ["Text2Image"]

# Halved when the authors' epochs 100, 200, ..., 600 begin, each of 139 batches.
DECAY = Decay("milestones", milestones={(100 * k - 1) * 139: 0.5**k for k in range(1, 7)})


class Text2Image(SentenceToImageGAN):
    """Generator of images of sentences: GAN-INT-CLS.

    Batches hold `image`, `caption_embedding` (N, D) and `mismatched_embedding` (N, D), the embedding of a sentence that
    describes an image of another class; or, where the model has a text encoder, `caption` and `mismatched_caption`
    (lists of str) in their place.

    Args:
        image_size: side of the images: 28, or a power of two from 8.
        image_channels: channels of the images.
        text_encoder: name or file of a published `TextEncoder`, "sentence", or settings of an untrained encoder (see
            `zoo.nn.text.load_text_encoder`); None for a model that is given embeddings only.
        text_features: length of an embedding where there is no text encoder.
        prompts: sentences that `sample` draws from when it is given none.
        latent_dim: length of the noise.
        projection_norm: batch norm of the discriminator's compressed embeddings.
        normalize_embeddings: bring every embedding of length D to the norm sqrt(D) first; the paper does not. Short
            embeddings have little influence next to the noise.
        base_channels: channels of the generator's last hidden map.
        discriminator_channels: channels of the discriminator's first hidden map.
        mismatch_weight: w, the share of mismatched pairs among the pairs that the discriminator refuses; 0 needs none.
        interpolation_weight: v, the weight of sentences between two; 0 makes none.
        learning_rate: Adam's step size, for both networks.
        decay: how this rate falls; None keeps it. By default it is halved six times, first at step 13,761.
        options: see `NoiseOptions`.

    Raises:
        ValueError: an unsupported size or weight.

    References:
        Reed et al. 2016, sections 4.1 to 4.3, algorithm 1, and the authors' code.
    """

    # NOTE(paper): in the authors' code conv biases are zeroed before every step; here there are none. Their mismatched
    # pairs are the same in another order: another class's image with the sentence. Their generator's step draws new
    # noise; here both steps use the same images, those of sentences between two in the same batch. A sentence between
    # two lies in their middle, as in their runs; their `interp_type` 2, a random place on the line, is not built.

    def __init__(
        self,
        image_size: int = 64,
        image_channels: int = 3,
        text_encoder: str | dict[str, Any] | None = None,
        text_features: int = 1024,
        prompts: Sequence[str] = (),
        *,
        latent_dim: int = 100,
        projection_norm: bool = True,
        normalize_embeddings: bool = False,
        base_channels: int = 128,
        discriminator_channels: int = 64,
        mismatch_weight: float = 0.5,
        interpolation_weight: float = 1.0,
        learning_rate: float = 2e-4,
        decay: Decay | dict[str, Any] | None = DECAY,
        **options: Unpack[NoiseOptions],
    ) -> None:
        encoder = None if text_encoder is None else load_text_encoder(text_encoder)
        super().__init__(encoder, prompts, normalize_embeddings, **options)
        # What is kept builds the encoder again anywhere; its weights are those of the checkpoint.
        text_encoder = None if encoder is None else encoder.settings
        text_features = text_features if encoder is None else encoder.embedding_dim
        self.save_hyperparameters(ignore=["text_encoder", "text_features", "prompts"])
        self.save_hyperparameters({"text_encoder": text_encoder, "text_features": text_features, "prompts": [*prompts]})
        self.latent_dim, self.text_features, self.decay = latent_dim, text_features, Decay.of(decay)
        sizes = (image_size, image_channels)
        self.generator = Generator(*sizes, latent_dim, text_features, base_channels).apply(initialize)
        self.discriminator = Discriminator(*sizes, text_features, discriminator_channels, projection_norm)
        self.discriminator.apply(initialize)
        self.average_networks()

    @classmethod
    def gan_cls(cls, image_size: int = 64, **options: Any) -> Text2Image:
        """GAN-CLS, the paper's setting for COCO; use a batch size of 64, and the average of 3 captions.

        Args:
            image_size: side of the images.
            options: replace further arguments of the constructor.
        """
        setting: dict[str, Any] = {
            "interpolation_weight": 0.0,
            "base_channels": 196,
            "discriminator_channels": 196,
            "projection_norm": False,
            "decay": Decay("repeated", every=51_720),  # 40 epochs of 82,783 // 64 batches
        }
        return cls(image_size, **setting | options)

    @classmethod
    def gan_int(cls, image_size: int = 64, **options: Any) -> Text2Image:
        """GAN-INT: sentences between two, and no mismatched pairs.

        Args:
            image_size: side of the images.
            options: replace further arguments of the constructor.
        """
        setting: dict[str, Any] = {"mismatch_weight": 0.0}
        return cls(image_size, **setting | options)

    # Training --------------------------------------------------------------------------------------------------------

    def forward_shared(self, batch: Batch) -> dict[str, Any]:
        """Embeddings of the batch and, for the generator's step, between two; and the images of all of them."""
        text = self.embedding(batch, "caption")
        draws_between = self.hparams["interpolation_weight"] > 0 and self.active_phases != ("discriminator",)
        between, first = self._between(text) if draws_between else (text[:0], 0)
        z = torch.cat([self.training_noise(len(text)), self.noise(len(between), self.draw_key("z between"), first)])
        every = torch.cat([text, between])
        return {"text": text, "all": every, "fake": self.generator(z, every), "first": first}

    def _between(self, text: Tensor) -> tuple[Tensor, int]:
        """This rank's share of (t_i + t_{i + B / 2}) / 2 over the batch of all ranks, and the number of its first."""
        everything = all_gather_rows(text.detach())
        half, world, rank = len(everything) // 2, len(everything) // len(text), self.batch_rank
        start, stop = rank * half // world, (rank + 1) * half // world
        return self.scaled((everything[start:stop] + everything[half + start : half + stop]) / 2), start

    def discriminator_loss(self, batch: Batch, shared: dict[str, Any]) -> Terms:
        """-E log D(x, t), -(1 - w) E log(1 - D(G(z, t), t)) and -w E log(1 - D(x, t'))."""
        x, text, weight = batch["image"], shared["text"], self.hparams["mismatch_weight"]
        # Real and fake images separately, as each has its own batch statistics.
        generated = self.augmented(shared["fake"][: len(x)].detach(), "fake")
        real, fake = self.discriminator.features(self.augmented(x, "real")), self.discriminator.features(generated)
        own = self.discriminator.project(text)
        real_logits, fake_logits = (self.discriminator.discriminate(images, own) for images in (real, fake))
        terms = discriminator_terms("non_saturating", real_logits, fake_logits)
        terms["fake"] = (1 - weight) * terms["fake"]
        if weight:
            other = self.discriminator.project(self.embedding(batch, "mismatched"))
            logits = self.discriminator.discriminate(real, other)
            terms["mismatched"] = weight * F.softplus(at_least_float32(logits)).mean()
        return terms

    def generator_loss(self, batch: Batch, shared: dict[str, Any]) -> Terms:
        """-(sum log D(G(z, t), t) + v sum log D(G(z, s), s)) / number of t and s, over all ranks."""
        n, fake = len(shared["text"]), shared["fake"]
        if self.augment:
            between = self.augmented(fake[n:], "between", shared["first"])
            fake = torch.cat([self.augmented(fake[:n], "fake"), between])
        loss = F.softplus(-at_least_float32(self.discriminator(fake, shared["all"])))
        terms = {"adversarial": global_mean(loss[:n].sum(), len(loss))}
        if weight := self.hparams["interpolation_weight"]:
            terms["between"] = weight * global_mean(loss[n:].sum(), len(loss))
        return terms

    def optimizer_overrides(self, phase: str, step: int) -> dict[str, Any]:
        """The learning rate under its schedule."""
        return {"lr": self.decayed(self.hparams["learning_rate"], self.decay, step)}

    def configure_optimizers(self) -> list[Optimizer]:
        """Adam for each network."""
        rate = self.hparams["learning_rate"]
        return self.adam_for_each((self.discriminator, self.generator), rate, betas=(0.5, 0.999))
