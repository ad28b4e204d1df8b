from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests.contract import Data, ModelContract, trainer
from tests.numerics import assert_near
from zoo.base import Batch
from zoo.base.autoregressive import AutoregressiveModel
from zoo.engine import rng
from zoo.nade import NADE
from zoo.nn.nade import Recursion
from zoo.orderless_nade import OrderlessNADE


class TestNADE(ModelContract):
    def tiny(self) -> AutoregressiveModel:
        return NADE(8, 1, 6)

    def batch(self, n: int, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Batch:
        images = rng.uniform((n, 1, 8, 8), rng.key(seed, "batch"), low=-1, high=1, dtype=torch.float64)
        return {"image": torch.where(images > 0, 1.0, -1.0).to(dtype)}


class TestNADEMixture(TestNADE):
    def tiny(self) -> NADE:
        return NADE(8, 1, 6, likelihood="gaussian_mixture", components=3, ordering="random", optimizer="sgd")

    def batch(self, n: int, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Batch:
        images = rng.uniform((n, 1, 8, 8), rng.key(seed, "batch"), low=-1, high=1, dtype=torch.float64)
        return {"image": images.to(dtype)}


class TestOrderlessNADE(TestNADE):
    def tiny(self) -> OrderlessNADE:
        return OrderlessNADE(8, 1, (6, 5))

    def steps(self, model: Any) -> int:
        return 2


def wild(model: Any, std: float = 1.0) -> Any:
    """The model in float64 with weights that say something."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(std * torch.randn(p.shape, generator=generator))
    return model.double()


def all_images(size: int) -> Tensor:
    """Every binary image of a size."""
    vectors = list(itertools.product((-1.0, 1.0), repeat=size**2))
    return torch.tensor(vectors, dtype=torch.float64).view(-1, 1, size, size)


def images(n: int, size: int, channels: int = 1) -> Tensor:
    return torch.where(torch.rand(n, channels, size, size, dtype=torch.float64) > 0.5, 1.0, -1.0)


FORMS: dict[str, dict[str, Any]] = {
    "sigmoid": {},
    "relu": {"nonlinearity": "relu"},
    "tied": {"tied": True},
    "random": {"ordering": "random", "ordering_seed": 4},
    "mixture": {"likelihood": "gaussian_mixture", "components": 3},
    "mixture-random": {"likelihood": "gaussian_mixture", "ordering": "random", "nonlinearity": "sigmoid"},
}
every_form = pytest.mark.parametrize("form", FORMS)
every_binary = pytest.mark.parametrize("form", [form for form in FORMS if "mixture" not in form])


# The recursion --------------------------------------------------------------------------------------------------------


def from_scratch(x: Tensor, w: Tensor, c: Tensor, v: Tensor, rho: Tensor, relu: bool) -> Tensor:
    """Every activation as its own sum."""
    out = []
    for i in range(len(w)):
        a = rho[i] * (c + x[:, :i] @ w[:i])
        out.append((a.relu() if relu else a.sigmoid()) @ v[i].T)
    return torch.stack(out)


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("chunk", [1, 3, 20])
def test_the_recursion_equals_sums_from_scratch_and_so_do_its_gradients(relu: bool, chunk: int) -> None:
    torch.manual_seed(0)
    sizes = ((4, 7), (7, 5), (5,), (7, 2, 5), (7,))  # 7 values: the last chunk is not full
    arguments = [torch.randn(size, dtype=torch.float64, requires_grad=True) for size in sizes]
    out = Recursion.apply(*arguments, relu, chunk)
    expected = from_scratch(*arguments, relu)  # type: ignore[arg-type]
    assert torch.allclose(out, expected, atol=1e-12)
    weight = torch.randn_like(out)
    got, wanted = (torch.autograd.grad((o * weight).sum(), arguments) for o in (out, expected))
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(got, wanted, strict=True))
    assert torch.autograd.gradcheck(lambda *a: Recursion.apply(*a, relu, chunk), arguments)


def test_counts_and_shapes() -> None:
    assert sum(p.numel() for p in NADE().parameters()) == 785_284
    assert sum(p.numel() for p in NADE(tied=True).parameters()) == 785_284 - 392_000
    assert sum(p.numel() for p in OrderlessNADE().parameters()) == 1_427_784
    assert NADE(4, 3, 2, likelihood="gaussian_mixture").logits(torch.zeros(2, 3, 4, 4)).shape == (2, 30, 3, 4, 4)


@every_form
@pytest.mark.parametrize("channels", [1, 2])
def test_a_value_depends_on_all_before_it_and_on_no_other(form: str, channels: int) -> None:
    torch.manual_seed(0)
    model = wild(NADE(3, channels, 40, **FORMS[form]))
    x = torch.rand(1, channels, 3, 3, dtype=torch.float64) * 2 - 1
    jacobian = torch.autograd.functional.jacobian(lambda x: model.logits(x).abs().sum((0, 1)), x)[:, :, :, 0]
    dims = 9 * channels
    jacobian = jacobian.permute(1, 2, 0, 4, 5, 3).reshape(dims, dims)[model.network.order][:, model.network.order]
    assert not jacobian.triu().any()
    assert jacobian[torch.ones(dims, dims).tril(-1).bool()].all()


def test_a_random_order_is_kept_with_the_weights() -> None:
    model = NADE(4, 1, 3, ordering="random", ordering_seed=1)
    assert torch.equal(model.network.order.sort().values, torch.arange(16))
    other = NADE(4, 1, 3, ordering="random", ordering_seed=2)
    assert not torch.equal(model.network.order, other.network.order)
    other.load_state_dict(model.state_dict())
    x = images(3, 4).float()
    assert torch.equal(model.log_prob(x), other.log_prob(x))


# Probabilities --------------------------------------------------------------------------------------------------------


@every_binary
def test_probabilities_of_all_images_sum_to_one(form: str) -> None:
    model = wild(NADE(2, 1, 5, **FORMS[form]))
    assert abs(float(model.log_prob(all_images(2)).exp().sum()) - 1) < 1e-6
    assert torch.allclose(model.bits_per_dim(all_images(2)) * 4 * math.log(2), -model.log_prob(all_images(2)))


def test_conditional_densities_integrate_to_one() -> None:
    model = wild(NADE(2, 1, 5, likelihood="gaussian_mixture", components=3), 0.5)
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


def test_each_order_of_the_orderless_model_is_a_distribution_and_so_is_the_ensemble() -> None:
    model = wild(OrderlessNADE(2, 1, (5, 4)))
    x = all_images(2)
    for order in itertools.permutations(range(4)):
        assert abs(model.log_likelihood(x, torch.tensor(order)).exp().sum().item() - 1) < 1e-6
    each = torch.stack([model.log_likelihood(x, model.order(3, k)) for k in range(5)])
    assert torch.allclose(model.log_prob(x, num_orderings=5, seed=3), each.exp().mean(0).log())
    assert not torch.allclose(each[0], each[1])


def test_an_order_equals_the_network_run_once_per_value(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = wild(OrderlessNADE(3, 2, (5, 4))), images(4, 3, 2)
    values, order = model.values(x), model.order(0, 0)
    expected, known = torch.zeros(4, dtype=torch.float64), torch.zeros_like(values)
    for i in order.tolist():
        logits = model.network(values, known)[:, i]
        expected -= F.binary_cross_entropy_with_logits(logits, values[:, i], reduction="none")
        known[:, i] = 1
    for rows in (1, 12, 4096):
        monkeypatch.setattr("zoo.orderless_nade.ROWS", rows)
        assert torch.allclose(model.log_likelihood(x, order), expected, atol=1e-10)
    assert torch.equal(model.images(values), x)


def test_the_orderless_objective_is_an_unbiased_estimate() -> None:
    model, x = wild(OrderlessNADE(2, 1, (5, 4))), images(3, 2)
    orders = list(itertools.permutations(range(4)))
    exact = -torch.stack([model.log_likelihood(x, torch.tensor(order)) for order in orders]).mean(0)
    total = torch.zeros(3, dtype=torch.float64)
    for order, size in itertools.product(orders, range(4)):
        known = torch.zeros(3, 4, dtype=torch.bool)
        known[:, list(order[:size])] = True
        total += model.estimate(model.values(x), known)
    assert torch.allclose(total / (4 * len(orders)), exact)


def test_all_subsets_of_a_size_are_equally_likely() -> None:
    model = OrderlessNADE(2, 1, (3,))
    size = torch.arange(4).repeat(6000)[:, None]
    known = model.subsets(size)
    assert torch.equal(known.sum(1), size[:, 0])
    for d in range(4):
        counts = torch.bincount((known[d::4].long() * torch.tensor([1, 2, 4, 8])).sum(1), minlength=16)
        counts = counts[counts > 0]
        assert len(counts) == math.comb(4, d)
        assert (counts * len(counts) / 6000 - 1).abs().max() < 0.08


# Sampling -------------------------------------------------------------------------------------------------------------


@every_form
def test_the_cached_sampler_draws_what_the_naive_one_draws(form: str) -> None:
    model = wild(NADE(4, 2, 10, **FORMS[form]), 0.5)
    assert_near(*(model.sample(6, seed=1, naive=naive) for naive in (False, True)))


def test_the_orderless_cached_sampler_draws_what_the_naive_one_draws() -> None:
    model = wild(OrderlessNADE(4, 2, (10, 8)), 0.5)
    assert torch.equal(*(model.sample(6, seed=1, naive=naive) for naive in (False, True)))


@pytest.mark.parametrize("kind", ["nade", "random", "orderless"])
def test_samples_are_as_frequent_as_they_are_likely(kind: str) -> None:
    orderless = OrderlessNADE(2, 1, (5, 4))
    model = wild(
        orderless if kind == "orderless" else NADE(2, 1, 5, ordering="random" if kind == "random" else "raster")
    )
    x = all_images(2)
    expected = model.log_prob(x).exp()
    if kind == "orderless":  # each sample has an order of its own: the mixture of all
        orders = itertools.permutations(range(4))
        expected = torch.stack([model.log_likelihood(x, torch.tensor(o)).exp() for o in orders]).mean(0)
    drawn = model.sample(40_000, seed=0).flatten(1).gt(0).long() @ torch.tensor([8, 4, 2, 1])
    assert (torch.bincount(drawn, minlength=16) / 40_000 - expected).abs().max() < 0.01


@pytest.mark.parametrize("temperature", [1.0, 0.25])
def test_draws_of_a_mixture_have_its_moments(temperature: float) -> None:
    model = NADE(2, 1, 3, likelihood="gaussian_mixture", components=2).double()
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


@pytest.mark.parametrize("make", [NADE, OrderlessNADE])
def test_a_prefix_is_kept_and_the_rest_follows_the_conditional(make: Any) -> None:
    model = wild(make(2, 1, 5 if make is NADE else (5, 4)))
    x = all_images(2)
    prefix = torch.tensor([[[[1.0, -1.0]]]])
    done = model.sample(40_000, seed=0, prefix=prefix)
    assert torch.equal(done[:, :, :1], prefix.double().expand(40_000, -1, -1, -1))
    fits = (x[:, 0, 0] == prefix[0, 0, 0]).all(1)
    if make is NADE:
        joint = model.log_prob(x[fits]).exp()
        expected = joint / joint.sum()
    else:  # the given values first; the rest in each of their orders
        order = [torch.tensor([0, 1, *rest]) for rest in ((2, 3), (3, 2))]
        joint = torch.stack([model.log_likelihood(x[fits], o).exp() for o in order])
        expected = (joint / joint.sum(1, keepdim=True)).mean(0)
    found = torch.bincount(done[:, 0, 1].gt(0).long() @ torch.tensor([2, 1]), minlength=4) / 40_000
    assert (found - expected).abs().max() < 0.01
    assert torch.equal(model.sample(3, seed=0, prefix=x[:3]), x[:3])


def test_the_orderless_model_completes_any_part() -> None:
    model, x = wild(OrderlessNADE(4, 1, (6,))), images(5, 4)
    known = torch.zeros(4, 4, dtype=torch.bool)
    known[1:3, :2] = True
    one, other = (model.complete(x, known, seed=seed) for seed in (0, 1))
    assert torch.equal(one[:, :, 1:3, :2], x[:, :, 1:3, :2])
    assert not torch.equal(one, other)
    part = torch.cat([model.complete(x[:2], known, seed=0), model.complete(x[2:], known, seed=0, first=2)])
    assert torch.equal(one, part)
    assert torch.equal(one, model.complete(x, known, seed=0, naive=True))


@pytest.mark.parametrize("make", [NADE, OrderlessNADE])
def test_a_low_temperature_takes_the_likelier_value(make: Any) -> None:
    model = wild(make(4, 1, 6 if make is NADE else (6,)))
    assert len(model.sample(20, seed=0).unique(dim=0)) > 5
    cold = model.sample(20, seed=0, temperature=1e-6)
    if make is NADE:
        assert len(cold.unique(dim=0)) == 1


# Training and errors --------------------------------------------------------------------------------------------------


def test_validation_of_the_orderless_model_is_exact() -> None:
    batch = TestOrderlessNADE().batch(4)
    data = Data([batch])
    data.val_dataloader = data.train_dataloader  # type: ignore[method-assign]
    model = OrderlessNADE(8, 1, (6,), val_orderings=2)
    logged = trainer().validate(model, datamodule=data, verbose=False)[0]
    assert logged["val/nats"] == pytest.approx(-model.log_prob(batch["image"], 2).mean().item(), rel=1e-5)
    model = OrderlessNADE(8, 1, (6,), val_orderings=0)
    logged = trainer().validate(model, datamodule=data, verbose=False)[0]
    assert logged["val/nats"] == pytest.approx(model.objective(batch)["nats"].item(), rel=1e-5)


def test_likelihoods_are_in_full_precision_under_autocast() -> None:
    x = TestNADE().batch(4)["image"]
    for model in (NADE(8), OrderlessNADE(8, 1, (20, 20))):
        expected = model.log_prob(x)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(model.log_prob(x), expected)


def test_one_line_says_what_is_wrong() -> None:
    for make, options, message in (
        (NADE, {"ordering": "spiral"}, "ordering must be 'raster' or 'random', not 'spiral'"),
        (NADE, {"likelihood": "poisson"}, "likelihood must be"),
        (NADE, {"nonlinearity": "tanh"}, "nonlinearity must be"),
        (NADE, {"components": 0}, "components must be at least 1"),
        (NADE, {"optimizer": "lbfgs"}, "optimizer must be"),
        (NADE, {"likelihood": "gaussian_mixture", "tied": True}, "tied weights need one output"),
        (OrderlessNADE, {"hidden_features": ()}, "at least one layer"),
        (OrderlessNADE, {"val_orderings": -1}, "val_orderings must be at least 0"),
    ):
        with pytest.raises(ValueError, match=message):
            make(4, 1, **{"hidden_features": (3,) if make is OrderlessNADE else 3} | options)  # type: ignore[operator]
    with pytest.raises(ValueError, match="prefix needs ordering='raster'"):
        NADE(4, 1, 3, ordering="random").sample(2, prefix=torch.ones(1, 1, 2, 4))
    with pytest.raises(ValueError, match="num_orderings must be at least 1"):
        OrderlessNADE(4, 1, (3,)).log_prob(images(1, 4).float(), num_orderings=0)
    for model in (NADE(4, 1, 3), OrderlessNADE(4, 1, (3,))):
        with pytest.raises(ValueError, match="temperature must be positive"):
            model.sample(2, temperature=0.0)
        with pytest.raises(ValueError, match="has no condition 'label'"):
            model.sample(2, label=1)
