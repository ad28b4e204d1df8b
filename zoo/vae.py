"""VAE: an autoencoder whose code is a distribution, trained on a lower bound of the likelihood.

    minimise  E_q(z|x) [-log p(x|z)] + KL(q(z|x) || p(z)),   q(z|x) = N(mu(x), diag sigma(x)^2),   p(z) = N(0, I)

Kingma and Welling, "Auto-Encoding Variational Bayes", ICLR 2014, arXiv 1312.6114. The defaults are those of the widely
used PyTorch example (784-400-20, ReLU, Adam); `VAE.paper()` is the paper's setting for MNIST (500 tanh units, Adagrad).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from zoo.base import Batch, SingleObjectiveModel, Terms, inference
from zoo.base.latent import LatentVariableModel
from zoo.engine import rng
from zoo.nn.autoencoders import Activation, MLPDecoder, MLPEncoder
from zoo.nn.schedules import Decay

__all__ = ["VAE", "BurgessDecoder", "BurgessEncoder", "ConvDecoder", "ConvEncoder", "kl_to_standard_normal"]

Likelihood = Literal["bernoulli", "gaussian", "laplace"]
Networks = Literal["mlp", "conv", "burgess"]


def kl_to_standard_normal(mean: Tensor, log_var: Tensor) -> Tensor:
    """KL(N(mean, exp(log_var)) || N(0, 1)) of each dimension: (mean^2 + exp(log_var) - log_var - 1) / 2.

    Shape:
        mean, log_var, output: the same.

    References:
        Kingma and Welling 2014, appendix B.
    """
    return 0.5 * (mean.square() + log_var.exp() - log_var - 1)


def stages(image_size: int) -> tuple[int, int]:
    """Side of the smallest feature map (7 for 28 pixels, else 4), and how often it is doubled.

    Raises:
        ValueError: the size is not supported.
    """
    start = 7 if image_size == 28 else 4
    doublings = (image_size // start).bit_length() - 1
    if not 1 <= doublings <= 4 or start * 2**doublings != image_size:
        raise ValueError(f"image_size {image_size} is not supported by networks='conv': take 8, 16, 28, 32 or 64")
    return start, doublings


class ConvEncoder(nn.Sequential):
    """Strided 4x4 convolutions, one over the whole remaining map, a linear layer.

    Shape:
        input: (N, C, H, W); output: (N, outputs).

    References:
        Higgins et al. 2017, table 1 (the network for CelebA).
    """

    def __init__(self, image_size: int, image_channels: int, outputs: int) -> None:
        start, doublings = stages(image_size)
        widths = (image_channels, 32, 32, 64, 64)[: doublings + 1]
        layers: list[nn.Module] = []
        for inner, outer in itertools.pairwise(widths):
            layers += [nn.Conv2d(inner, outer, 4, 2, 1), nn.ReLU(True)]  # (N, outer, H / 2, W / 2)
        layers += [nn.Conv2d(widths[-1], 256, start), nn.ReLU(True), nn.Flatten(), nn.Linear(256, outputs)]
        super().__init__(*layers)


class ConvDecoder(nn.Sequential):
    """The mirror image of `ConvEncoder`.

    Shape:
        input: (N, inputs); output: (N, C, H, W) logits.
    """

    def __init__(self, image_size: int, image_channels: int, inputs: int) -> None:
        start, doublings = stages(image_size)
        widths = (image_channels, 32, 32, 64, 64)[: doublings + 1][::-1]
        layers: list[nn.Module] = [nn.Linear(inputs, 256), nn.ReLU(True), nn.Unflatten(1, (256, 1, 1))]
        layers += [nn.ConvTranspose2d(256, widths[0], start), nn.ReLU(True)]
        for inner, outer in itertools.pairwise(widths):
            layers += [nn.ConvTranspose2d(inner, outer, 4, 2, 1), nn.ReLU(True)]  # (N, outer, 2H, 2W)
        super().__init__(*layers[:-1])


def _burgess_widths(image_size: int, image_channels: int) -> list[int]:
    """Channels before and after each convolution; they halve the side down to 4.

    Raises:
        ValueError: the size is not supported.
    """
    if image_size not in (32, 64):
        raise ValueError(f"image_size {image_size} is not supported by networks='burgess': take 32 or 64")
    return [image_channels, *[32] * (3 if image_size == 32 else 4)]


class BurgessEncoder(nn.Sequential):
    """Strided 4x4 convolutions of 32 channels, then three linear layers.

    Shape:
        input: (N, C, H, W) with a side of 32 or 64; output: (N, outputs).

    References:
        Burgess et al. 2018, appendix A.1; 32 pixels, with one convolution less, as in common implementations.
    """

    def __init__(self, image_size: int, image_channels: int, outputs: int) -> None:
        layers: list[nn.Module] = []
        for inner, outer in itertools.pairwise(_burgess_widths(image_size, image_channels)):
            layers += [nn.Conv2d(inner, outer, 4, 2, 1), nn.ReLU(True)]  # (N, 32, H / 2, W / 2)
        layers += [nn.Flatten(), nn.Linear(512, 256), nn.ReLU(True), nn.Linear(256, 256), nn.ReLU(True)]
        super().__init__(*layers, nn.Linear(256, outputs))


class BurgessDecoder(nn.Sequential):
    """The mirror image of `BurgessEncoder`.

    Shape:
        input: (N, inputs); output: (N, C, H, W) logits, with a side of 32 or 64.
    """

    def __init__(self, image_size: int, image_channels: int, inputs: int) -> None:
        layers: list[nn.Module] = [nn.Linear(inputs, 256), nn.ReLU(True), nn.Linear(256, 256), nn.ReLU(True)]
        layers += [nn.Linear(256, 512), nn.ReLU(True), nn.Unflatten(1, (32, 4, 4))]
        for inner, outer in itertools.pairwise(_burgess_widths(image_size, image_channels)[::-1]):
            layers += [nn.ConvTranspose2d(inner, outer, 4, 2, 1), nn.ReLU(True)]  # (N, outer, 2H, 2W)
        super().__init__(*layers[:-1])


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
        likelihood: p(x|z). "bernoulli": pixels are 1 with the decoder's probability, and grey values count as
            probabilities; "gaussian" and "laplace": around the decoder's output with deviation `noise_std`.
        noise_std: deviation of the Gaussian, scale of the Laplace density.
        learning_rate: step size.
        optimizer: "adam" or "adagrad".
        decay: schedule of the step size.
        weight_std: draw weights from N(0, weight_std), biases 0; None keeps torch's own initialisation.

    Raises:
        ValueError: an unsupported size, or a deviation that is not positive.

    References:
        Kingma and Welling 2014, equation 10, appendices B and C.
    """

    def __init__(
        self,
        image_size: int = 28,
        image_channels: int = 1,
        latent_dim: int = 20,
        *,
        networks: Networks = "mlp",
        hidden_features: Sequence[int] = (400,),
        activation: Activation = "relu",
        likelihood: Likelihood = "bernoulli",
        noise_std: float = 0.1,
        learning_rate: float = 1e-3,
        optimizer: Literal["adam", "adagrad"] = "adam",
        decay: Decay | None = None,
        weight_std: float | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        if noise_std <= 0:
            raise ValueError(f"noise_std must be positive, not {noise_std}")
        self.latent_dim = latent_dim
        self.decay = Decay.of(decay)
        if networks == "mlp":
            self.encoder = MLPEncoder(self.image_shape, hidden_features, 2 * latent_dim, activation)
            self.decoder = MLPDecoder(latent_dim, hidden_features[::-1], self.image_shape, activation)
        elif networks == "conv":
            self.encoder = ConvEncoder(image_size, image_channels, 2 * latent_dim)
            self.decoder = ConvDecoder(image_size, image_channels, latent_dim)
        else:
            self.encoder = BurgessEncoder(image_size, image_channels, 2 * latent_dim)
            self.decoder = BurgessDecoder(image_size, image_channels, latent_dim)
        if weight_std is not None:
            for name, parameter in self.named_parameters():
                nn.init.normal_(parameter, 0.0, weight_std if name.endswith("weight") else 0.0)

    @classmethod
    def paper(cls, **options: Any) -> VAE:
        """The paper's setting for MNIST; use a batch size of 100.

        Args:
            options: replace further arguments of the constructor.
        """
        # NOTE(paper): without the weak weight decay of the paper's prior over weights.
        setting: dict[str, Any] = {
            "hidden_features": (500,),
            "activation": "tanh",
            "optimizer": "adagrad",
            "learning_rate": 0.02,
            "weight_std": 0.01,
        }
        return cls(**setting | options)

    # What the model says of images -----------------------------------------------------------------------------------

    def mean_code(self, x: Tensor) -> Tensor:
        """Posterior means."""
        return self._posterior(x)[0]

    @inference
    def posterior(self, x: Tensor) -> torch.distributions.Normal:
        """q(z|x).

        Shape:
            x: (N, C, H, W) in [-1, 1]; batch shape of the output: (N, latent_dim).
        """
        mean, log_var = self._posterior((x + 1) / 2)
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
        x = (x + 1) / 2
        mean, log_var = self._posterior(x)
        key = rng.key(seed, "log_weights")
        eps = rng.normal((len(x), num_samples, self.latent_dim), key, first, device=x.device, dtype=x.dtype)
        rows = []
        for e in eps.unbind(1):
            z = mean + (0.5 * log_var).exp() * e
            # The normalising constants of p(z) and q(z|x) are the same.
            log_prior_over_q = 0.5 * (e.square() + log_var - z.square()).sum(1)
            rows.append(log_prior_over_q + self.log_likelihood(x, self.decoder(z)))
        return torch.stack(rows)

    @inference
    def score(self, x: Tensor) -> Tensor:
        """Negative evidence lower bound at the posterior mean, in nats: higher is more anomalous.

        Shape:
            x: (N, C, H, W) in [-1, 1]; output: (N,).
        """
        x = (x + 1) / 2
        mean, log_var = self._posterior(x)
        return kl_to_standard_normal(mean, log_var).sum(1) - self.log_likelihood(x, self.decoder(mean))

    def log_likelihood(self, x: Tensor, logits: Tensor) -> Tensor:
        """log p(x|z) per image.

        Args:
            x: images in [0, 1].
            logits: the decoder's output.

        Shape:
            x, logits: (N, C, H, W); output: (N,).
        """
        kind, std = self.hparams["likelihood"], self.hparams["noise_std"]
        if kind == "bernoulli":
            density = -F.binary_cross_entropy_with_logits(logits, x, reduction="none")
        elif kind == "gaussian":
            density = -0.5 * ((x - logits.sigmoid()) / std).square() - math.log(std * math.sqrt(2 * math.pi))
        else:
            density = -((x - logits.sigmoid()) / std).abs() - math.log(2 * std)
        return density.flatten(1).sum(1)

    def _posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_var = self.encoder(x).chunk(2, 1)
        return mean, log_var

    # Training --------------------------------------------------------------------------------------------------------

    def objective(self, batch: Batch) -> Terms:
        """The negative evidence lower bound as its two terms, in nats per image.

        Shape:
            Output: scalars.
        """
        x = (batch["image"] + 1) / 2
        mean, log_var = self._posterior(x)
        n = len(x)
        eps = rng.normal(
            (n, self.latent_dim), self.draw_key("eps"), self.first_index(n), device=x.device, dtype=x.dtype
        )
        logits = self.decoder(mean + (0.5 * log_var).exp() * eps)
        kl = kl_to_standard_normal(mean, log_var).sum(1).mean()
        return {"reconstruction": -self.log_likelihood(x, logits).mean(), "kl": self.weighted(kl)}

    def weighted(self, kl: Tensor) -> Tensor:
        """The KL term as it enters the objective; the VAE takes it as it is."""
        return kl

    def configure_optimizers(self) -> Optimizer:
        """Adam or Adagrad."""
        if self.hparams["optimizer"] == "adagrad":
            return torch.optim.Adagrad(self.parameters(), self.hparams["learning_rate"])
        return self.adam(self.parameters(), self.hparams["learning_rate"])
