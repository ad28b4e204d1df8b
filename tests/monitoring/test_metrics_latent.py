"""Likelihood, codes, found classes and disentanglement: closed forms, and one value on any number of ranks."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.ranks import on_ranks
from zoo.callbacks.metrics.codes import ClassError, CodeAccuracy, fit_linear
from zoo.callbacks.metrics.disentanglement import BetaVAEMetric, mutual_information_gap
from zoo.callbacks.metrics.likelihood import LikelihoodBound, ParzenLogLikelihood

# Likelihood -----------------------------------------------------------------------------------------------------------


def linear_gaussian(num_samples: int, noise: float) -> tuple[Tensor, Tensor]:
    """Log weights of x = z + noise under a wrong q(z|x), and log p(x)."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(50, generator=generator, dtype=torch.float64) * math.sqrt(1 + noise**2)
    q = torch.distributions.Normal(0.5 * x, torch.full_like(x, noise))
    z = q.mean + q.stddev * torch.randn(num_samples, 50, generator=generator, dtype=torch.float64)
    normal = torch.distributions.Normal
    joint = normal(0.0, 1.0).log_prob(z.float()).double() + normal(z, noise).log_prob(x)
    exact = normal(torch.zeros_like(x), math.sqrt(1 + noise**2)).log_prob(x)
    return joint - q.log_prob(z), exact


def bound(kind: Any, parts: Iterable[Tensor]) -> dict[str, Tensor]:
    metric = LikelihoodBound(kind)
    for part in parts:
        metric.update(part)
    return metric.compute()


def test_importance_weights_converge_to_the_likelihood_from_below() -> None:
    gaps = {}
    for num_samples in (1, 10, 20_000):
        log_weights, exact = linear_gaussian(num_samples, 0.6)
        found = {name: bound(name, [log_weights])["value"] for name in ("elbo", "iw_nll")}
        assert found["iw_nll"] <= found["elbo"] + 1e-12
        gaps[num_samples] = {name: (value + exact.mean()).item() for name, value in found.items()}
    assert gaps[20_000]["iw_nll"] == pytest.approx(0, abs=5e-3)
    assert gaps[20_000]["elbo"] > 0.05  # q is not the posterior


def test_bounds_are_means_over_exactly_the_images() -> None:
    log_weights, _ = linear_gaussian(7, 0.6)
    found = bound("elbo", log_weights.split([20, 20, 10], 1))
    assert found["value"].item() == pytest.approx(-log_weights.mean().item(), abs=1e-12)
    assert found["error"].item() == pytest.approx(log_weights.mean(0).std().item() / math.sqrt(50), rel=1e-9)


def test_parzen_of_one_center_is_a_gaussian_density() -> None:
    metric = ParzenLogLikelihood()
    center = torch.rand(1, 1, 4, 4) * 2 - 1
    images = (center + 0.4 * torch.randn(300, 1, 4, 4)).float()
    metric.update(center, "centers")
    metric.update(images[:100], "val")
    metric.update(images[100:], "test")
    found = metric.compute()
    sigma = found["sigma"].item()
    # In [0, 1] the deviation is 0.2; of the ten values 0.215 is nearest.
    assert sigma == pytest.approx(10 ** (-6 / 9), rel=1e-6)
    density = torch.distributions.Normal((center.flatten() + 1) / 2, sigma)
    expected = density.log_prob((images[100:].flatten(1) + 1) / 2).sum(1)
    assert found["value"].item() == pytest.approx(expected.mean().item(), abs=1e-3)
    assert found["error"].item() == pytest.approx(expected.std().item() / math.sqrt(200), rel=1e-3)


def test_parzen_of_several_centers_is_their_mixture() -> None:
    metric = ParzenLogLikelihood()
    centers, images = torch.rand(5, 1, 2, 2) * 2 - 1, torch.rand(40, 1, 2, 2) * 2 - 1
    for part in centers.split(2):
        metric.update(part, "centers")
    metric.update(images, "val")
    metric.update(images, "test")
    found = metric.compute()
    parts = torch.distributions.Normal((centers.flatten(1).double() + 1) / 2, found["sigma"])
    logs = parts.log_prob((images.flatten(1).double()[:, None] + 1) / 2).sum(2)
    assert found["value"].item() == pytest.approx((logs.logsumexp(1) - math.log(5)).mean().item(), abs=1e-5)


# Codes ----------------------------------------------------------------------------------------------------------------


