from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from zoo.callbacks.metrics import FrechetMetric, gaussian_distance


def draw(n: int, d: int, seed: int = 0, shift: float = 0.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(d, d, generator=generator, dtype=torch.float64) * torch.logspace(0, -2, d, dtype=torch.float64)
    return torch.randn(n, d, generator=generator, dtype=torch.float64) @ mix.T + shift


def measure(real: torch.Tensor, fake: torch.Tensor) -> float:
    metric = FrechetMetric(real.shape[1])
    metric.update(real, real=True)
    metric.update(fake, real=False)
    return float(metric.compute())


def moments(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return x.mean(0), torch.cov(x.T)


def test_closed_form_of_two_gaussians() -> None:
    a, b = torch.tensor([1.0, 4.0, 9.0]).double(), torch.tensor([4.0, 1.0, 16.0]).double()
    turn, _ = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))
    m = torch.tensor([1.0, 2.0, 2.0]).double()
    value = gaussian_distance(m, turn @ a.diag() @ turn.T, 0 * m, turn @ b.diag() @ turn.T)
    assert value.item() == pytest.approx(9 + (1 + 1 + 1), rel=1e-12)


def test_closed_form_where_both_are_singular_in_different_directions() -> None:
    a = torch.tensor([1.0, 4.0, 0.0, 0.0, 9.0]).double()
    b = torch.tensor([0.0, 1.0, 0.0, 2.0, 9.0]).double()
    turn, _ = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64))
    zero = torch.zeros(5, dtype=torch.float64)
    value = gaussian_distance(zero, turn @ a.diag() @ turn.T, zero, turn @ b.diag() @ turn.T)
    assert value.item() == pytest.approx(1 + 1 + 0 + 2 + 0, rel=1e-10)
    assert gaussian_distance(zero, 0 * a.diag(), zero, b.diag()).item() == pytest.approx(12, rel=1e-12)


def test_a_decomposition_that_does_not_converge_has_another(monkeypatch: pytest.MonkeyPatch) -> None:
    a = torch.tensor([1.0, 4.0, 0.0, 9.0]).double().diag()
    b = torch.tensor([0.0, 1.0, 0.0, 4.0]).double().diag()
    zero = torch.zeros(4, dtype=torch.float64)
    expected = gaussian_distance(zero, a, zero, b).item()
    assert expected == pytest.approx(1 + 1 + 1)

    def gives_up(matrix: torch.Tensor) -> None:
        raise torch._C._LinAlgError("linalg.eigh: The algorithm failed to converge")

    monkeypatch.setattr(torch.linalg, "eigh", gives_up)
    assert gaussian_distance(zero, a, zero, b).item() == pytest.approx(expected, rel=1e-12)


def test_agrees_with_the_matrix_square_root_of_scipy() -> None:
    real, fake = draw(400, 40), draw(500, 40, seed=1, shift=0.1)
    (mean_a, cov_a), (mean_b, cov_b) = moments(real), moments(fake)
    root = np.real(np.trace(sqrtm((cov_a @ cov_b).numpy())))
    expected = float((mean_a - mean_b).square().sum() + cov_a.trace() + cov_b.trace() - 2 * root)
    assert measure(real, fake) == pytest.approx(expected, rel=1e-8)


def test_a_set_against_itself() -> None:
    real = draw(300, 50)
    assert measure(real, real) < 1e-3 * float(torch.cov(real.T).trace())
    assert measure(real, real) < 1e-9


def test_few_images_warn_and_agree_with_the_small_side_of_the_problem() -> None:
    real, fake = draw(20, 50), draw(30, 50, seed=1)
    with pytest.warns(UserWarning, match="20 images for 50 features"):
        value = measure(real, fake)
    # The nonzero eigenvalues of S1 S2 are those of a product of centred data matrices: no factorisation needed.
    a, b = (x - x.mean(0) for x in (real, fake))
    root = torch.linalg.matrix_norm(a @ b.T, "nuc") / np.sqrt(19 * 29)
    (mean_a, cov_a), (mean_b, cov_b) = moments(real), moments(fake)
    expected = (mean_a - mean_b).square().sum() + cov_a.trace() + cov_b.trace() - 2 * root
    assert value == pytest.approx(float(expected), rel=1e-8)


def test_dead_features_need_no_warning() -> None:
    real, fake = draw(300, 20), draw(300, 20, seed=1)
    expected = measure(real, fake)
    dead = torch.full((300, 3), 0.5, dtype=torch.float64)
    assert measure(torch.cat([real, dead], 1), torch.cat([fake, dead], 1)) == pytest.approx(expected, rel=1e-8)


def test_batches_do_not_matter() -> None:
    real, fake = draw(103, 8).float(), draw(103, 8, seed=1).float()
    metric = FrechetMetric(8)
    for part in real.split(7):
        metric.update(part, real=True)
    for part in fake.split(20):
        metric.update(part, real=False)
    assert metric.compute().item() == pytest.approx(measure(real, fake), rel=1e-12)


def test_states_stay_in_float64() -> None:
    metric = FrechetMetric(4).float().half()
    metric.update(torch.randn(9, 4), real=True)
    assert metric.real_outer.dtype == torch.float64


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (torch.zeros(3, 5), r"\(N, 4\), not \(3, 5\)"),
        (torch.full((3, 4), torch.nan), "generated images are not finite"),
    ],
)
def test_bad_features(features: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FrechetMetric(4).update(features, real=False)


def test_too_few_images() -> None:
    metric = FrechetMetric(4)
    metric.update(torch.randn(1, 4), real=True)
    with pytest.raises(ValueError, match="needs two real images, got 1"), pytest.warns(UserWarning, match="singular"):
        metric.compute()
