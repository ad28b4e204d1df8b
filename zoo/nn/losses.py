"""Objectives as pure functions of logits and images, shared by the adversarial papers.

Logits are a discriminator's outputs before any sigmoid, of any shape; every function returns the mean over all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.engine.tracing import is_exported

__all__ = [
    "AdversarialLoss",
    "at_least_float32",
    "bernoulli_nats",
    "discriminator_terms",
    "generator_term",
    "gradient_penalty",
    "interpolate_pairs",
    "inverse_multiquadratic",
    "mmd",
    "norm_penalty",
    "r1_penalty",
]

AdversarialLoss = Literal["non_saturating", "minimax", "least_squares", "hinge", "wasserstein"]

_DISCRIMINATOR: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    # name: (term of the real logits, term of the fake logits)
    "non_saturating": (lambda real: F.softplus(-real), F.softplus),
    "minimax": (lambda real: F.softplus(-real), F.softplus),
    "least_squares": (lambda real: (real - 1).square(), torch.square),
    "hinge": (lambda real: F.relu(1 - real), lambda fake: F.relu(1 + fake)),
    "wasserstein": (torch.neg, lambda fake: fake),
}
_GENERATOR: dict[str, Callable[[Tensor], Tensor]] = {
    "non_saturating": lambda fake: F.softplus(-fake),
    "minimax": lambda fake: -F.softplus(fake),
    "least_squares": lambda fake: (fake - 1).square(),
    "hinge": torch.neg,
    "wasserstein": torch.neg,
}


def discriminator_terms(kind: AdversarialLoss, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
    """What the discriminator minimises, as its two terms.

    non_saturating, minimax: -E log D(x) and -E log(1 - D(G(z))), written with softplus so that no log of 0 occurs;
    least_squares: E (D(x) - 1)^2 and E D(G(z))^2; hinge: E max(0, 1 - D(x)) and E max(0, 1 + D(G(z)));
    wasserstein: -E D(x) and E D(G(z)).

    Args:
        kind: name of the objective.
        real: logits of real images.
        fake: logits of generated images.

    Shape:
        Output: two scalars, `real` and `fake`.

    References:
        Goodfellow et al. 2014 eq. 1; Mao et al. 2017 (LSGAN) eq. 2; Lim and Ye 2017 (hinge); Arjovsky et al. 2017.
    """
    on_real, on_fake = _DISCRIMINATOR[kind]
    return {"real": on_real(at_least_float32(real)).mean(), "fake": on_fake(at_least_float32(fake)).mean()}


def generator_term(kind: AdversarialLoss, fake: Tensor) -> Tensor:
    """What the generator minimises.

    non_saturating: -E log D(G(z)); minimax: E log(1 - D(G(z))); least_squares: E (D(G(z)) - 1)^2;
    hinge and wasserstein: -E D(G(z)).

    Args:
        kind: name of the objective.
        fake: logits of generated images.

    Shape:
        Output: scalar.

    References:
        As for `discriminator_terms`; Goodfellow et al. 2014 section 3 for the non-saturating form.
    """
    return _GENERATOR[kind](at_least_float32(fake)).mean()


def at_least_float32(logits: Tensor) -> Tensor:
    """Logits in float32 at least: autocast on a CPU takes softplus and means in half precision, other devices do not.

    Shape:
        Output as input.
    """
    return logits.float() if logits.dtype in (torch.half, torch.bfloat16) else logits


def gradient_penalty(
    critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, mix: Tensor, target: float = 1.0
) -> Tensor:
    """WGAN-GP: E (||grad_x D(x)||_2 - target)^2 at x = mix * real + (1 - mix) * fake.

    Args:
        critic: the critic as a function of images.
        real: real images.
        fake: generated images, as many; no gradient flows into them.
        mix: one number in [0, 1) per pair.
        target: norm that the gradient is drawn to.

    Shape:
        real, fake: (N, C, H, W); mix: (N,); output: scalar.

    References:
        Gulrajani et al. 2017, equation 3 and algorithm 1.
    """
    x = interpolate_pairs(real, fake, mix).requires_grad_()
    (gradient,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
    return norm_penalty(gradient, target)


def bernoulli_nats(logits: Tensor, target: Tensor) -> Tensor:
    """-log p of each variable: the cross entropy of Bernoulli variables.

    Shape:
        logits, target: the same; output as they.
    """
    if is_exported():  # other runtimes overflow in torch's own form
        return logits.relu() - logits * target + F.softplus(-logits.abs())
    return F.binary_cross_entropy_with_logits(logits, target, reduction="none")


def interpolate_pairs(real: Tensor, fake: Tensor, mix: Tensor) -> Tensor:
    """Images between real and generated ones, without a graph: mix * real + (1 - mix) * fake.

    Args:
        real: real images.
        fake: generated images, as many.
        mix: one number in [0, 1) per pair.

    Shape:
        real, fake, output: (N, C, H, W); mix: (N,).
    """
    mix = mix.view(-1, *[1] * (real.dim() - 1)).to(real.dtype)
    return torch.lerp(fake.detach().to(real.dtype), real.detach(), mix)


def norm_penalty(gradient: Tensor, target: float = 1.0) -> Tensor:
    """E (||g||_2 - target)^2, what `gradient_penalty` makes of the critic's gradient.

    Args:
        gradient: a gradient with respect to each image.
        target: norm that it is drawn to.

    Shape:
        gradient: (N, C, H, W); output: scalar.
    """
    norm: Tensor = gradient.flatten(1).norm(dim=1)
    return (norm - target).square().mean()


def r1_penalty(discriminator: Callable[[Tensor], Tensor], real: Tensor) -> Tensor:
    """R1: 1/2 E ||grad_x D(x)||^2 at real images.

    Args:
        discriminator: the discriminator as a function of images.
        real: real images.

    Shape:
        real: (N, C, H, W); output: scalar.

    References:
        Mescheder et al. 2018, equation 9 (without its weight gamma).
    """
    x = real.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(discriminator(x).sum(), x, create_graph=True)
    penalty: Tensor = 0.5 * gradient.square().flatten(1).sum(1).mean()
    return penalty


def mmd(p: Tensor, q: Tensor, kernel: Callable[[Tensor], Tensor]) -> Tensor:
    """Unbiased estimate of the squared maximum mean discrepancy between two sets of points.

    sum_{i != j} k(p_i, p_j) / n(n - 1) + sum_{i != j} k(q_i, q_j) / n(n - 1) - 2 mean_{ij} k(p_i, q_j)

    Args:
        p: points of one distribution.
        q: as many points of the other.
        kernel: the kernel as a function of the squared distance.

    Shape:
        p, q: (N, D); output: scalar, which may be negative.

    References:
        Gretton et al. 2012, "A kernel two-sample test", equation 3; Tolstikhin et al. 2017, algorithm 2.
    """
    n = len(p)
    both = torch.cat([p, q])
    norms = both.square().sum(1)
    with torch.autocast(both.device.type, enabled=False):  # small differences of large numbers
        squared = (norms[:, None] + norms - 2 * both @ both.T).clamp(min=0)
    k = kernel(squared)
    same = 1 - torch.eye(n, device=p.device, dtype=k.dtype)
    within = (k[:n, :n] * same).sum() + (k[n:, n:] * same).sum()
    return within / (n * (n - 1)) - 2 * k[:n, n:].mean()


def inverse_multiquadratic(scale: float) -> Callable[[Tensor], Tensor]:
    """The kernel C / (C + d^2), summed over C = scale * (0.1, 0.2, 0.5, 1, 2, 5, 10).

    Args:
        scale: expected squared distance of two points of the prior.

    References:
        Tolstikhin et al. 2017, section 4, and the authors' code.
    """

    def kernel(squared: Tensor) -> Tensor:
        constants = [scale * s for s in (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)]
        return torch.stack([c / (c + squared) for c in constants]).sum(0)

    return kernel
