from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from tests.contract import ModelContract
from tests.models.likelihood import LikelihoodContract, wild
from tests.models.test_nade import assert_causal
from tests.numerics import assert_near
from zoo.engine import rng
from zoo.rnade import RNADE


class TestRNADE(LikelihoodContract, ModelContract):
    size = 8

    def tiny(self) -> RNADE:
        return RNADE(8, 1, 6, num_components=3)


def test_shapes() -> None:
    assert RNADE(4, 3, 2).logits(torch.zeros(2, 3, 4, 4)).shape == (2, 30, 3, 4, 4)


@pytest.mark.parametrize("channels", [1, 2])
def test_a_value_depends_on_all_before_it_and_on_no_other(channels: int) -> None:
    torch.manual_seed(0)
    assert_causal(wild(RNADE(3, channels, 40, num_components=3)))


def test_the_network_is_the_papers_recursion_with_rescaled_activations() -> None:
    network = wild(RNADE(3, 2, 7, num_components=2)).network
    x = torch.rand(3, 18, dtype=torch.float64)
    assert torch.allclose(network(x), network.naive_forward(x), atol=1e-12)
    h = (network.rescaling[1] * (network.hidden_bias + x[:, :1] * network.input_weight[0])).relu()
    expected = network.output_bias[1] + h @ network.output_weight[1].T
    assert torch.allclose(network(x)[:, 1], expected, atol=1e-12)


def test_bits_are_those_of_levels_with_noise() -> None:
    model = RNADE(3, 1, 4, num_components=2).double()
    levels = torch.randint(256, (2, 1, 3, 3)).double()
    x = levels / 127.5 - 1
    u = rng.uniform(x.shape, rng.key(5, "dequantize"), 7, dtype=torch.float64)
    noisy = 2 * (levels + u) / 256 - 1
    expected = 8 - model.log_prob(noisy) / (9 * math.log(2))
    assert torch.allclose(model.bits_per_dim(x, seed=5, first=7), expected, atol=1e-12)


def test_components_start_evenly_over_the_range() -> None:
    model = RNADE(2, 1, 3, num_components=4)
    bias = model.network.output_bias.detach()
    assert torch.equal(bias[:, 4:8], torch.tensor([0.125, 0.375, 0.625, 0.875]).expand(4, -1))
    assert torch.allclose(bias[:, 8:].exp(), torch.tensor(0.25))


def test_conditional_densities_integrate_to_one() -> None:
    model = wild(RNADE(2, 1, 5, num_components=3), 0.5)
    x = torch.rand(1, 1, 2, 2, dtype=torch.float64) * 2 - 1
    grid = torch.linspace(-20, 21, 40_001, dtype=torch.float64)
    last = x.repeat(len(grid), 1, 1, 1)
    last[:, 0, 1, 1] = 2 * grid - 1
    # Only the last factor of the chain depends on the last value: the integral is the density of the first three.
    integral = torch.trapezoid(model.log_prob(last).exp(), grid)
    numbers = model.logits(x).detach()
    first = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(logits=numbers[0, :3].permute(1, 2, 3, 0)),
        torch.distributions.Normal(
            numbers[0, 3:6].permute(1, 2, 3, 0), numbers[0, 6:].exp().add(1 / 512).permute(1, 2, 3, 0)
        ),
    ).log_prob((x[0] + 1) / 2)
    assert torch.allclose(integral.log(), first.flatten()[:3].sum(), atol=1e-6)
    assert torch.allclose(model.log_prob(x), first.sum(), atol=1e-10)


@pytest.mark.parametrize("ordering", ["raster", "random"])
def test_the_cached_sampler_draws_what_the_naive_one_draws(ordering: Any) -> None:
    model = wild(RNADE(4, 2, 10, num_components=3, ordering=ordering), 0.5)
    assert_near(*(model.sample(6, seed=1, naive=naive) for naive in (False, True)))


@pytest.mark.parametrize("temperature", [1.0, 0.25])
def test_draws_of_a_mixture_have_its_moments(temperature: float) -> None:
    model = RNADE(2, 1, 3, num_components=2).double()
    logits, mean, std = (torch.tensor(v, dtype=torch.float64) for v in ([0.4, -0.3], [0.3, 0.6], [0.03, 0.06]))
    n = 200_000
    u = rng.uniform((n,), rng.key(0, "u"), dtype=torch.float64)
    x = (model.draw(torch.cat([logits, mean, std.log()]).expand(n, -1), u, temperature) + 1) / 2
    share, std = (logits / temperature).softmax(0), (std + 1 / 512) * math.sqrt(temperature)
    expected = (share * mean).sum()
    variance = (share * (std**2 + mean**2)).sum() - expected**2
    assert abs(x.mean() - expected) < 2e-3
    assert abs(x.var() / variance - 1) < 0.02
    low = x[x < 0.42]
    assert abs(len(low) / n - share[0]) < 0.01
    assert abs(low.std() / std[0] - 1) < 0.02
