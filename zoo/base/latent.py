"""Models with a code: an encoder that maps images to it, a decoder that maps it back, and mostly a prior over it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.base import GenerativeModel, inference
from zoo.engine import rng
from zoo.nn.layers import unit

__all__ = ["AutoencoderModel", "ClassCodeModel", "LatentVariableModel", "sweep"]


def sweep(generate: Callable[[Tensor], Tensor], base: Tensor, start: int, values: Tensor) -> Tensor:
    """Images while some columns of the codes take one value after the other, and all else stays.

    Args:
        generate: images of codes.
        base: codes, a row of images for each.
        start: the first of the columns.
        values: what the columns become, image by image.

    Shape:
        base: (N, D); values: (steps, columns); output: (N, steps, C, H, W).
    """
    z = base.unsqueeze(1).repeat(1, len(values), 1)
    z[:, :, start : start + values.size(1)] = values
    images = generate(z.flatten(0, 1))
    return images.view(len(base), len(values), *images.shape[1:])


class AutoencoderModel(GenerativeModel):
    """A model with networks `encoder(x)` and `decoder(z)` over images in [0, 1].

    Subclasses set `latent_dim`, build the two networks (the decoder returns logits), and say in `mean_code` what of the
    encoder's output is the code.

    Attributes:
        latent_dim: length of the code.
    """

    main_function = "reconstruct"
    inference_networks = ("encoder", "decoder")
    encoder: nn.Module
    decoder: nn.Module
    latent_dim: int

    def mean_code(self, x: Tensor) -> Tensor:
        """Codes of images in [0, 1], without noise.

        Shape:
            x: (N, C, H, W); output: (N, latent_dim).
        """
        return cast(Tensor, self.averaged("encoder")(x))

    @inference
    def encode(self, x: Tensor) -> Tensor:
        """Codes of images, without noise.

        Shape:
            x: (N, C, H, W) in [-1, 1]; output: (N, latent_dim).
        """
        return self.mean_code(unit(x))

    @inference
    def decode(self, z: Tensor) -> Tensor:
        """Images of codes: means, without pixel noise.

        Shape:
            z: (N, latent_dim); output: (N, C, H, W) in [-1, 1].
        """
        return 2 * cast(Tensor, self.averaged("decoder")(z)).sigmoid() - 1

    @inference
    def reconstruct(self, x: Tensor) -> Tensor:
        """Images as they come back through the code.

        Shape:
            x, output: (N, C, H, W) in [-1, 1].
        """
        return self.decode(self.encode(x))

    @inference
    def score(self, x: Tensor) -> Tensor:
        """Squared error of the reconstruction, summed over pixels in [0, 1]: higher is more anomalous.

        Shape:
            x: (N, C, H, W) in [-1, 1]; output: (N,).
        """
        return ((x - self.reconstruct(x)) / 2).square().flatten(1).sum(1)


class LatentVariableModel(AutoencoderModel):
    """A model with a code and a prior p(z) over it: what is drawn from the prior and decoded is a sample.

    Attributes:
        prior_std: standard deviation of the Gaussian prior.
    """

    prior_std: float = 1.0

    def prior(self, n: int, key: rng.Key, first: int = 0) -> Tensor:
        """Codes from the prior; row i depends on (key, first + i) only.

        Shape:
            Output: (n, latent_dim).
        """
        options: dict[str, Any] = {"device": self.device, "dtype": self.dtype}
        z = rng.normal((n, self.latent_dim), key, first, **options)
        return z if self.prior_std == 1 else self.prior_std * z

    @inference
    def latent(self, n: int, *, seed: int | None = None, first: int = 0) -> Tensor:
        """The codes from which `sample` with the same arguments makes its images.

        Shape:
            Output: (n, latent_dim).
        """
        return self.prior(n, rng.key(self.resolve_seed(seed), "sample"), first)

    @inference
    def generate(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """Images of codes, under the name that noise models use.

        Shape:
            z: (N, latent_dim); output: (N, C, H, W) in [-1, 1].
        """
        return self.decode(z)

    @inference
    def traversals(self, num: int, steps: int, *, seed: int = 0) -> dict[str, Tensor]:
        """Images while one dimension of the code varies over three deviations of the prior, and all else stays.

        Args:
            num: fixed codes, drawn from the prior, a row for each.
            steps: values of the dimension.
            seed: seed of the fixed codes.

        Shape:
            Outputs, by the name of the dimension: (num, steps, C, H, W).
        """
        base = self.latent(num, seed=seed)
        before = base.size(1) - self.latent_dim  # of what else the decoder sees
        values = torch.linspace(-3, 3, steps, device=base.device, dtype=base.dtype).unsqueeze(1) * self.prior_std
        return {f"z{i}": sweep(self.decode, base, before + i, values) for i in range(self.latent_dim)}


class ClassCodeModel(LatentVariableModel):
    """A model whose decoder takes a one-hot class in front of the code, which is drawn from Cat(1/K) for samples.

    Attributes:
        num_classes: number of classes.
    """

    conditions = ("label",)
    num_classes: int

    def onehot(self, label: Tensor) -> Tensor:
        """Labels as the decoder takes them.

        Shape:
            label: (N,); output: (N, num_classes).
        """
        return F.one_hot(label, self.num_classes).to(self.dtype)

    @inference
    def latent(self, n: int, *, seed: int | None = None, first: int = 0, label: int | Tensor | None = None) -> Tensor:
        """The inputs of the decoder from which `sample` with the same arguments makes its images.

        Shape:
            Output: (n, num_classes + latent_dim).
        """
        seed, k = self.resolve_seed(seed), self.num_classes
        if label is None:
            labels = rng.integers(k, (n,), rng.key(seed, "label"), first, device=self.device)
        else:
            labels = self.labels_for(n, label, k)
        return torch.cat([self.onehot(labels), self.prior(n, rng.key(seed, "sample"), first)], 1)

    @inference
    def traversals(self, num: int, steps: int, *, seed: int = 0) -> dict[str, Tensor]:
        """Images while the class, or one dimension of the code, varies and all else stays.

        Shape:
            Outputs, by name: (num, steps, C, H, W).
        """
        base = self.latent(num, seed=seed)
        strips = {"class": sweep(self.decode, base, 0, torch.eye(self.num_classes).to(base))}
        return strips | super().traversals(num, steps, seed=seed)
