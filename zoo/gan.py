"""GAN: a generator and a discriminator of fully connected layers, and the game between them.

    min_G max_D V(D, G) = E_x log D(x) + E_z log(1 - D(G(z)))

Goodfellow et al., "Generative Adversarial Nets", NIPS 2014, arXiv 1406.2661. The setting is that of the authors' code
for MNIST: both networks take one gradient step at a time from the same batch and the same fakes, the discriminator has
maxout units and dropout, and G minimizes -E log D(G(z)).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, Unpack, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from zoo.base import Batch, Terms, inference
from zoo.base.noise import NoiseOptions, NoiseToImageGAN
from zoo.engine import rng
from zoo.nn.autoencoders import mlp
from zoo.nn.layers import unit
from zoo.nn.losses import discriminator_terms, generator_term
from zoo.nn.schedules import Decay

__all__ = ["GAN", "Discriminator", "Generator", "Maxout"]

# The authors' setting.
DROPOUT = (0.2, 0.5)
"""Share of the discriminator's inputs, and of its hidden units, that is left out in training."""
INIT_RANGE = 0.05
"""Weights of the generator start in U(-0.05, 0.05), those of the discriminator in a tenth of this range."""
DECAY = Decay("repeated", divisor=1.000004)
"""The step size is divided by 1.000004 after every step."""
MOMENTUM, MOMENTUM_EPOCHS = (0.5, 0.7), 250
"""Momentum of the first epoch and from the 250th on, linear in between."""


class Generator(nn.Module):
    """Noise to image: two hidden layers of ReLUs.

    Shape:
        z: (N, latent_dim); output: (N, C, H, W) in (0, 1).
    """

    def __init__(self, shape: tuple[int, int, int], latent_dim: int, hidden: int) -> None:
        super().__init__()
        self.shape = shape
        self.net = mlp([latent_dim, hidden, hidden, math.prod(shape)])

    def forward(self, z: Tensor) -> Tensor:
        """Generate images in (0, 1)."""
        return cast(Tensor, self.net(z)).sigmoid().view(-1, *self.shape)


class Maxout(nn.Linear):
    """The largest of several linear maps, per unit.

    Shape:
        input: (N, inputs); output: (N, units).

    References:
        Goodfellow et al. 2013, "Maxout networks".
    """

    def __init__(self, inputs: int, units: int, pieces: int) -> None:
        super().__init__(inputs, units * pieces)
        self.pieces = pieces

    def forward(self, input: Tensor) -> Tensor:
        """Maps, then the maximum."""
        maps: Tensor = super().forward(input).unflatten(1, (-1, self.pieces))
        return maps.amax(2)


class Discriminator(nn.Module):
    """Image to logit: two layers of maxout units, and dropout in front of each layer.

    Shape:
        x: (N, C, H, W) in [0, 1]; masks: for each of the three layers (N, its inputs) bool; output: (N,) logits.
    """

    def __init__(self, pixels: int, units: int, pieces: int) -> None:
        super().__init__()
        self.net = nn.ModuleList([Maxout(pixels, units, pieces), Maxout(units, units, pieces), nn.Linear(units, 1)])

    def forward(self, x: Tensor, masks: Sequence[Tensor] = ()) -> Tensor:
        """Logits; without masks of the inputs that dropout keeps, all are kept."""
        x = x.flatten(1)
        for i, layer in enumerate(self.net):
            if masks:
                x = x * masks[i] * (1 / (1 - DROPOUT[min(i, 1)]))
            x = layer(x)
        return x.flatten()


