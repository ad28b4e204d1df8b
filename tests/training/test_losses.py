from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from tests.numerics import assert_near
from zoo.nn import losses
from zoo.nn.augment import diff_augment


def test_gradient_penalty_of_a_linear_critic() -> None:
    weight = torch.randn(3 * 4 * 4)
    real, fake = torch.randn(2, 5, 3, 4, 4).unbind()
    penalty = losses.gradient_penalty(lambda x: x.flatten(1) @ weight, real, fake, torch.rand(5))
    assert penalty.item() == pytest.approx((weight.norm().item() - 1) ** 2, rel=1e-5)


def test_r1_of_a_quadratic_discriminator() -> None:
    real = torch.randn(5, 3, 4, 4)
    penalty = losses.r1_penalty(lambda x: 0.5 * x.square().flatten(1).sum(1), real)
    assert penalty.item() == pytest.approx(0.5 * real.square().sum().item() / 5, rel=1e-5)


def test_penalties_reach_the_discriminator() -> None:
    layer = torch.nn.Linear(12, 1)
    real, fake = torch.randn(2, 5, 3, 2, 2).unbind()
    loss = losses.gradient_penalty(lambda x: layer(x.flatten(1)), real, fake, torch.rand(5))
    loss.backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.any()


@pytest.mark.parametrize("kind", ["non_saturating", "minimax"])
def test_value_of_an_undecided_discriminator_is_log_4(kind: losses.AdversarialLoss) -> None:
    terms = losses.discriminator_terms(kind, torch.zeros(3), torch.zeros(3))
    assert sum(t.item() for t in terms.values()) == pytest.approx(math.log(4))


def test_generator_gradients_of_both_goodfellow_objectives() -> None:
    logit = torch.tensor([-3.0, 0.0, 2.0], requires_grad=True)
    for kind, expected in (("non_saturating", -(1 - logit.sigmoid())), ("minimax", -logit.sigmoid())):
        (gradient,) = torch.autograd.grad(losses.generator_term(kind, logit) * 3, logit)  # type: ignore[arg-type]
        assert torch.allclose(gradient, expected.detach())


def test_no_overflow_where_a_sigmoid_saturates() -> None:
    terms = losses.discriminator_terms("non_saturating", torch.tensor([-200.0]), torch.tensor([200.0]))
    assert terms["real"].item() == terms["fake"].item() == 200


def test_least_squares_and_hinge_by_hand() -> None:
    real, fake = torch.tensor([0.5, 2.0]), torch.tensor([-2.0, 0.5])
    squares = losses.discriminator_terms("least_squares", real, fake)
    assert (squares["real"].item(), squares["fake"].item()) == ((0.25 + 1) / 2, (4 + 0.25) / 2)
    hinge = losses.discriminator_terms("hinge", real, fake)
    assert (hinge["real"].item(), hinge["fake"].item()) == (0.25, 0.75)
    assert losses.generator_term("least_squares", fake).item() == (9 + 0.25) / 2


def test_diff_augment_is_differentiable_keyed_and_local() -> None:
    x = torch.rand(6, 3, 16, 16, requires_grad=True)
    y = diff_augment(x, 5)
    assert y.shape == x.shape
    assert_near(diff_augment(x[2:], 5, first=2), y[2:])
    assert not torch.equal(y, diff_augment(x, 6))
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert gradient.any()


def test_diff_augment_translates_and_cuts() -> None:
    """On a constant grey image only translation's border and the cutout's square may change to 0."""
    x = torch.full((64, 3, 32, 32), 0.5)
    y = diff_augment(x, 1)
    hidden = (y == 0).all(1)
    share = hidden.float().mean((1, 2))
    assert share.min() > 0.05
    assert share.max() <= 0.25 + 2 * 4 / 32
    # Brightness moves the rest of each image by one number within half a unit.
    for image, mask in zip(y, hidden, strict=True):
        rest = image[:, ~mask]
        assert rest.max() - rest.min() < 1e-5
        assert abs(rest.mean() - 0.5) <= 0.5 + 1e-6
    assert F.mse_loss(y, x) > 0
    # Without colors the same places are hidden, and the others keep their values.
    assert torch.equal(diff_augment(x, 1, colors=False), x * ~hidden.unsqueeze(1))


def test_losses_of_half_precision_logits_are_taken_in_single_precision() -> None:
    """CPU autocast would round each softplus to eight bits."""
    logits = torch.linspace(3, 9, 50).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = [losses.generator_term("minimax", logits), losses.discriminator_terms("non_saturating", logits, logits)]
    assert found[0].dtype == torch.float32
    assert found[0].item() == pytest.approx(-torch.nn.functional.softplus(logits.double()).mean().item(), rel=1e-6)
    for term, sign in zip(found[1].values(), (-1, 1), strict=True):
        assert term.item() == pytest.approx(
            torch.nn.functional.softplus(sign * logits.double()).mean().item(), rel=1e-6
        )
