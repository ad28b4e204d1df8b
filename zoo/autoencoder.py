"""Autoencoder: an encoder and a decoder that learn to give images back through a narrow code.

    minimize  E_x ||x - d(e(x))||^2

The degenerate VAE: no noise, no prior, so nothing says where codes may be drawn from. Hinton and Salakhutdinov,
"Reducing the Dimensionality of Data with Neural Networks", Science 2006, whose MNIST network this is by default
(784-1000-500-250-30, here trained end to end with ReLUs).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim import Optimizer

from zoo.base import Batch, SingleObjectiveModel, Terms, inference
from zoo.base.latent import AutoencoderModel
from zoo.engine import rng
from zoo.nn.autoencoders import MLPDecoder, MLPEncoder
from zoo.nn.layers import unit

__all__ = ["Autoencoder"]


class Autoencoder(SingleObjectiveModel, AutoencoderModel):
    """Deterministic autoencoder.

    It has no prior, so it cannot sample; `perturb` shows images around the codes of given images.

    Args:
        image_size: side of the images.
        image_channels: channels of the images.
        latent_dim: length of the code.
        hidden_features: widths of the encoder's hidden layers; the decoder mirrors them.
        learning_rate: Adam's step size.

    References:
        Hinton and Salakhutdinov 2006.
    """

    # NOTE(paper): trained end to end with ReLUs and Adam; the paper pretrains layer by layer with logistic units.

    def __init__(
        self,
        image_size: int = 28,
        image_channels: int = 1,
        latent_dim: int = 30,
        *,
        hidden_features: Sequence[int] = (1000, 500, 250),
        learning_rate: float = 1e-3,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.latent_dim = latent_dim
        self.encoder = MLPEncoder(self.image_shape, hidden_features, latent_dim)
        self.decoder = MLPDecoder(latent_dim, hidden_features[::-1], self.image_shape)

    def real_and_fake(self, batch: Batch, *, seed: int, first: int) -> tuple[Tensor, Tensor]:
        """Real images and their reconstructions."""
        real: Tensor = batch["image"]
        return real, self.reconstruct(real)

    @inference
    def perturb(self, x: Tensor, scale: float, *, seed: int | None = None, first: int = 0) -> Tensor:
        """Decode the codes of images after adding Gaussian noise to them.

        Args:
            x: images.
            scale: deviation of the noise, as a multiple of the deviation of the codes of `x` in each dimension.
            seed: seed of the noise; None takes a new one.
            first: global index of the first image.

        Shape:
            x, output: (N, C, H, W) in [-1, 1].
        """
        z = self.encode(x)
        noise = rng.normal(z.shape, rng.key(self.resolve_seed(seed), "perturb"), first, device=z.device, dtype=z.dtype)
        return self.decode(z + scale * z.std(0, correction=0) * noise)

    def objective(self, batch: Batch) -> Terms:
        """Squared error per image, summed over pixels in [0, 1].

        Shape:
            Output: scalar.
        """
        x = unit(batch["image"])
        reconstruction = torch.sigmoid(self.decoder(self.encoder(x)))
        return {"reconstruction": (reconstruction - x).square().flatten(1).sum(1).mean()}

    def configure_optimizers(self) -> Optimizer:
        """Adam."""
        return self.adam(self.parameters(), self.hparams["learning_rate"])
