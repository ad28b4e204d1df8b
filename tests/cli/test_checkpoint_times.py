"""When a run writes its checkpoint."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from zoo.cli import reporting
from zoo.cli.reporting import RunCheckpoint


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, to be changed."""
    now = [1000.0]
    monkeypatch.setattr(reporting.time, "monotonic", lambda: now[0])
    return now


def at(step: int, world: int, saved: list[int]) -> Any:
    """A Trainer at a step, and where it notes that it saves."""
    strategy = SimpleNamespace(broadcast=lambda value: value)
    save = lambda *_, **__: saved.append(step)  # noqa: E731
    return SimpleNamespace(global_step=step, world_size=world, strategy=strategy, save_checkpoint=save)


@pytest.mark.parametrize(
    ("every", "step", "seconds", "world", "due"),
    [
        (None, 250, 29, 1, False),
        (None, 250, 31, 1, True),
        (None, 251, 31, 1, False),
        (None, 251, 601, 1, True),
        (None, 251, 601, 2, False),
        (None, 500, 31, 2, True),
        (3, 6, 0, 1, True),
        (3, 7, 900, 1, False),
    ],
)
def test_by_steps_and_by_time(
    every: int | None, step: int, seconds: int, world: int, due: bool, tmp_path: Path, now: list[float]
) -> None:
    saved: list[int] = []
    summary: Any = SimpleNamespace(go_on=lambda: None)
    callback = RunCheckpoint(tmp_path, every, summary, {})
    now[0] += seconds
    callback.on_boundary(at(step, world, saved), Any)  # type: ignore[arg-type]
    assert saved == [step] * due


def test_each_checkpoint_starts_the_clock_anew(tmp_path: Path, now: list[float]) -> None:
    saved: list[int] = []
    summary: Any = SimpleNamespace(go_on=lambda: None)
    callback = RunCheckpoint(tmp_path, None, summary, {})
    for step in (250, 500, 750):
        now[0] += 20
        callback.on_boundary(at(step, 1, saved), Any)  # type: ignore[arg-type]
    assert saved == [500]
