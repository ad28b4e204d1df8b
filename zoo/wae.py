"""WAE: an autoencoder whose codes, taken over all images, are kept close to a prior.

    minimise  E_x E_q(z|x) c(x, G(z)) + lambda D_Z(Q_Z, P_Z),   c = squared error

The penalty D_Z is the maximum mean discrepancy (WAE-MMD), or is judged by a discriminator of codes (WAE-GAN).

Tolstikhin et al., "Wasserstein Auto-Encoders", ICLR 2018, arXiv 1711.01558. The defaults are those of the authors' code
for MNIST; `WAE.celeba()` is the paper's setting for CelebA.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from zoo.base import AdversarialModel, Batch, Objective, Terms
from zoo.base.latent import LatentVariableModel
from zoo.engine import rng
from zoo.engine.cross_rank import all_gather_rows
from zoo.nn.autoencoders import MLPDecoder, MLPEncoder, TolstikhinDecoder, TolstikhinEncoder, mlp
from zoo.nn.losses import discriminator_terms, generator_term, inverse_multiquadratic, mmd

__all__ = ["WAE"]


class WAE(AdversarialModel, LatentVariableModel):
    """Wasserstein autoencoder, by default with a deterministic encoder.

    The discrepancy is that of the batch of all ranks. In the first `pretraining_steps` steps the encoder alone learns
    to match the mean and the covariance of the prior.

    Args:
        image_size: side of the images.
        image_channels: channels of the images.
        latent_dim: length of the code.
        penalty: "mmd" or "gan".
        penalty_weight: lambda.
        reconstruction_weight: weight of the squared error per image, which is summed over pixels in [0, 1].
        prior_std: deviation of the Gaussian prior.
        kernel: of "mmd": "imq", inverse multiquadratics of seven scales; "rbf", a Gaussian of the median distance.
        posterior: "deterministic"; or "gaussian", whose mean and log variance the encoder gives.
        networks: "conv", or "mlp".
        base_channels: channels of the first feature map ("conv").
        hidden_features: widths of the encoder's hidden layers ("mlp"); the decoder mirrors them.
        discriminator_features: widths of the hidden layers of the discriminator ("gan").
        density_trick: add the log density of the prior to the discriminator's logits.
        input_noise: deviation of Gaussian noise added to the encoder's input in training.
        pretraining_steps: see above.
        learning_rate: Adam's step size for encoder and decoder.
        discriminator_learning_rate: Adam's step size for the discriminator.
        schedule: of the step sizes. "steps": divided by 2, 10 and 100 from epochs 30, 50 and 100 on; "smooth": falls
            exponentially to a hundredth over the run; "constant".
        betas: Adam's decay rates.
        weight_std: draw weights from N(0, weight_std), biases 0; None keeps torch's own initialisation.

    Raises:
        ValueError: an unknown penalty or posterior, or an unsupported size.

    References:
        Tolstikhin et al. 2017, algorithms 1 and 2, appendix D, and the authors' code.
    """

    def __init__(
        self,
        image_size: int = 28,
        image_channels: int = 1,
        latent_dim: int = 8,
        *,
        penalty: Literal["mmd", "gan"] = "mmd",
        penalty_weight: float = 10.0,
        reconstruction_weight: float = 0.05,
        prior_std: float = 1.0,
        kernel: Literal["imq", "rbf"] = "imq",
        posterior: Literal["deterministic", "gaussian"] = "deterministic",
        networks: Literal["conv", "mlp"] = "conv",
        base_channels: int = 128,
        hidden_features: Sequence[int] = (512, 512, 512),
        discriminator_features: Sequence[int] = (512, 512, 512, 512),
        density_trick: bool = False,
        input_noise: float = 0.0,
        pretraining_steps: int = 200,
        learning_rate: float = 1e-3,
        discriminator_learning_rate: float = 5e-4,
        schedule: Literal["steps", "smooth", "constant"] = "steps",
        betas: tuple[float, float] = (0.5, 0.999),
        weight_std: float | None = 0.01,
    ) -> None:
        if penalty not in ("mmd", "gan"):
            raise ValueError(f"unknown penalty {penalty!r}: take 'mmd' or 'gan'")
        if posterior not in ("deterministic", "gaussian"):
            raise ValueError(f"unknown posterior {posterior!r}: take 'deterministic' or 'gaussian'")
        self.has_discriminator = penalty != "mmd"
        super().__init__()
        self.save_hyperparameters()
        self.latent_dim = latent_dim
        self.prior_std = prior_std
        shape = self.image_shape
        outputs = latent_dim if posterior == "deterministic" else 2 * latent_dim
        if networks == "conv":
            self.encoder: nn.Module = TolstikhinEncoder(shape, base_channels, outputs)
            self.decoder: nn.Module = TolstikhinDecoder(latent_dim, base_channels, shape)
        else:
            self.encoder = MLPEncoder(shape, hidden_features, outputs)
            self.decoder = MLPDecoder(latent_dim, hidden_features[::-1], shape)
        if penalty == "gan":
            self.discriminator = mlp([latent_dim, *discriminator_features, 1])
        if weight_std is not None:
            for module in self.modules():
                if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
                    nn.init.normal_(module.weight, 0.0, weight_std)
                    if module.bias is not None:
                        nn.init.zeros_(module.bias)

    @classmethod
    def celeba(cls, penalty: Literal["mmd", "gan"] = "mmd", **options: Any) -> WAE:
        """The paper's setting for CelebA at 64 pixels; use a batch size of 100.

        Args:
            penalty: as for the constructor.
            options: replace further arguments of the constructor.
        """
        # NOTE(paper): images in [0, 1] rather than [-1, 1], so the squared error weighs four times as much here.
        setting: dict[str, Any] = {
            "image_size": 64,
            "image_channels": 3,
            "latent_dim": 64,
            "penalty_weight": 100.0 if penalty == "mmd" else 1.0,
            "reconstruction_weight": 0.2,
            "prior_std": math.sqrt(2),
            "discriminator_features": (1024, 1024, 1024, 1024),
            "density_trick": True,
            "input_noise": 0.01,
            "learning_rate": 1e-3 if penalty == "mmd" else 3e-4,
            "discriminator_learning_rate": 1e-3,
            "schedule": "smooth",
        }
        return cls(penalty=penalty, **setting | options)

    # Training --------------------------------------------------------------------------------------------------------

    def objectives(self) -> dict[str, Objective]:
        """The autoencoder's objective, and the discriminator's where there is one."""
        objectives: dict[str, Objective] = {"autoencoder": self.autoencoder_loss}
        return objectives | ({"discriminator": self.discriminator_loss} if self.has_discriminator else {})

    def autoencoder_loss(self, batch: Batch, shared: None) -> Terms:
        """Squared error and the penalty of the codes; the distance of their moments in the first steps.

        Shape:
            Output: scalars.
        """
        hparams = self.hparams
        x = (batch["image"] + 1) / 2
        n = len(x)
        z = self._noisy_code(x, "encoder")
        prior = self.prior(n, self.draw_key("prior"), self.first_index(n))
        if self.batch_index < hparams["pretraining_steps"]:
            return {"moments": moment_distance(all_gather_rows(z), all_gather_rows(prior))}
        error = (self.decoder(z).sigmoid() - x).square().flatten(1).sum(1).mean()
        if hparams["penalty"] == "mmd":
            penalty = self.discrepancy(all_gather_rows(z), all_gather_rows(prior))
        else:
            penalty = generator_term("non_saturating", self._judge(z))
        return {
            "reconstruction": hparams["reconstruction_weight"] * error,
            "penalty": hparams["penalty_weight"] * penalty,
        }

    def discriminator_loss(self, batch: Batch, shared: None) -> Terms:
        """-E log D(z) - E log(1 - D(enc(x))), weighted like the penalty.

        Shape:
            Output: scalars.
        """
        x = (batch["image"] + 1) / 2
        n = len(x)
        prior = self.prior(n, self.draw_key("prior/discriminator"), self.first_index(n))
        with torch.no_grad():
            z = self._noisy_code(x, "discriminator")
        terms = discriminator_terms("non_saturating", *self._judge(torch.cat([prior, z])).chunk(2))
        return {
            name: self.hparams["penalty_weight"] * terms[kind] for name, kind in (("prior", "real"), ("code", "fake"))
        }

    def discrepancy(self, z: Tensor, prior: Tensor) -> Tensor:
        """Squared maximum mean discrepancy between codes and the prior.

        Shape:
            z, prior: (N, latent_dim); output: scalar.
        """
        scale = 2 * self.latent_dim * self.prior_std**2
        if self.hparams["kernel"] == "imq":
            return mmd(z, prior, inverse_multiquadratic(scale))
        between, within = (torch.cdist(a, z).square() for a in (prior, z))
        upper = torch.triu(torch.ones_like(within, dtype=torch.bool), 1)
        variance = between.median() + within[upper].median()
        return mmd(z, prior, lambda squared: torch.exp(-squared / (2 * variance)))

    def should_step(self, phase: str, step: int) -> bool:
        """The discriminator rests while the encoder is pretrained."""
        return phase == "autoencoder" or self.batch_index >= self.hparams["pretraining_steps"]

    def _noisy_code(self, x: Tensor, purpose: str) -> Tensor:
        if std := self.hparams["input_noise"]:
            key, first = self.draw_key(f"{purpose}/input"), self.first_index(len(x))
            x = x + std * rng.normal(x.shape, key, first, device=x.device, dtype=x.dtype)
        z = cast(Tensor, self.encoder(x))
        z = z.float() if z.dtype in (torch.half, torch.bfloat16) else z  # distances are small differences
        if self.hparams["posterior"] == "gaussian":
            z, log_variance = z.chunk(2, 1)
            key, first = self.draw_key(f"{purpose}/code"), self.first_index(len(x))
            noise = rng.normal(z.shape, key, first, device=z.device, dtype=z.dtype)
            # Bounded against overflow.
            z = z + (0.5 * log_variance.clamp(-50, 50)).exp() * noise
        return z

    def mean_code(self, x: Tensor) -> Tensor:
        """Codes of images in [0, 1]: of "gaussian" the means.

        Shape:
            x: (N, C, H, W); output: (N, latent_dim).
        """
        return super().mean_code(x)[:, : self.latent_dim]

    def _judge(self, z: Tensor) -> Tensor:
        logits = cast(Tensor, self.discriminator(z)).flatten()
        if self.hparams["density_trick"]:
            variance = self.prior_std**2
            constant = 0.5 * self.latent_dim * math.log(2 * math.pi * variance)
            logits = logits - z.square().sum(1) / (2 * variance) - constant
        return logits

    def optimizer_overrides(self, phase: str, step: int) -> dict[str, Any]:
        """The step size of a phase under the schedule."""
        rate = self._learning_rate(phase)
        epoch, schedule = self.trainer.current_epoch, self.hparams["schedule"]
        if schedule == "steps":
            rate /= 100 if epoch >= 100 else 10 if epoch >= 50 else 2 if epoch >= 30 else 1
        elif schedule == "smooth":
            total = self.trainer.estimated_stepping_batches
            rate *= 0.01 ** (step / total) if math.isfinite(total) else 1.0
        return {"lr": rate}

    def _learning_rate(self, phase: str) -> float:
        return float(self.hparams["learning_rate" if phase == "autoencoder" else "discriminator_learning_rate"])

    def configure_optimizers(self) -> list[Optimizer]:
        """Adam for encoder and decoder, and for the discriminator if there is one."""
        parameters = {"autoencoder": [*self.encoder.parameters(), *self.decoder.parameters()]}
        if "discriminator" in self.phases:
            parameters["discriminator"] = [*self.discriminator.parameters()]
        betas = tuple(self.hparams["betas"])
        return [self.adam(parameters[phase], self._learning_rate(phase), betas=betas) for phase in self.phases]


def moment_distance(z: Tensor, prior: Tensor) -> Tensor:
    """Mean squared distance between the means, and between the covariances, of two sets of codes.

    Shape:
        z, prior: (N, D); output: scalar.
    """
    return F.mse_loss(z.mean(0), prior.mean(0)) + F.mse_loss(z.T.cov(), prior.T.cov())
