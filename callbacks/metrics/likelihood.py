"""Bounds of the log-likelihood by importance weights, and estimates by Parzen windows, in nats per image."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor
from torchmetrics.utilities.data import dim_zero_cat

from zoo.callbacks.metrics.means import Averaged
from zoo.callbacks.metrics.ranks import AnyShare

__all__ = ["LikelihoodBound", "ParzenLogLikelihood"]


class LikelihoodBound(Averaged):
    """Negative evidence lower bound, or importance-weighted negative log-likelihood, in nats per image: their mean.

    From log weights log p(x, z_k) - log q(z_k | x): -mean_k ("elbo") and -log mean_k exp ("iw_nll").

    Args:
        kind: which of the two.
        kwargs: options of `torchmetrics.Metric`.

    References:
        Burda, Grosse and Salakhutdinov 2016, equation 8.
    """

    higher_is_better = False

    def __init__(self, kind: Literal["elbo", "iw_nll"], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.kind = kind

    def update(self, log_weights: Tensor) -> None:
        """Add images.

        Shape:
            log_weights: (num_samples, N).
        """
        log_weights = log_weights.double()
        if self.kind == "elbo":
            self.add(-log_weights.mean(0))
        else:
            self.add(math.log(len(log_weights)) - log_weights.logsumexp(0))


class ParzenLogLikelihood(AnyShare):
    """Log-likelihood of images under isotropic Gaussians around generated ones, in nats per image.

    log p(x) = log mean_j exp(-|x - c_j|^2 / (2 s^2)) - D log(s sqrt(2 pi)), with pixels in [0, 1]. The width s is the
    one of ten values between 0.1 and 1 (evenly spaced in the logarithm) with the best likelihood of validation images.
    Ranks may add any shares of centers, validation and test images: all are gathered, and each log-likelihood depends
    on the set of centers only. The estimator ranks models poorly in high dimension (Theis et al. 2016).

    Args:
        kwargs: passed to torchmetrics.

    References:
        Breuleux, Bengio and Vincent 2011; Goodfellow et al. 2014, section 5, and its code.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    centers: list[Tensor]
    val: list[Tensor]
    test: list[Tensor]

    sigmas = torch.logspace(-1, 0, 10, dtype=torch.float64)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for name in ("centers", "val", "test"):
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(self, images: Tensor, kind: str) -> None:
        """Add images.

        Args:
            images: values in [-1, 1].
            kind: "centers" for generated images, "val" or "test" for real ones.

        Shape:
            images: (N, C, H, W).
        """
        getattr(self, kind).append((images.flatten(1) + 1) / 2)

    def compute(self) -> dict[str, Tensor]:
        """The mean `value` on the test images, its standard error `error`, and the chosen `sigma`."""
        centers = dim_zero_cat(self.centers)
        sigmas = self.sigmas.to(centers.device)
        chosen = sigmas[self._log_likelihood(dim_zero_cat(self.val), centers, sigmas).mean(1).argmax()]
        values = self._log_likelihood(dim_zero_cat(self.test), centers, chosen[None])[0]
        return {"value": values.mean(), "error": values.std() / math.sqrt(len(values)), "sigma": chosen}

    @staticmethod
    def _log_likelihood(x: Tensor, centers: Tensor, sigmas: Tensor) -> Tensor:
        """Log-likelihood of each image for each sigma, (sigmas, N)."""
        rows = []
        norms = centers.square().sum(1)
        for part in x.split(500):
            squared = (part.square().sum(1, keepdim=True) + norms - 2 * part @ centers.T).clamp(min=0)
            # The largest exponent is subtracted in float32 already: the remainders that matter are small.
            least = squared.min(1, keepdim=True).values
            rest = (squared - least).double()
            logs = [(-rest / (2 * s * s)).logsumexp(1) - least.squeeze(1).double() / (2 * s * s) for s in sigmas]
            rows.append(torch.stack(logs))
        constant = math.log(len(centers)) + x.size(1) * (sigmas * math.sqrt(2 * math.pi)).log()
        return torch.cat(rows, 1) - constant[:, None]
