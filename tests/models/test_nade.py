from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.contract import ModelContract
from tests.models.likelihood import LikelihoodContract, all_images, binary_images, wild
from zoo.nade import NADE
from zoo.nn.nade import recursion
from zoo.nn.schedules import Decay
from zoo.pretrained.migrations import current_arguments


class TestNADE(LikelihoodContract, ModelContract):
    size = 8

    def tiny(self) -> NADE:
        return NADE(8, 1, 6)


FORMS: dict[str, dict[str, Any]] = {
    "sigmoid": {},
    "relu": {"nonlinearity": "relu"},
    "random": {"ordering": "random"},
}
every_form = pytest.mark.parametrize("form", FORMS)


# The recursion --------------------------------------------------------------------------------------------------------


@every_form
def test_the_network_is_the_papers_recursion_and_so_are_its_gradients(form: str) -> None:
    network = wild(NADE(4, 2, 7, **FORMS[form])).network
    x = torch.rand(3, 32, dtype=torch.float64, requires_grad=True)
    outs = [network(x), network.naive_forward(x)]
    assert torch.allclose(*outs, atol=1e-12)
    weight = torch.randn_like(outs[0])
    found, expected = (torch.autograd.grad((out * weight).sum(), [x, *network.parameters()]) for out in outs)
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(found, expected, strict=True))


def test_the_papers_recursion_by_hand() -> None:
    """a_3 = c + W_1 x_1 + W_2 x_2, for the third value."""
    network = wild(NADE(2, 1, 5)).network
    x = torch.tensor([[1.0, 0.0, 1.0, 1.0]], dtype=torch.float64)
    h = (network.hidden_bias + network.input_weight[0]).sigmoid()
    expected = network.output_bias[2] + network.output_weight[2] @ h
    assert torch.allclose(network.naive_forward(x)[0, 2], expected, atol=1e-14)


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("chunk", [1, 3, 20])
def test_gradients_of_the_recursion_in_chunks(relu: bool, chunk: int) -> None:
    torch.manual_seed(0)
    sizes = ((4, 7), (7, 5), (5,), (7, 2, 5), (7,))  # 7 values: the last chunk is not full
    arguments = [torch.randn(size, dtype=torch.float64, requires_grad=True) for size in sizes]

    def run(x: Tensor, w: Tensor, c: Tensor, v: Tensor, rho: Tensor, chunk: int = chunk) -> Tensor:
        return recursion(x, input_weight=w, hidden_bias=c, output_weight=v, rescaling=rho, relu=relu, chunk=chunk)

    assert torch.autograd.gradcheck(run, arguments)
    assert torch.allclose(run(*arguments), run(*arguments, chunk=2), atol=1e-12)


def test_counts() -> None:
    assert sum(p.numel() for p in NADE().parameters()) == 785_284


@every_form
@pytest.mark.parametrize("channels", [1, 2])
def test_a_value_depends_on_all_before_it_and_on_no_other(form: str, channels: int) -> None:
    torch.manual_seed(0)
    assert_causal(wild(NADE(3, channels, 40, **FORMS[form])))


def assert_causal(model: NADE) -> None:
    """The Jacobian of the outputs is strictly triangular and full, in the model's order."""
    channels = model.image_shape[0]
    x = torch.rand(1, channels, 3, 3, dtype=torch.float64) * 2 - 1
    jacobian = torch.autograd.functional.jacobian(lambda x: model.logits(x).abs().sum((0, 1)), x)[:, :, :, 0]
    dims, order = 9 * channels, model.network.order
    jacobian = jacobian.permute(1, 2, 0, 4, 5, 3).reshape(dims, dims)[order][:, order]
    assert not jacobian.triu().any()
    assert jacobian[torch.ones(dims, dims).tril(-1).bool()].all()


def test_a_random_order_is_kept_with_the_weights() -> None:
    model, other = NADE(4, 1, 3, ordering="random"), NADE(4, 1, 3)
    order = model.network.order
    assert torch.equal(order.sort().values, torch.arange(16))
    assert not torch.equal(order, other.network.order)
    other.load_state_dict(model.state_dict())
    x = binary_images(3, 4).float()
    assert torch.equal(model.log_prob(x), other.log_prob(x))


# Probabilities --------------------------------------------------------------------------------------------------------


