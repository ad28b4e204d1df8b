"""VAE: an autoencoder whose code is a distribution, trained on a lower bound of the likelihood.

    minimize  E_q(z|x) [-log p(x|z)] + KL(q(z|x) || p(z)),   q(z|x) = N(mu(x), diag sigma(x)^2),   p(z) = N(0, I)

Kingma and Welling, "Auto-Encoding Variational Bayes", ICLR 2014, arXiv 1312.6114. The defaults are those of the widely
used PyTorch example (784-400-20, ReLU, Adam); the recipe `vae-mnist28-paper` has the paper's setting for MNIST (500
tanh units, Adagrad). Pixels are Bernoulli variables, and grey values count as probabilities.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypedDict

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from zoo.base import Batch, SingleObjectiveModel, Terms, inference
from zoo.base.latent import LatentVariableModel
from zoo.engine import rng
from zoo.nn.autoencoders import (
    Activation,
    BurgessDecoder,
    BurgessEncoder,
    HigginsDecoder,
    HigginsEncoder,
    MLPDecoder,
    MLPEncoder,
)
from zoo.nn.layers import unit
from zoo.nn.losses import at_least_float32, bernoulli_nats
from zoo.nn.schedules import Decay

__all__ = ["VAE", "Networks", "VAEOptions", "kl_to_standard_normal"]

Networks = Literal["mlp", "conv", "burgess"]


class VAEOptions(TypedDict, total=False):
    """What variants of the VAE take unchanged."""

    hidden_features: Sequence[int]
    """Widths of the encoder's hidden layers ("mlp"); the decoder mirrors them (400)."""
    activation: Activation
    """Activation between linear layers ("mlp"): "relu" or "tanh" (relu)."""
    optimizer: Literal["adam", "adagrad"]
    """Optimizer (adam)."""
    decay: Decay | None
    """Schedule of the step size (none)."""
    weight_std: float | None
    """Draw weights from N(0, weight_std), biases 0; none keeps torch's own initialization (none)."""
    capture: bool
    """Run each step as one CUDA graph: the host launches nothing else; a CPU runs the same step eagerly (false)."""


def kl_to_standard_normal(mean: Tensor, log_var: Tensor) -> Tensor:
    """KL(N(mean, exp(log_var)) || N(0, 1)) of each dimension: (mean^2 + exp(log_var) - log_var - 1) / 2.

    Shape:
        mean, log_var, output: the same; output in float32 at least.

    References:
        Kingma and Welling 2014, appendix B.
    """
    # Of a dimension that carries little this is a difference of nearly equal numbers.
    mean, log_var = at_least_float32(mean), at_least_float32(log_var)
    return 0.5 * (mean.square() + log_var.exp() - log_var - 1)


