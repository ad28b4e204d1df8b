"""WAE: an autoencoder whose codes, taken over all images, are kept close to a prior.

    minimize  E_x c(x, G(enc(x))) + lambda MMD(Q_Z, P_Z),   c = squared error,   Q_Z = distribution of the codes enc(x)

MMD is the maximum mean discrepancy. `zoo.wae_gan` has the form whose penalty comes from a discriminator of codes,
`zoo.gaussian_wae` the form with a random encoder.

Tolstikhin et al., "Wasserstein Auto-Encoders", ICLR 2018, arXiv 1711.01558. The defaults are those of the authors' code
for MNIST; the recipe `wae-celeba64-paper` has the paper's setting for CelebA.
"""

from __future__ import annotations

from typing import Any, Unpack, cast

from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from zoo.base import AdversarialModel, Batch, Objective, Terms, TrainingOptions
from zoo.base.latent import LatentVariableModel
from zoo.engine import rng
from zoo.engine.cross_rank import all_gather_rows
from zoo.nn.autoencoders import TolstikhinDecoder, TolstikhinEncoder
from zoo.nn.layers import unit
from zoo.nn.losses import at_least_float32, inverse_multiquadratic, mmd
from zoo.nn.schedules import Decay

__all__ = ["DECAY", "WAE", "initialize", "moment_distance"]

BETAS = (0.5, 0.999)
"""Adam's decay rates."""
DECAY = Decay("milestones", unit="epochs", milestones={30: 0.5, 50: 0.1, 100: 0.01})
"""The step sizes of the authors' code for MNIST."""


def initialize(module: nn.Module) -> None:
    """Weights from N(0, 0.01), biases 0."""
    if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.01)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def moment_distance(z: Tensor, prior: Tensor) -> Tensor:
    """Mean squared distance between the means, and between the covariances, of two sets of codes.

    Shape:
        z, prior: (N, D); output: scalar.
    """
    return F.mse_loss(z.mean(0), prior.mean(0)) + F.mse_loss(z.T.cov(), prior.T.cov())


class WAE(AdversarialModel, LatentVariableModel):
    """Wasserstein autoencoder with a deterministic encoder and the maximum mean discrepancy of codes and prior.

    The discrepancy is that of the batch of all ranks. In the first `pretraining_steps` steps the encoder alone learns
    to match the mean and the covariance of the prior.

    Args:
        image_size: side of the images.
        image_channels: channels of the images.
        latent_dim: length of the code.
        base_channels: channels of the first feature map.
        penalty_weight: lambda.
        reconstruction_weight: weight of the squared error per image, which is summed over pixels in [0, 1].
        prior_std: deviation of the Gaussian prior.
        input_noise_std: deviation of Gaussian noise added to the encoder's input in training.
        pretraining_steps: see above.
        learning_rate: Adam's step size for encoder and decoder.
        decay: schedule of the step sizes.
        options: see `TrainingOptions`.

    Raises:
        ValueError: an unsupported size.

    References:
        Tolstikhin et al. 2018, algorithm 2, appendix D, and the authors' code.
    """

    # NOTE(paper): images lie in [0, 1], in the authors' code those of CelebA in [-1, 1], where the squared error weighs
    # four times as much and noise half as much. The noise is not truncated. The code pretrains on batches of its own
    # (256 or 1,000 images), with an optimizer of its own, until the loss is below 0.1; here the first steps of the run
    # do it. Its other kernel, Gaussian with the median distance as its width, is not offered.

    averaged_networks = ("encoder", "decoder")
    averaging_phase = "autoencoder"
    numbers_per_dimension = 1
    """What the encoder gives for each dimension of the code."""

    def __init__(
        self,
        image_size: int = 28,
        image_channels: int = 1,
        latent_dim: int = 8,
        *,
        base_channels: int = 128,
        penalty_weight: float = 10.0,
        reconstruction_weight: float = 0.05,
        prior_std: float = 1.0,
        input_noise_std: float = 0.01,
        pretraining_steps: int = 200,
        learning_rate: float = 1e-3,
        decay: Decay | None = DECAY,
        **options: Unpack[TrainingOptions],
    ) -> None:
        super().__init__(**options)
        self.save_hyperparameters()
        self.latent_dim = latent_dim
        self.prior_std = prior_std
        self.decay = Decay.of(decay)
        self.rates = {"autoencoder": learning_rate}
        shape = self.image_shape
        self.encoder = TolstikhinEncoder(shape, base_channels, self.numbers_per_dimension * latent_dim)
        self.decoder = TolstikhinDecoder(latent_dim, base_channels, shape)
        for network in (self.encoder, self.decoder):
            network.apply(initialize)
        self.average_networks()

    # Training --------------------------------------------------------------------------------------------------------

    def objectives(self) -> dict[str, Objective]:
        """One objective, that of the autoencoder."""
        return {"autoencoder": self.autoencoder_loss}

    def autoencoder_loss(self, batch: Batch, shared: None) -> Terms:
        """Squared error and the penalty of the codes; the distance of their moments in the first steps."""
        x = unit(batch["image"])
        z = self.code(x, "encoder")
        prior = self.prior(len(x), self.draw_key("prior"), self.first_index(len(x)))
        if self.pretraining:
            return {"moments": moment_distance(all_gather_rows(z), all_gather_rows(prior))}
        error = (self.decoder(z).sigmoid() - x).square().flatten(1).sum(1).mean()
        return {
            "reconstruction": self.hparams["reconstruction_weight"] * error,
            "penalty": self.hparams["penalty_weight"] * self.penalty(z, prior),
        }

    def step_pattern(self) -> bool:
        """Whether the encoder alone learns."""
        return self.pretraining

    @property
    def pretraining(self) -> bool:
        """Whether the encoder alone learns."""
        return self.batch_index // self.accumulate < int(self.hparams["pretraining_steps"])

    def code(self, x: Tensor, purpose: str) -> Tensor:
        """Codes of images in [0, 1] as training sees them.

        Args:
            x: images.
            purpose: for whom they are; each has noise of its own.

        Shape:
            x: (N, C, H, W); output: (N, latent_dim).
        """
        if std := self.hparams["input_noise_std"]:
            key, first = self.draw_key(f"{purpose}/input"), self.first_index(len(x))
            x = x + std * rng.normal(x.shape, key, first, device=x.device, dtype=x.dtype)
        return at_least_float32(cast(Tensor, self.encoder(x)))  # distances are small differences

    def penalty(self, z: Tensor, prior: Tensor) -> Tensor:
        """Squared maximum mean discrepancy between codes and the prior.

        Shape:
            z, prior: (N, latent_dim); output: scalar.
        """
        kernel = inverse_multiquadratic(2 * self.latent_dim * self.prior_std**2)
        return mmd(all_gather_rows(z), all_gather_rows(prior), kernel)

    def optimizer_overrides(self, phase: str, step: int) -> dict[str, Any]:
        """The step size of a phase under the schedule."""
        return {"lr": self.decayed(self.rates[phase], self.decay, step)}

    def configure_optimizers(self) -> list[Optimizer]:
        """Adam for encoder and decoder."""
        both = [*self.encoder.parameters(), *self.decoder.parameters()]
        return [self.adam(both, self.rates["autoencoder"], betas=BETAS)]
