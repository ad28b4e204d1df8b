"""Layers that several architectures share: the same functions as torch's own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.numerics import assert_near
from zoo.nn.augment import random_affine, random_shift
from zoo.nn.layers import FewChannelConv2d, instance_norm


@pytest.mark.parametrize("affine", [False, True])
def test_instance_norm_is_torchs(affine: bool) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 5, 4, 6, dtype=torch.float64, requires_grad=True)
    weight, bias = torch.randn(2, 5, dtype=torch.float64) if affine else (None, None)
    found, expected = instance_norm(x, weight, bias, 1e-3), F.instance_norm(x, weight=weight, bias=bias, eps=1e-3)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    grads = [torch.autograd.grad(y.pow(3).sum(), x)[0] for y in (found, expected)]
    torch.testing.assert_close(*grads, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("kernel", "options"),
    [
        (7, {"padding": 3}),
        (7, {"padding": 3, "padding_mode": "reflect", "bias": False}),
        ((3, 5), {"padding": (2, 1)}),
        (1, {}),
        (3, {"stride": 2, "padding": 1}),
        (3, {"padding": "same"}),
        (3, {"dilation": 2, "padding_mode": "circular", "padding": 2}),
    ],
)
def test_narrow_convolution_is_torchs(kernel: Any, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    narrow = FewChannelConv2d(5, 3, kernel, **options).double()
    plain = nn.Conv2d(5, 3, kernel, **options).double()
    plain.load_state_dict(narrow.state_dict())
    x = torch.randn(2, 5, 9, 8, dtype=torch.float64, requires_grad=True)
    found, expected = narrow(x), plain(x)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    grads = [torch.autograd.grad(y.pow(2).sum(), [x, *m.parameters()]) for y, m in ((found, narrow), (expected, plain))]
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


def test_narrow_convolution_sums_in_single_precision_under_autocast() -> None:
    torch.manual_seed(0)
    narrow = FewChannelConv2d(16, 3, 7, padding=3)
    x = torch.randn(2, 16, 16, 16)
    with torch.autocast("cpu", torch.bfloat16):
        found = narrow(x)
        plain = F.conv2d(x, narrow.weight, narrow.bias, padding=3)
    exact = F.conv2d(x.double(), narrow.weight.double(), narrow.bias.double(), padding=3)
    assert found.dtype == torch.bfloat16
    apart, usual = ((y.double() - exact).abs().mean().item() for y in (found, plain))
    assert apart < 1.5 * usual


def test_random_affine_is_keyed_and_differentiable() -> None:
    x = torch.rand(4, 2, 12, 10, requires_grad=True)
    y = random_affine(x, 5)
    assert_near(random_affine(x[2:], 5, first=2), y[2:])
    assert not torch.allclose(y, random_affine(x, 6))
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert gradient.any()
    still = random_affine(x, 5, rotation=0, shear=0, scale=0, shift=0)
    assert_near(still, x)
    assert random_affine(x.bfloat16(), 5).dtype == torch.bfloat16


def test_random_affine_turns_shears_scales_and_moves() -> None:
    """A dot to the right of the middle goes where the drawn map takes it."""
    x = torch.zeros(200, 1, 41, 41, dtype=torch.float64)
    x[:, 0, 20, 30] = 1
    rows = torch.arange(41, dtype=torch.float64) - 20

    def center(y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mass = y.sum((1, 2, 3))
        return (y.sum((1, 3)) @ rows) / mass, (y.sum((1, 2)) @ rows) / mass

    down, right = center(random_affine(x, 1, shear=0, scale=0, shift=0))
    assert torch.allclose((down.square() + right.square()).sqrt(), torch.full_like(down, 10.0), atol=0.2)
    angle = torch.atan2(down, right).rad2deg()
    assert 18 < angle.abs().max() < 20.5
    down, right = center(random_affine(x, 1, rotation=0, shear=0, shift=0))
    assert down.abs().max() < 0.01
    assert 10 / 1.16 < right.min() < 9 < 11 < right.max() < 10 / 0.84
    down, right = center(random_affine(x, 1, rotation=0, scale=0, shift=0))
    assert torch.allclose(right, torch.full_like(right, 10.0), atol=1e-6)  # sheared by height: this one is at height 0
    down, right = center(random_affine(x, 1, rotation=0, shear=0, scale=0, shift=0.1))
    assert 1.8 < (right - 10).abs().max() < 2.06
    assert 1.8 < down.abs().max() < 2.06


def test_random_shift_moves_by_whole_pixels_and_repeats_the_border() -> None:
    x = torch.arange(35.0).view(1, 1, 5, 7).expand(400, 2, -1, -1).clone().requires_grad_()
    y = random_shift(x, 2, 5)
    assert torch.equal(y[3:], random_shift(x[3:], 2, 5, first=3))
    padded = F.pad(x, [2] * 4, mode="replicate")
    places = {(a, b): padded[:1, :, a : a + 5, b : b + 7] for a in range(5) for b in range(5)}
    found = [[place for place, expected in places.items() if torch.equal(image[None], expected)] for image in y]
    assert {place for (place,) in found} == set(places)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert gradient.sum() == y.numel()
