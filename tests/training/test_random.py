from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from zoo.engine import rng


@pytest.mark.parametrize("draw", [rng.normal, rng.uniform])
def test_row_depends_on_key_and_global_index_only(draw: object) -> None:
    key = rng.key(0, "z", 17)
    whole = draw((10, 3, 2), key)  # type: ignore[operator]
    parts = torch.cat([draw((4, 3, 2), key), draw((6, 3, 2), key, 4)])  # type: ignore[operator]
    assert torch.equal(whole, parts)


def test_keys_differ_by_seed_purpose_and_step() -> None:
    keys = {rng.key(s, p, i) for s in range(3) for p in ("z", "mix") for i in range(100)}
    assert len(keys) == 600
    assert rng.key(1, "2/3") != rng.key(1, "2", "34")


def test_normal_is_normal() -> None:
    x = rng.normal((200_000,), rng.key(1, "test"), dtype=torch.float64)
    assert stats.kstest(x.numpy(), "norm").pvalue > 1e-3
    assert abs(x.mean()) < 4 / math.sqrt(len(x))
    assert torch.isfinite(x).all()


def test_uniform_is_uniform_on_its_interval() -> None:
    x = rng.uniform((200_000,), rng.key(2, "test"), low=-1.0, high=1.0)
    assert -1 <= x.min() < -0.999
    assert 0.999 < x.max() < 1
    assert stats.kstest(x.numpy(), stats.uniform(-1, 2).cdf).pvalue > 1e-3


def test_streams_of_neighboring_steps_are_uncorrelated() -> None:
    a, b = (rng.normal((50_000,), rng.key(0, "z", step), dtype=torch.float64) for step in (1, 2))
    assert abs(torch.corrcoef(torch.stack([a, b]))[0, 1]) < 0.02
    assert abs(torch.corrcoef(torch.stack([a[1:], a[:-1]]))[0, 1]) < 0.02


def test_integers_cover_their_range_evenly() -> None:
    counts = torch.bincount(rng.integers(7, (70_000,), rng.key(0, "label")), minlength=7)
    assert len(counts) == 7
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3


def test_run_seed_follows_seed_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    assert rng.run_seed() == 0
    monkeypatch.setenv("PL_GLOBAL_SEED", "5")
    assert rng.run_seed() == 5
