from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from tests.contract import Data, ModelContract, trainer
from tests.models.likelihood import LikelihoodContract, all_images, binary_images, wild
from zoo.orderless_nade import OrderlessNADE


class TestOrderlessNADE(LikelihoodContract, ModelContract):
    size = 8

    def tiny(self) -> OrderlessNADE:
        return OrderlessNADE(8, 1, (6, 5))

    def steps(self, model: Any) -> int:
        return 2


def test_counts() -> None:
    assert sum(p.numel() for p in OrderlessNADE().parameters()) == 1_427_784


def test_each_order_of_the_orderless_model_is_a_distribution_and_so_is_the_ensemble() -> None:
    model = wild(OrderlessNADE(2, 1, (5, 4)))
    x = all_images(2, 1, 2, 2)
    for order in itertools.permutations(range(4)):
        assert abs(model.log_likelihood(x, torch.tensor(order)).exp().sum().item() - 1) < 1e-6
    each = torch.stack([model.log_likelihood(x, model.order(3, k)) for k in range(5)])
    assert torch.allclose(model.log_prob(x, num_orderings=5, seed=3), each.exp().mean(0).log())
    assert not torch.allclose(each[0], each[1])


def test_an_order_equals_the_network_run_once_per_value(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = wild(OrderlessNADE(3, 2, (5, 4))), binary_images(4, 3, 2)
    values, order = model.values(x), model.order(0, 0)
    expected, known = torch.zeros(4, dtype=torch.float64), torch.zeros_like(values)
    for i in order.tolist():
        logits = model.network(values, known)[:, i]
        expected -= F.binary_cross_entropy_with_logits(logits, values[:, i], reduction="none")
        known[:, i] = 1
    for rows in (1, 12, 4096):
        monkeypatch.setattr("zoo.nn.orderless_nade.ROWS", rows)
        assert torch.allclose(model.log_likelihood(x, order), expected, atol=1e-10)
    assert torch.equal(model.images(values), x)


def test_the_orderless_objective_is_an_unbiased_estimate() -> None:
    model, x = wild(OrderlessNADE(2, 1, (5, 4))), binary_images(3, 2)
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


def test_the_cached_sampler_draws_what_the_naive_one_draws() -> None:
    model = wild(OrderlessNADE(4, 2, (10, 8)), 0.5)
    assert torch.equal(*(model.sample(6, seed=1, naive=naive) for naive in (False, True)))


def test_samples_are_as_frequent_as_they_are_likely() -> None:
    model, x = wild(OrderlessNADE(2, 1, (5, 4))), all_images(2, 1, 2, 2)
    orders = itertools.permutations(range(4))  # each sample has an order of its own: the mixture of all
    expected = torch.stack([model.log_likelihood(x, torch.tensor(o)).exp() for o in orders]).mean(0)
    drawn = model.sample(40_000, seed=0).flatten(1).gt(0).long() @ torch.tensor([8, 4, 2, 1])
    assert (torch.bincount(drawn, minlength=16) / 40_000 - expected).abs().max() < 0.01


def test_a_prefix_is_kept_and_the_rest_follows_the_conditional() -> None:
    model, x = wild(OrderlessNADE(2, 1, (5, 4))), all_images(2, 1, 2, 2)
    prefix = torch.tensor([[[[1.0, -1.0]]]])
    done = model.sample(40_000, seed=0, prefix=prefix)
    assert torch.equal(done[:, :, :1], prefix.double().expand(40_000, -1, -1, -1))
    fits = (x[:, 0, 0] == prefix[0, 0, 0]).all(1)
    orders = [torch.tensor([0, 1, *rest]) for rest in ((2, 3), (3, 2))]  # the given values first, the rest in any order
    joint = torch.stack([model.log_likelihood(x[fits], o).exp() for o in orders])
    expected = (joint / joint.sum(1, keepdim=True)).mean(0)
    found = torch.bincount(done[:, 0, 1].gt(0).long() @ torch.tensor([2, 1]), minlength=4) / 40_000
    assert (found - expected).abs().max() < 0.01
    assert torch.equal(model.sample(3, seed=0, prefix=x[:3]), x[:3])


def test_a_low_temperature_takes_the_likelier_value() -> None:
    model = wild(OrderlessNADE(2, 1, (6,)))
    cold = model.sample(200, seed=0, temperature=1e-6)
    assert len(model.sample(200, seed=0).unique(dim=0)) > len(cold.unique(dim=0))


def test_the_orderless_model_completes_any_part() -> None:
    model, x = wild(OrderlessNADE(4, 1, (6,))), binary_images(5, 4)
    known = torch.zeros(4, 4, dtype=torch.bool)
    known[1:3, :2] = True
    one, other = (model.complete(x, known, seed=seed) for seed in (0, 1))
    assert torch.equal(one[:, :, 1:3, :2], x[:, :, 1:3, :2])
    assert not torch.equal(one, other)
    part = torch.cat([model.complete(x[:2], known, seed=0), model.complete(x[2:], known, seed=0, first=2)])
    assert torch.equal(one, part)
    assert torch.equal(one, model.complete(x, known, seed=0, naive=True))


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
    model, x = OrderlessNADE(8, 1, (20, 20)), binary_images(4, 8).float()
    expected = model.log_prob(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model.log_prob(x), expected)


def test_one_line_says_what_is_wrong() -> None:
    with pytest.raises(ValueError, match=r"^hidden_features must name at least one layer$"):
        OrderlessNADE(4, 1, ())
    with pytest.raises(ValueError, match=r"^num_orderings must be at least 1, not 0$"):
        OrderlessNADE(4, 1, (3,)).log_prob(binary_images(1, 4).float(), num_orderings=0)
