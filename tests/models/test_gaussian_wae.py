from __future__ import annotations

import math

import torch

from tests.models.test_wae import TestWAE as Contract
from zoo.gaussian_wae import GaussianWAE


class TestGaussianWAE(Contract):
    kind = GaussianWAE


def test_codes_have_the_encoders_mean_and_deviation() -> None:
    model = GaussianWAE(8, 1, 3, base_channels=2)
    with torch.no_grad():
        model.encoder.linear.weight.zero_()
        model.encoder.linear.bias.copy_(torch.tensor([1.0, 2, 3, 0, -1000, 2 * math.log(3)]))
    x = torch.rand(20_000, 1, 8, 8)
    z = model.code(x, "encoder")
    assert torch.allclose(z.mean(0), torch.tensor([1.0, 2, 3]), atol=0.1)
    assert torch.allclose(z.std(0), torch.tensor([1.0, 0, 3]), atol=0.05)
    assert torch.equal(model.encode(2 * x[:2] - 1), torch.tensor([[1.0, 2, 3]]).expand(2, 3))
    assert not torch.equal(z, model.code(x, "discriminator"))
