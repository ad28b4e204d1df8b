"""Adversarial models that make images of sentences, from noise and embeddings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.base.model import Batch, inference
from zoo.base.noise import NoiseToImageGAN
from zoo.engine import rng

__all__ = ["SentenceToImageGAN"]


class SentenceToImageGAN(NoiseToImageGAN):
    """A model with a network `generator(z, embedding)` that makes images of sentences.

    Batches hold the embeddings of sentences as `<kind>_embedding` (N, D), such as `caption_embedding`; or, where the
    model has a text encoder, sentences as a list of str. The text encoder is frozen and part of the published file.

    Args:
        text_encoder: a network that makes embeddings of sentences, with a method `digest`; None for a model that is
            given embeddings only.
        prompts: sentences that `sample` draws from when it is given none.
        normalize_embeddings: bring every embedding of length D to the norm sqrt(D) first.
        options: see `NoiseToImageGAN`.
    """

    batch_fields = ("image", "caption")
    conditions: tuple[str, ...] = ("text", "embedding")

    def __init__(
        self, text_encoder: nn.Module | None, prompts: Sequence[str], normalize_embeddings: bool, **options: Any
    ) -> None:
        super().__init__(**options)
        self.text_encoder: Any = text_encoder
        self.prompts = list(prompts)
        self.normalize_embeddings = normalize_embeddings

    def average_networks(self) -> None:
        """Keep the average that `ema_decay` asks for; samples need the text encoder too, if it has weights."""
        super().average_networks()
        if self.text_encoder is not None and self.text_encoder.state_dict():
            self.inference_networks = (*self.inference_networks, "text_encoder")

    # Sentences -------------------------------------------------------------------------------------------------------

    @inference
    def encode_text(self, captions: Sequence[str]) -> Tensor:
        """Embeddings of sentences.

        Shape:
            Output: (N, D).

        Raises:
            ValueError: the model has no text encoder.
        """
        if self.text_encoder is None:
            raise ValueError("this model has no text encoder: give embedding=..., of the encoder it was trained with")
        dtype: Any = self.dtype
        return cast(Tensor, self.text_encoder(captions).to(self.device, dtype))

    def embedding(self, batch: Batch, kind: str) -> Tensor:
        """Embeddings of a batch's sentences as the networks take them.

        Args:
            batch: holds the embeddings or the sentences.
            kind: which of them: "caption" for the images' own ones, "mismatched" for others. Where the batch holds no
                others, each image gets the next one's.

        Shape:
            Output: (N, D).

        Raises:
            ValueError: the batch holds neither.
        """
        key, name = f"{kind}_embedding", "caption" if kind == "caption" else f"{kind}_caption"
        if key in batch:
            return self.scaled(batch[key])
        if kind == "mismatched" and name not in batch:
            # Of other loaders, and in validation: the sentence of the next image.
            return self.embedding(batch, "caption").roll(-1, 0)
        if self.step_numbers is not None:
            raise ValueError(f"captured steps take embeddings, no sentences: batches must hold {key}")
        if name not in batch or self.text_encoder is None:
            raise ValueError(f"batches must hold {key}, or {name} for a model with a text encoder: take Captioned")
        return self.scaled(self.encode_text(batch[name]).to(batch["image"].dtype))

    def scaled(self, embedding: Tensor) -> Tensor:
        """Embeddings as the networks take them; to scale them twice changes nothing.

        Shape:
            Input and output: (..., D).
        """
        if not self.normalize_embeddings:
            return embedding
        return F.normalize(embedding, dim=-1) * math.sqrt(embedding.shape[-1])

    def check_data(self, data: Any) -> None:
        """Refuse embeddings of another text encoder: samples of sentences would mean nothing."""
        given = getattr(data, "encoder_digest", None)
        if given is not None and self.text_encoder is not None and given != (own := self.text_encoder.digest()):
            raise ValueError(f"the data's text_encoder ({given}) is not the model's ({own}): give both the same")

    # Sampling --------------------------------------------------------------------------------------------------------

    def sample_inputs(self, n: int, seed: int, first: int, **conditions: Any) -> dict[str, Any]:
        """Noise and embeddings.

        Args:
            n: number of images.
            seed: seed of the draw.
            first: global index of the first image.
            conditions: `text`, a sentence or one per image, or `embedding`, (D,) or (n, D); by default the sentences
                are drawn from `prompts`.

        Raises:
            ValueError: there is nothing to draw from, or there are other than one or n sentences.
        """
        text, embedding = conditions.get("text"), conditions.get("embedding")
        if embedding is None:
            if text is None:
                prompts = self._known_prompts()
                text = [prompts[i] for i in rng.integers(len(prompts), (n,), rng.key(seed, "prompt"), first).tolist()]
            if not isinstance(text, str) and len(text) != n:
                raise ValueError(f"{len(text)} sentences for {n} images: give one, or as many")
            embedding = self.encode_text([text] if isinstance(text, str) else list(text))
        return {"z": self.latent(n, seed=seed, first=first), "embedding": embedding}

    @inference
    def generate(self, z: Tensor, embedding: Tensor | None = None) -> Tensor:
        """Images of sentences from given noise.

        Args:
            z: noise vectors.
            embedding: embedding of one sentence, or one per image; None takes the first of `prompts`.

        Shape:
            z: (N, latent_dim); embedding: (D,) or (N, D); output: (N, C, H, W) in [-1, 1].
        """
        if embedding is None:
            embedding = self.encode_text(self._known_prompts()[:1])
        given = self.scaled(torch.as_tensor(embedding, device=z.device, dtype=z.dtype).expand(z.size(0), -1))
        return cast(Tensor, self.averaged("generator")(z, given)).clamp(-1, 1)

    def _known_prompts(self) -> list[str]:
        if not self.prompts:
            raise ValueError(f"{type(self).__name__} draws what it is told: give text=... or embedding=...")
        return self.prompts

    @inference
    def real_and_fake(self, batch: Batch, *, seed: int, first: int) -> tuple[Tensor, Tensor]:
        """The images of a batch, and generated ones of the same sentences."""
        real: Tensor = batch["image"]
        return real, self.sample(len(real), seed=seed, first=first, embedding=self.embedding(batch, "caption"))
