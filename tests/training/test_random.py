from __future__ import annotations

import ctypes
import math
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from scipy import stats
from torch import Tensor

from zoo.engine import keyed_kernels, rng


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


def test_the_kernels_of_a_gpu_are_the_same_arithmetic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their code, compiled for the CPU."""
    if (compiler := shutil.which("g++")) is None:
        pytest.skip("there is no g++")
    draws: list[Callable[[], Tensor]] = [
        lambda: rng.uniform((100, 257), 7, 3),
        lambda: rng.uniform((100, 257), 7, 3, low=0.1, high=0.7),
        lambda: rng.normal((100, 257), 7, 3),
        lambda: rng.integers(1000, (100, 257), 2**63 - 5, 2**40),
        lambda: rng.keep_mask((100, 257), 0.8, 7, 3),
    ]
    expected = [draw() for draw in draws]

    code = """
        #include <cmath>
        #include <cstring>
        using namespace std;
        static double __longlong_as_double(long long x) { double y; memcpy(&y, &x, 8); return y; }
        static long long __double_as_longlong(double x) { long long y; memcpy(&y, &x, 8); return y; }
        static float __fmul_rn(float a, float b) { return a * b; }
        static float __fadd_rn(float a, float b) { return a + b; }
    """
    for name in keyed_kernels.BODIES:
        count = keyed_kernels.BODIES[name][0].count(",")
        code += keyed_kernels.code(name)
        code += f'extern "C" void {name}(long long* x, long n, long long s, long long a, long long b) {{\n'
        code += f"for (long i = 0; i < n; i++) x[i] = keyed_{name}<long long>(x[i], s{', a, b'[: 3 * count]}); }}\n"
    (tmp_path / "draws.cpp").write_text(code)
    options = ["-O1", "-ffp-contract=off", "-shared", "-fPIC"]
    subprocess.run([compiler, *options, "-o", "draws.so", "draws.cpp"], cwd=tmp_path, check=True)
    library = ctypes.CDLL(str(tmp_path / "draws.so"))

    def kernel(name: str) -> Callable[..., Tensor]:
        def run(counter: Tensor, **options: int) -> Tensor:
            x, values = counter.clone(), [*options.values(), 0, 0][:3]
            getattr(library, name)(ctypes.c_void_p(x.data_ptr()), x.numel(), *map(ctypes.c_longlong, values))
            return x

        return run

    monkeypatch.setattr(rng, "kernels", lambda: {name: kernel(name) for name in keyed_kernels.BODIES})
    monkeypatch.setattr(rng, "_is_gpu", lambda device: True)
    for draw, values in zip(draws, expected, strict=True):
        assert torch.equal(draw(), values)


def test_a_device_without_float64_gets_the_numbers_of_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fake one, on which nothing is float64, and nothing is computed but the copy."""
    expected = rng.normal((3, 4), 7)
    monkeypatch.setattr(rng, "has_float64", lambda device: device is None or torch.device(device).type == "cpu")
    moved: list[Tensor] = []
    monkeypatch.setattr(rng, "upload", lambda x, device: moved.append(x) or x)
    rng.normal((3, 4), 7, device="mps")
    assert torch.equal(moved[0], expected)
    for draw in (rng.uniform, rng.ranks, lambda *args, **options: rng.integers(5, *args, **options)):
        draw((3, 4), 7, device="mps")
    rng.keep_mask((3, 4), 0.5, 7, device="mps")
    assert len(moved) == 5


def test_ranks_are_in_the_order_of_uniform_draws() -> None:
    drawn = rng.uniform((50, 9), 3, 2, dtype=torch.float64)
    assert torch.equal(rng.ranks((50, 9), 3, 2).double() / 2**53, drawn)