@every_form
def test_probabilities_of_all_images_sum_to_one(form: str) -> None:
    model, x = wild(NADE(2, 1, 5, **FORMS[form])), all_images(2, 1, 2, 2)
    assert abs(float(model.log_prob(x).exp().sum()) - 1) < 1e-6
    assert torch.allclose(model.bits_per_dim(x) * 4 * math.log(2), -model.log_prob(x))


def test_likelihoods_are_in_full_precision_under_autocast() -> None:
    model, x = NADE(8), binary_images(4, 8).float()
    expected = model.log_prob(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model.log_prob(x), expected)


# Sampling -------------------------------------------------------------------------------------------------------------


@every_form
def test_the_cached_sampler_draws_what_the_naive_one_draws(form: str) -> None:
    model = wild(NADE(4, 2, 10, **FORMS[form]), 0.5)
    assert torch.equal(*(model.sample(6, seed=1, naive=naive) for naive in (False, True)))


@pytest.mark.parametrize("ordering", ["raster", "random"])
def test_samples_are_as_frequent_as_they_are_likely(ordering: Any) -> None:
    model = wild(NADE(2, 1, 5, ordering=ordering))
    expected = model.log_prob(all_images(2, 1, 2, 2)).exp()
    drawn = model.sample(40_000, seed=0).flatten(1).gt(0).long() @ torch.tensor([8, 4, 2, 1])
    assert (torch.bincount(drawn, minlength=16) / 40_000 - expected).abs().max() < 0.01


def test_a_prefix_is_kept_and_the_rest_follows_the_conditional() -> None:
    model, x = wild(NADE(2, 1, 5)), all_images(2, 1, 2, 2)
    prefix = torch.tensor([[[[1.0, -1.0]]]])
    done = model.sample(40_000, seed=0, prefix=prefix)
    assert torch.equal(done[:, :, :1], prefix.double().expand(40_000, -1, -1, -1))
    joint = model.log_prob(x[(x[:, 0, 0] == prefix[0, 0, 0]).all(1)]).exp()
    found = torch.bincount(done[:, 0, 1].gt(0).long() @ torch.tensor([2, 1]), minlength=4) / 40_000
    assert (found - joint / joint.sum()).abs().max() < 0.01
    assert torch.equal(model.sample(3, seed=0, prefix=x[:3]), x[:3])


def test_a_low_temperature_takes_the_likelier_value() -> None:
    model = wild(NADE(4, 1, 6))
    assert len(model.sample(20, seed=0).unique(dim=0)) > 5
    assert len(model.sample(20, seed=0, temperature=1e-6).unique(dim=0)) == 1


# Files of earlier versions --------------------------------------------------------------------------------------------

OLD = {
    "hidden_features": 3,
    "likelihood": "bernoulli",
    "components": 10,
    "nonlinearity": None,
    "ordering": "raster",
    "ordering_seed": 0,
    "tied": False,
}


def test_earlier_arguments() -> None:
    path, arguments = current_arguments("zoo.nade.NADE", OLD | {"final_rate": 0.03})
    assert path == "zoo.nade.NADE"
    decay = {"kind": "exponential", "final": 0.03}
    assert arguments == {"hidden_features": 3, "ordering": "raster", "decay": decay}
    assert NADE(4, **arguments).decay == Decay("exponential", final=0.03)
    path, arguments = current_arguments("zoo.NADE", OLD | {"likelihood": "gaussian_mixture", "final_rate": 1.0})
    assert path == "zoo.rnade.RNADE"
    assert arguments == {"hidden_features": 3, "num_components": 10, "ordering": "raster", "decay": None}
    with pytest.raises(ValueError, match="no longer has tied=True"):
        current_arguments("zoo.NADE", OLD | {"tied": True})


# Errors ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ordering": "spiral"}, "ordering must be 'raster' or 'random', not 'spiral'"),
        ({"nonlinearity": "tanh"}, "nonlinearity must be 'sigmoid' or 'relu', not 'tanh'"),
        ({"optimizer": "lbfgs"}, "optimizer must be "),
    ],
)
def test_one_line_says_what_is_wrong(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        NADE(4, 1, 3, **options)


def test_one_line_says_what_a_sample_cannot_have() -> None:
    with pytest.raises(ValueError, match="prefix needs ordering='raster'"):
        NADE(4, 1, 3, ordering="random").sample(2, prefix=torch.ones(1, 1, 2, 4))
    with pytest.raises(ValueError, match="temperature must be positive"):
        NADE(4, 1, 3).sample(2, temperature=0.0)
    with pytest.raises(ValueError, match="has no condition 'label'"):
        NADE(4, 1, 3).sample(2, label=1)
