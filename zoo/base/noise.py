"""Adversarial models that make images from noise: drawing and sampling."""

from __future__ import annotations

from typing import Any, Literal, TypedDict, cast

from torch import Tensor, nn

from zoo.base.augmentation import AugmentedModel
from zoo.base.model import Batch, inference
from zoo.engine import rng

__all__ = ["NoiseOptions", "NoiseToImageGAN"]


class NoiseOptions(TypedDict, total=False):
    """How a model that makes images from noise is trained, whatever its paper."""

    # Those of TrainingOptions again, because the command's help shows the texts of a TypedDict's own fields only.
    accumulate: int
    """Batches whose gradients make one step (1)."""
    gradient_clip: float | None
    """Largest gradient norm of each phase (none)."""
    ema_decay: float | None
    """Decay of an average of the generator's weights; the average then makes the samples (none)."""
    channels_last: bool
    """Lay out convolutions channels last, which is faster on most devices (false)."""
    compile: bool
    """Compile the networks with torch.compile (false)."""
    capture: bool
    """Run each step as one CUDA graph: the host launches nothing else; a CPU runs the same step eagerly (false)."""
    augment: bool
    """DiffAugment for whatever the discriminator sees, real and generated images alike (false)."""


class NoiseToImageGAN(AugmentedModel):
    """A model with a network `generator(z, label)` that makes images from noise, and from a class if it has any.

    Subclasses set `latent_dim`, build `generator` and call `average_networks` once the networks are built.

    Args:
        augment: DiffAugment before the discriminator, on real and generated images alike.
        options: see `AdversarialModel`.

    Attributes:
        latent_dim: length of the noise vector.
        num_classes: number of classes of a conditional model, 0 for others.
        noise_kind: distribution of each element of the noise, N(0, 1) or U(-noise_limit, noise_limit).
        noise_limit: see `noise_kind`.
    """

    main_function = "generate"
    inference_networks: tuple[str, ...] = ("generator",)
    generator: nn.Module
    latent_dim: int
    num_classes = 0
    noise_kind: Literal["normal", "uniform"] = "normal"
    noise_limit = 1.0

    def __init__(self, *, augment: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self.augment = augment

    # Drawing ---------------------------------------------------------------------------------------------------------

    def noise(self, n: int, key: rng.Key, first: int = 0) -> Tensor:
        """Noise vectors; row i depends on (key, first + i) only.

        Shape:
            Output: (n, latent_dim).
        """
        options: dict[str, Any] = {"device": self.device, "dtype": self.dtype}
        if self.noise_kind == "uniform":
            return rng.uniform(
                (n, self.latent_dim), key, first, low=-self.noise_limit, high=self.noise_limit, **options
            )
        return rng.normal((n, self.latent_dim), key, first, **options)

    def training_noise(self, n: int) -> Tensor:
        """The noise of this batch.

        Shape:
            Output: (n, latent_dim).
        """
        return self.noise(n, self.draw_key("z"), self.first_index(n))

    def training_uniform(self, purpose: str, n: int) -> Tensor:
        """One number in [0, 1) for each image of this batch.

        Shape:
            Output: (n,).
        """
        options: dict[str, Any] = {"device": self.device, "dtype": self.dtype}
        return rng.uniform((n,), self.draw_key(purpose), self.first_index(n), **options)

    # Sampling --------------------------------------------------------------------------------------------------------

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
        given = (z,) if label is None else (z, label)
        return cast(Tensor, self.averaged("generator")(*given)).clamp(-1, 1)

    def sample_inputs(self, n: int, seed: int, first: int, **conditions: Any) -> dict[str, Any]:
        """Noise and conditions; classes are drawn uniformly where the model has them and none are given."""
        inputs: dict[str, Any] = {"z": self.latent(n, seed=seed, first=first), **conditions}
        if self.num_classes and conditions.get("label") is None:
            inputs["label"] = rng.integers(self.num_classes, (n,), rng.key(seed, "label"), first, device=self.device)
        elif self.num_classes:
            inputs["label"] = self.labels_for(n, conditions["label"], self.num_classes)
        return inputs

    def real_and_fake(self, batch: Batch, *, seed: int, first: int) -> tuple[Tensor, Tensor]:
        """Real images, and generated ones with the same labels where the model is conditional."""
        real: Tensor = batch["image"]
        conditions = {"label": batch["label"]} if self.num_classes else {}
        return real, self.sample(len(real), seed=seed, first=first, **conditions)
