"""Metrics of rows of features against their definitions, written out independently in numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.ranks import on_ranks
from zoo.callbacks.metrics import (
    Authenticity,
    ClassScore,
    DensityCoverage,
    FeatureBank,
    FrechetInfinity,
    FrechetMetric,
    KernelDistance,
    PrecisionRecall,
)
from zoo.callbacks.metrics.class_score import class_score
from zoo.callbacks.metrics.frechet import frechet_distance_of, frechet_infinity
from zoo.callbacks.metrics.kernel import kernel_distance
from zoo.callbacks.metrics.manifold import authenticity, density_coverage, manifold_metrics, precision_recall


def rows(n: int, d: int, seed: int, scale: float = 1.0, shift: float = 0.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=generator) * scale + shift


REAL, FAKE = rows(203, 8, 0, shift=3.0), rows(151, 8, 1, scale=0.9, shift=3.2)


def distances(x: Tensor, y: Tensor) -> Any:
    """All Euclidean distances, by differences."""
    return np.linalg.norm(x.double().numpy()[:, None] - y.double().numpy()[None], axis=2)


def radii(x: Tensor, k: int) -> Any:
    return np.sort(distances(x, x), axis=1)[:, k]  # the row itself is at 0


def by_definition(real: Tensor, fake: Tensor, k: int, k_density: int) -> dict[str, float]:
    """Improved precision and recall with <=, density and coverage with <, authenticity."""
    across, wide = distances(real, fake), radii(real, k_density)
    nearest = across.argmin(0)
    return {
        "precision": (across <= radii(real, k)[:, None]).any(0).mean(),
        "recall": (across <= radii(fake, k)).any(1).mean(),
        "density": (across < wide[:, None]).sum(0).mean() / k_density,
        "coverage": (across.min(1) < wide).mean(),
        "authenticity": (across.min(0) > radii(real, 1)[nearest]).mean(),
    }


@pytest.mark.parametrize("block", [7, 64, 2048])
@pytest.mark.parametrize(("k", "k_density"), [(3, 5), (1, 1)])
def test_manifold_metrics(monkeypatch: pytest.MonkeyPatch, block: int, k: int, k_density: int) -> None:
    monkeypatch.setattr("zoo.callbacks.metrics.manifold.BLOCK", block)
    found = manifold_metrics(REAL, FAKE, k=k, k_density=k_density)
    expected = by_definition(REAL, FAKE, k, k_density)
    assert {name: float(value) for name, value in found.items()} == pytest.approx(expected, rel=1e-12)
    assert 0.05 < expected["precision"] < 0.95  # so that a wrong radius would be seen
    assert 0.05 < expected["authenticity"] < 0.95


def test_single_metrics_are_those_of_one_pass() -> None:
    found = manifold_metrics(REAL, FAKE)
    assert precision_recall(REAL, FAKE) == (found["precision"], found["recall"])
    assert density_coverage(REAL, FAKE) == (found["density"], found["coverage"])
    assert authenticity(REAL, FAKE) == found["authenticity"]


def test_far_from_the_origin_near_neighbours_are_told_apart() -> None:
    # In float32 the squares here are 4e6 +- 0.25, and the distances' squares 0.08.
    x, y = rows(300, 4, 2, scale=0.1, shift=1000.0), rows(300, 4, 3, scale=0.1, shift=1000.0)
    found = manifold_metrics(x, y)
    assert {name: float(value) for name, value in found.items()} == pytest.approx(by_definition(x, y, 3, 5), rel=1e-12)


def test_two_equal_distributions_have_the_expected_values() -> None:
    # Naeem et al. 2020, section 3.3: density 1, coverage 1 - (M-1)...(M-k) / (M+N-1)...(M+N-k), in any space.
    m, n, k = 1500, 1000, 5
    expected = 1 - np.prod([(m - i) / (m + n - i) for i in range(1, k + 1)])
    for d in (2, 64):
        density, coverage = density_coverage(rows(m, d, 0), rows(n, d, 1))
        assert float(coverage) == pytest.approx(expected, abs=0.03)
        assert float(density) == pytest.approx(1, abs=0.1)


def test_copies_are_told() -> None:
    copies = REAL[:100] + 1e-7  # an extractor rounds differently in batches of other sizes
    assert authenticity(REAL, copies) == 0
    assert authenticity(torch.cat([REAL, REAL[:50]]), REAL[:50]) == 0  # of images that the data hold twice, too
    assert authenticity(REAL, rows(100, 8, 5, shift=9.0)) == 1


def test_one_repeated_image_has_no_recall_and_noise_no_precision() -> None:
    found = manifold_metrics(REAL, REAL[:1].expand(100, -1))
    assert found["precision"] == 1
    assert found["recall"] <= 1 / len(REAL)
    noise = manifold_metrics(REAL, rows(100, 8, 6, scale=20.0))
    assert noise["precision"] < 0.02
    assert noise["density"] < 0.02


def mmd(x: Any, y: Any) -> float:
    """Unbiased, of the kernel (x.y / d + 1)^3."""
    m, d = x.shape
    total = 0.0
    for i in range(m):
        total += sum(((x[i] @ x[j] / d + 1) ** 3 + (y[i] @ y[j] / d + 1) ** 3) for j in range(m) if j != i) / (
            m * (m - 1)
        )
        total -= 2 * sum((x[i] @ y[j] / d + 1) ** 3 for j in range(m)) / (m * m)
    return total


@pytest.mark.parametrize("strip", [7, 128])
def test_kernel_distance(monkeypatch: pytest.MonkeyPatch, strip: int) -> None:
    monkeypatch.setattr("zoo.callbacks.metrics.kernel.STRIP", strip)
    draws, values = np.random.RandomState(2020), []
    for _ in range(4):
        y = FAKE[draws.choice(len(FAKE), 30, replace=False)]
        x = REAL[draws.choice(len(REAL), 30, replace=False)]
        values.append(mmd(x.double().numpy(), y.double().numpy()))
    mean, deviation = kernel_distance(REAL, FAKE, subsets=4, subset_size=30)
    assert float(mean) == pytest.approx(np.mean(values), rel=1e-10)
    assert float(deviation) == pytest.approx(np.std(values), rel=1e-10)


def test_kernel_distance_has_no_bias() -> None:
    mean, deviation = kernel_distance(rows(4000, 8, 0), rows(4000, 8, 1), subsets=100, subset_size=100)
    assert abs(float(mean)) < 3 * float(deviation) / 40**0.5  # 40 subsets that do not overlap


@pytest.mark.parametrize("seed", [None, 2020])
def test_class_score(seed: int | None) -> None:
    logits = rows(103, 5, 0, scale=3.0)
    order = np.arange(103) if seed is None else np.random.RandomState(seed).permutation(103)
    p = np.exp(logits.double().numpy()[order])
    p /= p.sum(1, keepdims=True)
    parts = [p[i * 103 // 10 : (i + 1) * 103 // 10] for i in range(10)]
    scores = [np.exp(np.mean(np.sum(part * np.log(part / part.mean(0)), 1))) for part in parts]
    mean, deviation = class_score(logits, seed=seed)
    assert float(mean) == pytest.approx(np.mean(scores), rel=1e-12)
    assert float(deviation) == pytest.approx(np.std(scores), rel=1e-10)


def test_class_score_of_sure_and_of_unsure_logits() -> None:
    assert float(class_score(torch.eye(10).repeat(10, 1) * 1e4)[0]) == pytest.approx(10)
    assert float(class_score(torch.zeros(100, 10))[0]) == pytest.approx(1)


def test_frechet_distance_of_rows() -> None:
    metric = FrechetMetric(8)
    metric.update(REAL, real=True)
    metric.update(FAKE, real=False)
    assert float(frechet_distance_of(REAL, FAKE)) == pytest.approx(float(metric.compute()), rel=1e-10)


def test_frechet_infinity_has_less_bias() -> None:
    real, fake = rows(20_000, 24, 0), rows(600, 24, 1)  # the same distribution: 0 with infinitely many
    plain, (infinite, error) = frechet_distance_of(real, fake), frechet_infinity(real, fake, least=300)
    assert plain > 0.2
    assert abs(infinite) < plain / 4
    sizes = np.linspace(300, 600, 15).astype(int)
    draws, values = torch.Generator().manual_seed(0), []
    for size in sizes.tolist():
        values.append(float(frechet_distance_of(real, fake[torch.randperm(600, generator=draws)[:size]])))
    fit, covariance = np.polyfit(1 / sizes, values, 1, cov=True)
    assert float(infinite) == pytest.approx(fit[1], rel=1e-8)
    assert float(error) == pytest.approx(covariance[1, 1] ** 0.5, rel=1e-6)


METRICS = {
    "bank": (FeatureBank, {}),
    "kernel": (KernelDistance, {"subsets": 3, "subset_size": 20}),
    "precision": (PrecisionRecall, {}),
    "density": (DensityCoverage, {}),
    "authenticity": (Authenticity, {}),
    "score": (ClassScore, {}),
    "infinity": (FrechetInfinity, {"points": 3}),
}


def shares(rank: int, world: int) -> dict[str, Any]:
    """All metrics where chunks of 10 rows go to the ranks in turn, and all real rows to the last rank."""
    found: dict[str, Any] = {}
    for name, (kind, options) in METRICS.items():
        metric = kind(**options)
        for i, part in enumerate(FAKE.split(10)):
            if i % world == rank:
                metric.update(part, real=False, first=10 * i)
        if rank == world - 1:
            order = torch.randperm(len(REAL), generator=torch.Generator().manual_seed(1))
            metric.update(REAL[order[:77]], real=True, first=order[:77])
            metric.update(REAL[order[77:]], real=True, first=order[77:])
        found[name] = metric.compute()
    return found


def on_this_rank() -> dict[str, Any]:
    import torch.distributed as dist

    dist.init_process_group("gloo")
    return shares(dist.get_rank(), dist.get_world_size())


def test_one_process_has_the_functions_values() -> None:
    found = shares(0, 1)
    assert torch.equal(found["bank"][0], REAL)
    assert torch.equal(found["bank"][1], FAKE)
    assert found["precision"] == precision_recall(REAL, FAKE)
    assert found["density"] == density_coverage(REAL, FAKE)
    assert found["authenticity"] == authenticity(REAL, FAKE)
    assert found["kernel"] == kernel_distance(REAL, FAKE, subsets=3, subset_size=20)
    assert found["score"] == class_score(FAKE)
    assert found["infinity"] == frechet_infinity(REAL, FAKE, points=3)


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 3])
def test_ranks_give_the_values_of_one_process(world: int) -> None:
    expected = shares(0, 1)
    for found in on_ranks(world, on_this_rank):
        for name, value in expected.items():
            ones, others = ([x] if isinstance(x, Tensor) else list(x) for x in (value, found[name]))
            for one, other in zip(ones, others, strict=True):
                assert torch.equal(one, other), name


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: kernel_distance(REAL, FAKE), "subsets of 1000 needs as many real images, got 203"),
        (lambda: class_score(FAKE[:5]), "10 splits needs as many generated images, got 5"),
        (lambda: precision_recall(REAL[:3], FAKE), "3 nearest neighbours need 4 real images, got 3"),
        (lambda: density_coverage(REAL[:5], FAKE), "5 nearest neighbours need 6 real images, got 5"),
        (lambda: frechet_infinity(REAL, FAKE[:16]), "more than 8 images .* take 18 images"),
        (lambda: frechet_infinity(REAL, FAKE, points=2), "at least three subsets, not 2"),
        (lambda: FeatureBank().update(FAKE[0], real=True, first=0), r"must be \(N, d\), not \(8,\)"),
        (lambda: FeatureBank().update(FAKE / 0, real=True, first=0), "features of real images are not finite"),
    ],
)
def test_bad_input(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_images_that_come_twice_are_refused() -> None:
    bank = FeatureBank()
    bank.update(FAKE[:5], real=False, first=0)
    bank.update(FAKE[4:6], real=False, first=4)
    with pytest.raises(ValueError, match="generated image 4 was added twice"):
        bank.rows(real=False)
    assert bank.rows(real=True).shape == (0, 0)
