"""AAE: an autoencoder whose codes follow a prior, because a discriminator of codes tells the two apart.

    reconstruction:  encoder and decoder minimize  E ||x - dec(z)||^2,   z ~ q(z | x)
    discriminator:   minimizes  -E log D(z') - E log(1 - D(z)),   z' ~ p(z)
    encoder:         minimizes  -E log D(z)

one after the other on every batch. Makhzani et al., "Adversarial Autoencoders", ICLR 2016 workshop, arXiv 1511.05644.
The defaults are the paper's; `AAE.modern()` trains with Adam. The forms that know classes have their own files:
`zoo.label_prior_aae`, `zoo.supervised_aae`, `zoo.semi_supervised_aae`, `zoo.clustering_aae`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self, Unpack

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from zoo.base import AdversarialModel, Batch, Objective, Terms, TrainingOptions
from zoo.base.latent import LatentVariableModel
from zoo.engine import rng
from zoo.nn.aae import NamedNetworks, Phase, Prior, draw_parts, falls_at
from zoo.nn.autoencoders import MLPDecoder, MLPEncoder, mlp
from zoo.nn.layers import unit
from zoo.nn.losses import discriminator_terms, generator_term
from zoo.nn.schedules import Decay

__all__ = ["AAE", "AAEOptions"]

ETA_DIM = 10
"""Length of the noise eta of the universal posterior."""


class AAEOptions(TrainingOptions, total=False):
    """Widths and optimization of an AAE, whatever its form."""

    hidden_features: Sequence[int]
    """Widths of the encoder's hidden layers; the decoder mirrors them (1000, 1000)."""
    discriminator_features: Sequence[int]
    """Widths of the discriminators' hidden layers (1000, 1000)."""
    optimizer: Literal["sgd", "adam"]
    """"sgd" with the paper's momenta and schedule, or "adam" ("sgd")."""
    reconstruction_learning_rate: float
    """Step size of the reconstruction phase (0.01)."""
    adversarial_learning_rate: float
    """Step size of the discriminator and encoder phases (0.1)."""
    decay: Decay | Mapping[str, Any] | None
    """Schedule of all step sizes; without one "sgd" has the paper's, which differ by phase (none)."""
    weight_std: float | None
    """Draw the weights from N(0, weight_std); None keeps torch's own initialization (0.01)."""