class VAE(SingleObjectiveModel, LatentVariableModel):
    """Variational autoencoder.

    Densities refer to the image in [0, 1]; the reconstruction term is summed over pixels, the KL over dimensions, and
    both are means over the batch.

    Args:
        image_size: side of the images.
        image_channels: channels of the images.
        latent_dim: length of the code.
        networks: "mlp"; "conv" for the convolutional networks of the beta-VAE paper (28 pixels or a power of two);
            "burgess" for those of Burgess et al. 2018 (32 or 64 pixels).
        hidden_features: widths of the encoder's hidden layers ("mlp"); the decoder mirrors them.
        activation: between linear layers ("mlp").
        learning_rate: step size.
        optimizer: "adam" or "adagrad".
        decay: schedule of the step size.
        weight_std: draw weights from N(0, weight_std), biases 0; None keeps torch's own initialization.
        capture: run each step as one CUDA graph (see `zoo.engine.capture`).

    Raises:
        ValueError: an unsupported size.

    References:
        Kingma and Welling 2014, equation 10, appendices B and C.1.
    """

    likelihood = "bernoulli"

    # NOTE(paper): without the weak weight decay of the paper's prior over weights.

    def __init__(
        self,
        image_size: int = 28,
        image_channels: int = 1,
        latent_dim: int = 20,
        *,
        networks: Networks = "mlp",
        hidden_features: Sequence[int] = (400,),
        activation: Activation = "relu",
        learning_rate: float = 1e-3,
        optimizer: Literal["adam", "adagrad"] = "adam",
        decay: Decay | None = None,
        weight_std: float | None = None,
        capture: bool = False,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.latent_dim, self.capture = latent_dim, capture
        self.learning_rate, self.optimizer, self.decay = learning_rate, optimizer, Decay.of(decay)
        if networks == "mlp":
            self.encoder = MLPEncoder(self.image_shape, hidden_features, 2 * latent_dim, activation)
            self.decoder = MLPDecoder(latent_dim, hidden_features[::-1], self.image_shape, activation)
        else:
            convolutional = {"conv": (HigginsEncoder, HigginsDecoder), "burgess": (BurgessEncoder, BurgessDecoder)}
            encoder, decoder = convolutional[networks]
            self.encoder = encoder(image_size, image_channels, 2 * latent_dim)
            self.decoder = decoder(image_size, image_channels, latent_dim)
        if weight_std is not None:
            for name, parameter in self.named_parameters():
                nn.init.normal_(parameter, 0.0, weight_std if name.endswith("weight") else 0.0)

    # The posterior and the likelihood --------------------------------------------------------------------------------

    def mean_code(self, x: Tensor) -> Tensor:
        """Posterior means."""
        return self._posterior(x)[0]

    @inference
    def posterior(self, x: Tensor) -> torch.distributions.Normal:
        """q(z|x).

        Shape:
            x: (N, C, H, W) in [-1, 1]; batch shape of the output: (N, latent_dim).
        """
        mean, log_var = self._posterior(unit(x))
        return torch.distributions.Normal(mean, (0.5 * log_var).exp())

    @inference
    def log_weights(self, x: Tensor, num_samples: int, *, seed: int = 0, first: int = 0) -> Tensor:
        """log p(x, z_k) - log q(z_k | x) for z_k ~ q(z | x), in nats.

        Their mean over k estimates the evidence lower bound; log of the mean of their exponentials estimates a tighter
        bound, which grows with num_samples towards log p(x).

        Args:
            x: images.
            num_samples: draws per image.
            seed: seed of the draws.
            first: global index of the first image: the draws for image i depend on (seed, first + i) only.

        Shape:
            x: (N, C, H, W) in [-1, 1]; output: (num_samples, N).

        References:
            Burda, Grosse and Salakhutdinov 2016, equation 8.
        """
        x = unit(x)
        mean, log_var = self._posterior(x)
        key = rng.key(seed, "log_weights")
        eps = rng.normal((len(x), num_samples, self.latent_dim), key, first, device=x.device, dtype=x.dtype)
        rows = []
        for e in eps.unbind(1):
            z = mean + (0.5 * log_var).exp() * e
            # The normalizing constants of p(z) and q(z|x) are the same.
            log_prior_over_q = 0.5 * (e.square() + log_var - z.square()).sum(1)
            rows.append(log_prior_over_q + self.log_likelihood(x, self.decoder(z)))
        return torch.stack(rows)

    @inference
    def score(self, x: Tensor) -> Tensor:
        """Negative evidence lower bound at the posterior mean, in nats: higher is more anomalous.

        Shape:
            x: (N, C, H, W) in [-1, 1]; output: (N,).
        """
        x = unit(x)
        mean, log_var = self._posterior(x)
        return kl_to_standard_normal(mean, log_var).sum(1) - self.log_likelihood(x, self.decoder(mean))

    def log_likelihood(self, x: Tensor, logits: Tensor) -> Tensor:
        """log p(x|z) per image: a Bernoulli variable per pixel.

        Args:
            x: images in [0, 1].
            logits: the decoder's output.

        Shape:
            x, logits: (N, C, H, W); output: (N,).
        """
        return -self._cross_entropy(x, logits)

    def _cross_entropy(self, x: Tensor, logits: Tensor) -> Tensor:
        return bernoulli_nats(logits, x).flatten(1).sum(1)

    def _posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_var = self.encoder(x).chunk(2, 1)
        return mean, log_var

    # Training --------------------------------------------------------------------------------------------------------

    def objective(self, batch: Batch) -> Terms:
        """The negative evidence lower bound as its two terms, in nats per image.

        Shape:
            Output: scalars.
        """
        x = unit(batch["image"])
        mean, log_var = self._posterior(x)
        n = len(x)
        eps = rng.normal(
            (n, self.latent_dim), self.draw_key("eps"), self.first_index(n), device=x.device, dtype=x.dtype
        )
        logits = self.decoder(mean + (0.5 * log_var).exp() * eps)
        kl = kl_to_standard_normal(mean, log_var).sum(1).mean()
        return {"reconstruction": self._cross_entropy(x, logits).mean(), "kl": self.weighted(kl)}

    def weighted(self, kl: Tensor) -> Tensor:
        """The KL term as it enters the objective; the VAE takes it as it is."""
        return kl

    def configure_optimizers(self) -> Optimizer:
        """Adam or Adagrad."""
        if self.optimizer == "adagrad":
            return torch.optim.Adagrad(self.parameters(), self.learning_rate)
        return self.adam(self.parameters(), self.learning_rate)
