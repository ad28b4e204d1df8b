"""Adversarial models that make images from noise: drawing, sampling, and the averaged generator."""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
from torch import Tensor, nn

from zoo.base import AdversarialModel, Batch, inference
from zoo.engine import rng
from zoo.nn.layers import update_ema

__all__ = ["NoiseModel"]


class NoiseModel(AdversarialModel):
    """A model with a network `generator(z, label)` that makes images from noise, and from a class if it has any.

    Subclasses may have the hyperparameter `noise` ("normal", the default, or "uniform"), build `generator`, and call
    `average_generator` once it is built.

    Attributes:
        latent_dim: length of the noise vector.
        num_classes: number of classes of a conditional model, 0 for others.
        generator_ema: exponential moving average of the generator, which then makes the samples; None for none.
    """

    generator: nn.Module
    latent_dim: int
    num_classes: int
    generator_ema: nn.Module | None

    def average_generator(self, decay: float | None) -> None:
        """Keep an exponential moving average of the generator from now on; None does not."""
        self.generator_ema = None if decay is None else copy.deepcopy(self.generator).requires_grad_(False).eval()
        self.ema_decay = decay
        self.inference_networks = ("generator" if decay is None else "generator_ema",)

    def after_step(self, phase: str) -> None:
        """Move the averaged generator."""
        if phase == "generator" and self.generator_ema is not None and self.ema_decay is not None:
            update_ema(self.generator_ema, self.generator, self.ema_decay)

    def noise(self, n: int, key: int, first: int = 0) -> Tensor:
        """Noise vectors; row i depends on (key, first + i) only.

        Shape:
            Output: (n, latent_dim).
        """
        options: dict[str, Any] = {"device": self.device, "dtype": self.dtype}
        if self.hparams.get("noise") == "uniform":
            return rng.uniform((n, self.latent_dim), key, first, low=-1.0, high=1.0, **options)
        return rng.normal((n, self.latent_dim), key, first, **options)

    @inference
    def latent(self, n: int, *, seed: int | None = None, first: int = 0) -> Tensor:
        """The noise from which `sample` with the same arguments makes its images.

        Shape:
            Output: (n, latent_dim).
        """
        return self.noise(n, rng.key(self.resolve_seed(seed), "sample"), first)

    @inference
    def generate(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """Images from given noise.

        Args:
            z: noise vectors.
            label: classes, in the conditional form.

        Shape:
            z: (N, latent_dim); label: (N,) int64; output: (N, C, H, W) in [-1, 1].
        """
        network = self.generator if self.generator_ema is None else self.generator_ema
        return cast(Tensor, network(z, label)).clamp(-1, 1)

    @inference
    def sample(self, n: int, *, seed: int | None = None, first: int = 0, **conditions: Any) -> Tensor:
        """Draw images.

        Args:
            n: number of images.
            seed: seed of the draw; None takes a new one.
            first: global index of the first image: image i depends on (seed, first + i) only.
            conditions: `label`, a class or one per image (conditional form); by default classes are drawn uniformly.

        Shape:
            Output: (n, C, H, W) in [-1, 1].

        Raises:
            ValueError: a label was given to an unconditional model, or does not exist.
        """
        label = conditions.pop("label", None)
        if conditions:
            raise ValueError(f"{type(self).__name__} has no condition {next(iter(conditions))!r}")
        seed = self.resolve_seed(seed)
        z = self.noise(n, rng.key(seed, "sample"), first)
        return self.generate(z, self._sample_labels(n, label, seed, first))

    def _sample_labels(self, n: int, label: int | Tensor | None, seed: int, first: int) -> Tensor | None:
        if not self.num_classes:
            if label is not None:
                raise ValueError("this model is unconditional (num_classes=0): it takes no label")
            return None
        if label is None:
            return rng.integers(self.num_classes, (n,), rng.key(seed, "label"), first, device=self.device)
        labels = torch.as_tensor(label, dtype=torch.int64, device=self.device).expand(n)
        if n and not 0 <= int(labels.min()) <= int(labels.max()) < self.num_classes:
            raise ValueError(f"labels must lie in 0..{self.num_classes - 1}")
        return labels

    def real_and_fake(self, batch: Batch, *, seed: int, first: int) -> tuple[Tensor, Tensor]:
        """Real images, and generated ones with the same labels where the model is conditional."""
        real: Tensor = batch["image"]
        conditions = {"label": batch["label"]} if self.num_classes else {}
        return real, self.sample(len(real), seed=seed, first=first, **conditions)