class AAE(AdversarialModel, LatentVariableModel):
    """Adversarial autoencoder: the code of an image follows p(z).

    Args:
        image_size: side of the images.
        image_channels: channels of the images.
        latent_dim: length of the code.
        prior: distribution p(z); "mixture" and "swiss_roll" have two dimensions.
        prior_std: deviation of the Gaussian prior, scale of the others.
        posterior: q(z | x). "deterministic": a code; "gaussian": a mean and a deviation; "universal": a network of the
            image and noise.
        hidden_features: widths of the encoder's hidden layers; the decoder mirrors them.
        discriminator_features: widths of the discriminator's hidden layers.
        optimizer: "sgd" with the paper's momenta and schedule, or "adam".
        reconstruction_learning_rate: step size of the reconstruction phase.
        adversarial_learning_rate: step size of the discriminator and encoder phases.
        decay: schedule of all step sizes; without one "sgd" has the paper's.
        weight_std: draw the weights from N(0, weight_std); None keeps torch's own initialization.
        options: see `AdversarialModel`.

    Raises:
        ValueError: a prior of two dimensions with a code of another length.

    References:
        Makhzani et al. 2015, section 2 and appendix A.
    """

    reconstruction_weight = 1 / 784
    """Weight of the squared error per image, summed over pixels in [0, 1]: the mean over MNIST's pixels."""
    unsupported_options = {"ema_decay": "it averages a generator, and this model has none"}  # noqa: RUF012

    def __init__(
        self,
        image_size: int = 28,
        image_channels: int = 1,
        latent_dim: int = 8,
        *,
        prior: Prior = "gaussian",
        prior_std: float = 1.0,
        posterior: Literal["deterministic", "gaussian", "universal"] = "deterministic",
        hidden_features: Sequence[int] = (1000, 1000),
        discriminator_features: Sequence[int] = (1000, 1000),
        optimizer: Literal["sgd", "adam"] = "sgd",
        reconstruction_learning_rate: float = 0.01,
        adversarial_learning_rate: float = 0.1,
        decay: Decay | Mapping[str, Any] | None = None,
        weight_std: float | None = 0.01,
        **options: Unpack[TrainingOptions],
    ) -> None:
        super().__init__(**options)
        self.save_hyperparameters()
        if prior != "gaussian" and latent_dim != 2:
            raise ValueError(f"the prior {prior!r} has two dimensions: set latent_dim=2, not {latent_dim}")
        self.latent_dim, self.prior_kind, self.prior_std, self.posterior = latent_dim, prior, prior_std, posterior
        self.adam_optimizer, self.decay = optimizer == "adam", Decay.of(decay)
        self.phase_settings = {
            "reconstruction": Phase(("encoder", "decoder"), reconstruction_learning_rate, 0.9, falls_at(50, 1000)),
            "discriminator": Phase(("discriminators",), adversarial_learning_rate, 0.1, falls_at(50, 1000)),
            "encoder": Phase(("encoder",), adversarial_learning_rate, 0.1, falls_at(50, 1000)),
        }
        outputs, inputs, seen = self.sizes()
        shape = (image_channels, image_size, image_size)
        extra = ETA_DIM if posterior == "universal" else 0
        self.encoder = MLPEncoder(shape, hidden_features, outputs, inputs=extra)
        self.decoder = MLPDecoder(inputs, hidden_features[::-1], shape)
        networks = {name: mlp([size, *discriminator_features, 1]) for name, size in seen.items()}
        self.discriminators = NamedNetworks(networks)
        if weight_std is not None:
            for module in self.modules():
                if isinstance(module, nn.Linear):
                    nn.init.normal_(module.weight, 0.0, weight_std)
                    nn.init.zeros_(module.bias)

    @classmethod
    def modern(cls, **options: Any) -> Self:
        """Adam in all phases and torch's own initialization.

        Args:
            options: replace further arguments of the constructor.
        """
        rates = {"reconstruction_learning_rate": 1e-3, "adversarial_learning_rate": 1e-4}
        return cls(**{"optimizer": "adam", "weight_std": None} | rates | options)

    # Codes -----------------------------------------------------------------------------------------------------------

    def sizes(self) -> tuple[int, int, dict[str, int]]:
        """Numbers that the encoder gives, that the decoder takes, and that each discriminator takes, by its name."""
        return self.latent_dim * (2 if self.posterior == "gaussian" else 1), self.latent_dim, {"style": self.latent_dim}

    def prior(self, n: int, key: rng.Key, first: int = 0, part: Tensor | None = None) -> Tensor:
        """Codes from the prior; row i depends on (key, first + i) only.

        Args:
            n: number of codes.
            key: key of the draws.
            first: global index of the first code.
            part: part of a prior of parts for each code, -1 for a random one; None draws all at random.

        Shape:
            part: (n,); output: (n, latent_dim).
        """
        if self.prior_kind == "gaussian":
            return super().prior(n, key, first)
        options: dict[str, Any] = {"device": self.device, "dtype": self.dtype}
        return self.prior_std * draw_parts(self.prior_kind, n, key, first, part, **options)

    def code(self, x: Tensor, purpose: str | None = None) -> Tensor:
        """z ~ q(z | x) of images in [0, 1]; without a purpose, outside training, all noise is 0.

        Shape:
            x: (N, C, H, W); output: (N, latent_dim).
        """
        if self.posterior == "universal":
            shape = x.size(0), ETA_DIM
            eta = self.training_normal(shape, f"{purpose}/eta") if purpose else x.new_zeros(shape)
            x = torch.cat([x.flatten(1), eta], 1)
        z: Tensor = self.encoder(x)
        if self.posterior == "gaussian":
            z, log_var = z.chunk(2, 1)
            if purpose is not None:
                z = z + (0.5 * log_var).exp() * self.training_normal(z.shape, f"{purpose}/eps")
        return z

    def mean_code(self, x: Tensor) -> Tensor:
        """Codes of images in [0, 1], without noise."""
        return self.code(x)

    # Training --------------------------------------------------------------------------------------------------------

    def codes(self, batch: Batch, purpose: str) -> dict[str, Tensor]:
        """Codes of the batch's images, by the name of their discriminator."""
        return {"style": self.code(unit(batch["image"]), purpose)}

    def priors(self, batch: Batch) -> dict[str, Tensor]:
        """As many draws from the priors of these codes."""
        n = len(batch["image"])
        return {"style": self.prior(n, self.draw_key("prior"), self.first_index(n))}

    def decoder_input(self, codes: dict[str, Tensor], batch: Batch) -> Tensor:
        """Input of the decoder."""
        return codes["style"]

    def discriminator_inputs(self, codes: dict[str, Tensor], batch: Batch, purpose: str) -> dict[str, Tensor]:
        """Inputs of the discriminators: codes, or draws from the priors."""
        return codes

    def objectives(self) -> dict[str, Objective]:
        """The three phases."""
        return {
            "reconstruction": self.reconstruction_loss,
            "discriminator": self.discriminator_loss,
            "encoder": self.encoder_loss,
        }

    def reconstruction_loss(self, batch: Batch, shared: None) -> Terms:
        """E ||x - dec(z)||^2, times the weight."""
        z = self.decoder_input(self.codes(batch, "reconstruction"), batch)
        error = (self.decoder(z).sigmoid() - unit(batch["image"])).square().flatten(1).sum(1).mean()
        return {"error": self.reconstruction_weight * error}

    def discriminator_loss(self, batch: Batch, shared: None) -> Terms:
        """-E log D(z') - E log(1 - D(z)) for each discriminator."""
        with torch.no_grad():
            codes = self.discriminator_inputs(self.codes(batch, "discriminator"), batch, "discriminator/code")
        priors = self.discriminator_inputs(self.priors(batch), batch, "discriminator/prior")
        terms: Terms = {}
        for name, discriminator in self.discriminators.items():
            on_prior, on_code = discriminator(torch.cat([priors[name], codes[name]])).chunk(2)
            found = discriminator_terms("non_saturating", on_prior, on_code)
            terms |= {f"{name}_prior": found["real"], f"{name}_code": found["fake"]}
        return terms

    def encoder_loss(self, batch: Batch, shared: None) -> Terms:
        """-E log D(z) for each discriminator."""
        codes = self.discriminator_inputs(self.codes(batch, "encoder"), batch, "encoder/code")
        return {
            name: generator_term("non_saturating", discriminator(codes[name]))
            for name, discriminator in self.discriminators.items()
        }

    def optimizer_overrides(self, phase: str, step: int) -> dict[str, Any]:
        """The step size of a phase under its schedule."""
        setting = self.phase_settings[phase]
        decay = self.decay or (None if self.adam_optimizer else setting.decay)
        return {"lr": self.decayed(setting.learning_rate, decay, step)}

    def configure_optimizers(self) -> list[Optimizer]:
        """An optimizer for each phase: SGD with a momentum of its own, as in the paper, or Adam."""
        optimizers: list[Optimizer] = []
        for setting in map(self.phase_settings.__getitem__, self.phases):
            parameters = [p for name in setting.networks for p in self.get_submodule(name).parameters()]
            if self.adam_optimizer:
                optimizers.append(self.adam(parameters, setting.learning_rate, betas=(0.5, 0.999)))
            else:
                optimizers.append(self.momentum_descent(parameters, setting.learning_rate, setting.momentum))
        return optimizers