def heaps(n: int, classes: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    label = torch.arange(n) % classes
    centers = 5 * torch.randn(classes, 4, generator=generator)
    return centers[label] + 0.3 * torch.randn(n, 4, generator=generator), label


@pytest.mark.parametrize("kind", ["linear_probe", "knn"])
def test_separate_heaps_are_told_apart_and_noise_is_not(kind: Any) -> None:
    codes, label = heaps(300)
    metric = CodeAccuracy(kind)
    metric.update(codes[:200], label[:200], fit=True)
    metric.update(codes[200:], label[200:], fit=False)
    found = metric.compute()
    assert (found["value"], found["count"], found["error"]) == (100, 100, 0)
    assert found["chance"] == pytest.approx(34), "34 of 100 are of class 2"
    noise = CodeAccuracy(kind)
    noise.update(torch.randn(600, 4), torch.arange(600) % 3, fit=True)
    noise.update(torch.randn(600, 4), torch.arange(600) % 3, fit=False)
    assert 25 < noise.compute()["value"] < 42


def test_neighbors_vote_and_the_nearest_decides_a_tie() -> None:
    metric = CodeAccuracy("knn", neighbours=2)
    metric.update(torch.tensor([[0.0], [1.0], [10.0]]), torch.tensor([0, 1, 1]), fit=True)
    metric.update(torch.tensor([[0.2], [0.8], [9.0]]), torch.tensor([0, 1, 1]), fit=False)
    assert metric.compute()["value"] == 100


def test_logistic_regression_is_the_optimum() -> None:
    x, label = torch.randn(200, 3, dtype=torch.float64), torch.arange(200) % 2
    layer = fit_linear(x, label)
    weight, bias = layer.weight.clone().requires_grad_(), layer.bias.clone().requires_grad_()
    loss = torch.nn.functional.cross_entropy(x @ weight.T + bias, label) + 1e-4 * weight.square().sum()
    for gradient in torch.autograd.grad(loss, [weight, bias]):
        assert gradient.abs().max() < 1e-4


# Found classes --------------------------------------------------------------------------------------------------------


def test_permuted_labels_match_one_to_one() -> None:
    label = torch.arange(50) % 5
    found = torch.nn.functional.one_hot((label + 2) % 5, 5).float()
    for matching, error in (("none", 100.0), ("hungarian", 0.0)):
        metric = ClassError(matching)  # type: ignore[arg-type]
        metric.update(found, label)
        assert metric.compute()["value"] == error


def test_the_best_example_names_each_cluster() -> None:
    """Three clusters, two classes; by hand."""
    metric = ClassError("best_example")
    val = torch.tensor([[0.9, 0.05, 0.05], [0.6, 0.3, 0.1], [0.1, 0.8, 0.1], [0.0, 0.1, 0.9]])
    metric.update(val[:2], torch.tensor([1, 0]), naming=True)
    metric.update(val[2:], torch.tensor([0, 1]), naming=True, first=2)
    # Cluster 0 -> 1, cluster 1 -> 0, cluster 2 -> 1.
    test = torch.eye(3)[[0, 1, 2, 2]]
    metric.update(test, torch.tensor([1, 0, 1, 0]))
    found = metric.compute()
    assert (found["value"], found["chance"]) == (25, 50)
    assert found["error"] == pytest.approx(100 * math.sqrt(0.25 * 0.75 / 4))


def test_unknown_matching_is_named() -> None:
    with pytest.raises(ValueError, match="unknown matching 'best': take none, hungarian or best_example"):
        ClassError("best")  # type: ignore[arg-type]


# Disentanglement ------------------------------------------------------------------------------------------------------


def test_gap_of_a_perfect_code_of_a_mixed_one_and_of_noise() -> None:
    factors = torch.stack([torch.arange(6000) % 5, torch.arange(6000) // 5 % 4], 1)
    perfect = torch.cat([factors.float(), torch.rand(6000, 2)], 1)
    assert mutual_information_gap(perfect, factors).item() == pytest.approx(1, abs=0.02)
    turned = torch.stack([perfect[:, 0] + perfect[:, 1], perfect[:, 0] - perfect[:, 1]], 1)
    assert mutual_information_gap(turned, factors) < 0.3
    assert mutual_information_gap(torch.randn(6000, 4), factors).item() == pytest.approx(0, abs=0.02)


def test_shared_factor_is_read_off_a_perfect_code_and_not_off_noise() -> None:
    factor = torch.arange(300) % 3
    a, b = torch.rand(2, 300, 32, 3)
    shared = factor[:, None, None] == torch.arange(3)
    metric = BetaVAEMetric()
    metric.update(a, torch.where(shared, a, b), factor)
    assert metric.compute()["value"] == 100
    noise = BetaVAEMetric()
    noise.update(a, b, factor)
    assert noise.compute()["value"] < 60


# Ranks ----------------------------------------------------------------------------------------------------------------


def values(world: int) -> dict[str, float]:
    """All metrics of fixed data, in chunks of 10 that ranks take in turn; the last chunk is smaller."""
    import torch.distributed as dist

    rank = 0
    if world > 1:
        dist.init_process_group("gloo")
        rank = dist.get_rank()
    codes, label = heaps(95)
    log_weights, _ = linear_gaussian(5, 0.6)
    probabilities = (codes @ torch.randn(4, 6, generator=torch.Generator().manual_seed(2))).softmax(1)
    bounds, parzen, probe, knn = (
        LikelihoodBound("iw_nll"),
        ParzenLogLikelihood(),
        CodeAccuracy("linear_probe"),
        CodeAccuracy("knn"),
    )
    errors = [ClassError("hungarian"), ClassError("best_example")]
    beta = BetaVAEMetric()
    for first in range(10 * rank, 95, 10 * world):
        part = slice(first, first + 10)
        if first < 50:
            bounds.update(log_weights[:, part])
        images = codes[part].view(-1, 1, 2, 2).tanh()
        for kind in ("centers", "val", "test"):
            parzen.update(images + 0.01 * len(kind), kind)
        for metric in (probe, knn):
            metric.update(codes[part], label[part], fit=first < 60, first=first)
        for error in errors:
            error.update(
                probabilities[part], label[part], naming=error.matching == "best_example" and first < 40, first=first
            )
        beta.update(codes[part, None], codes.flip(0)[part, None], label[part], first=first)
    results = {"probe": probe, "knn": knn, "hungarian": errors[0], "best": errors[1], "beta": beta}
    results |= {"bounds": bounds, "parzen": parzen}
    return {f"{name}/{k}": float(v) for name, metric in results.items() for k, v in metric.compute().items()}


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 3])
def test_ranks_give_one_value(world: int) -> None:
    expected = values(1)
    for found in on_ranks(world, values, world):
        assert found == pytest.approx(expected, rel=1e-9)
