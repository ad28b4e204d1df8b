"""Tests of a GPU: `pytest -m cuda -n 8 --dist worksteal tests/gpu`; `--device cpu` runs the same tests on the CPU."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from tests import contract

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it deterministic algorithms refuse every product


@pytest.fixture
def device(request: pytest.FixtureRequest) -> torch.device:
    """Where the test runs."""
    return torch.device(request.config.getoption("--device"))


@pytest.fixture(autouse=True)
def _trainers_on_the_device(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    if device.type == "cuda" and not torch.cuda.is_available():
        pytest.skip("there is no GPU, or it is hidden: `pytest -m cuda` shows it")
    monkeypatch.setattr(contract, "ACCELERATOR", "gpu" if device.type == "cuda" else "cpu")


@pytest.fixture
def exact() -> Iterator[None]:
    """float32 as it is, not as TF32, so that a GPU's numbers can be compared with a CPU's."""
    convolutions, products = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    torch.backends.cudnn.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")
    yield
    torch.backends.cudnn.allow_tf32 = convolutions
    torch.set_float32_matmul_precision(products)


@pytest.fixture
def deterministic() -> Iterator[None]:
    """Only algorithms that give the same bits at each call; an operation that has none raises."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What the tests measured: the largest number of all cases, and the cases of each word."""
    measured: dict[str, dict[str, Any]] = {}
    for report in (report for reports in terminalreporter.stats.values() for report in reports):
        if isinstance(report, pytest.TestReport) and report.when == "call":
            test, _, case = report.nodeid.partition("::")[2].partition("[")
            for name, value in report.user_properties:
                measured.setdefault(f"{test}: {name}", {})[case.removesuffix("]")] = value
    if measured:
        terminalreporter.section("measured")
    for name, cases in sorted(measured.items()):
        numbers = {case: value for case, value in cases.items() if not isinstance(value, str)}
        for case in sorted(numbers, key=lambda case: -numbers[case])[:3]:
            terminalreporter.write_line(f"{name}: {numbers[case]:.2g} {case}")
        for word in sorted({value for value in cases.values() if isinstance(value, str)}):
            terminalreporter.write_line(
                f"{name}: {word}: {', '.join(c for c, value in cases.items() if value == word)}"
            )