class GAN(NoiseToImageGAN):
    """The first generative adversarial network.

    Noise is uniform with variance 1. Where the DataModule has `reference_batches`, the generator's output starts at the
    mean training image.

    Args:
        image_size: side of the images.
        image_channels: channels of the images.
        latent_dim: length of the noise vector.
        hidden_features: width of the generator's two hidden layers.
        discriminator_features: width of the discriminator's two hidden layers.
        maxout_pieces: linear maps per maxout unit.
        loss: what G minimizes: "non_saturating" is -E log D(G(z)), "minimax" is E log(1 - D(G(z))).
        learning_rate: step size of gradient descent, for both networks.
        decay: schedule of the step size.
        options: see `NoiseOptions`.

    References:
        Goodfellow et al. 2014, section 3, and the authors' code.
    """

    noise_kind = "uniform"
    noise_limit = math.sqrt(3)
    inference_networks: tuple[str, ...] = ("generator", "discriminator")
    unsupported_options = {"compile": "dropout draws its masks anew, by key, in each step"}  # noqa: RUF012

    def __init__(
        self,
        image_size: int = 28,
        image_channels: int = 1,
        latent_dim: int = 100,
        *,
        hidden_features: int = 1200,
        discriminator_features: int = 240,
        maxout_pieces: int = 5,
        loss: Literal["non_saturating", "minimax"] = "non_saturating",
        learning_rate: float = 0.1,
        decay: Decay | None = DECAY,
        **options: Unpack[NoiseOptions],
    ) -> None:
        super().__init__(update="simultaneous", **options)
        self.save_hyperparameters()
        self.latent_dim = latent_dim
        self.decay = Decay.of(decay)
        self.generator = Generator(self.image_shape, latent_dim, hidden_features)
        self.discriminator = Discriminator(math.prod(self.image_shape), discriminator_features, maxout_pieces)
        for network, limit in ((self.generator, INIT_RANGE), (self.discriminator, INIT_RANGE / 10)):
            for p in network.parameters():
                nn.init.uniform_(p, -limit, limit) if p.dim() > 1 else nn.init.zeros_(p)
        self.average_networks()

    def setup(self, stage: str) -> None:
        """In addition, set the output bias of a generator that is still untrained to the logits of the mean image."""
        super().setup(stage)
        data: Any = getattr(self.trainer, "datamodule", None)
        bias = cast(Any, self.generator).net[-1].bias
        if stage == "fit" and hasattr(data, "reference_batches") and not bias.any():
            total, count = torch.zeros(self.image_shape, dtype=torch.float64), 0
            for _, batch in data.reference_batches(min(10_000, data.num_train), 1000, split="train"):
                total += batch["image"].double().sum(0)
                count += len(batch["image"])
            logits = ((total / count + 1) / 2).clamp(1e-3, 1 - 1e-3).logit().flatten()
            for network in {self.generator, self.averaged("generator")}:
                cast(Any, network).net[-1].bias.data.copy_(logits)

    @inference
    def generate(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """Images from given noise: means, without pixel noise.

        Shape:
            z: (N, latent_dim); output: (N, C, H, W) in [-1, 1].
        """
        return 2 * super().generate(z) - 1

    @inference
    def score(self, x: Tensor) -> Tensor:
        """Anomaly score -log D(x): higher means less realistic.

        Shape:
            x: (N, C, H, W) in [-1, 1]; output: (N,).
        """
        return F.softplus(-cast(Tensor, self.discriminator(unit(x))))

    # Training --------------------------------------------------------------------------------------------------------

    def forward_shared(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits of this batch's images and fakes, in one pass; each of the two sets has a dropout of its own."""
        real = unit(batch["image"])
        fake = self.generator(self.training_noise(len(real)))
        both = torch.cat([self.augmented(fake, "fake"), self.augmented(real, "real")])
        widths = [cast(int, layer.in_features) for layer in self.discriminator.net]
        masks = [self._dropout(i, width, len(real)) for i, width in enumerate(widths)] if self.training else ()
        fake_logits, real_logits = self.discriminator(both, masks).chunk(2)
        return real_logits, fake_logits

    def discriminator_loss(self, batch: Batch, shared: tuple[Tensor, Tensor]) -> Terms:
        """-1/2 E log D(x) - 1/2 E log(1 - D(G(z))); the halves are those of the authors' code."""
        real_logits, fake_logits = shared
        terms = discriminator_terms(self.hparams["loss"], real_logits, fake_logits)
        return {name: 0.5 * term for name, term in terms.items()}

    def generator_loss(self, batch: Batch, shared: tuple[Tensor, Tensor]) -> Terms:
        """-E log D(G(z)), or E log(1 - D(G(z))); the discriminator's dropout is on, as in the authors' code."""
        _, fake_logits = shared
        return {"adversarial": generator_term(self.hparams["loss"], fake_logits)}

    def _dropout(self, layer: int, width: int, n: int) -> Tensor:
        """Inputs of a layer that dropout keeps, for n fakes and n images.

        Shape:
            Output: (2n, width) bool.
        """
        keep, first = 1 - DROPOUT[min(layer, 1)], self.first_index(n)
        keys = [self.draw_key(f"dropout/{name}/{layer}") for name in ("fake", "real")]
        return torch.cat([rng.keep_mask((n, width), keep, key, first, device=self.device) for key in keys])

    def optimizer_overrides(self, phase: str, step: int) -> dict[str, Any]:
        """Step size and momentum of the authors' schedule."""
        first, last = MOMENTUM
        share = min(1.0, self.trainer.current_epoch / (MOMENTUM_EPOCHS - 1))
        rate = max(1e-6, self.decayed(self.hparams["learning_rate"], self.decay, step))
        return {"lr": rate, "momentum": first + (last - first) * share}

    def configure_optimizers(self) -> list[Optimizer]:
        """Gradient descent with momentum for each network."""
        return [
            self.momentum_descent(network.parameters(), self.hparams["learning_rate"], MOMENTUM[0])
            for network in (self.discriminator, self.generator)
        ]
