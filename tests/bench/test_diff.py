"""`zoo bench diff`: what changed by more than its deviations, and what cannot be compared."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.bench.folders import protocol, write_suite
from tests.cli.parts import command


def reported(name: str, entries: dict[str, Any]) -> None:
    write_suite(Path(name), entries)
    assert command("bench", "report", name) == 0


def verdicts(capsys: pytest.CaptureFixture[str]) -> dict[tuple[str, str], dict[str, Any]]:
    """Rows of `zoo bench diff --json one two` by entry and value."""
    capsys.readouterr()
    assert command("bench", "diff", "one", "two/leaderboard.json", "--json") == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    return {(row["entry"], row["column"].get("metric") or row["column"]["cost"]): row for row in rows}


@pytest.mark.parametrize(
    ("metric", "before", "after", "verdict"),
    [
        ("fd", [10.0, 11.0], [20.0, 21.0], "WORSE"),
        ("precision", [0.10, 0.11], [0.20, 0.21], "BETTER"),
        ("fd", [10.0, 12.0], [11.0, 13.0], "within deviations"),
        ("fd", [10.0], [20.0, 21.0], "one seed"),
        ("fd", [10.0], [10.0], "equal"),
        ("fd", [float("nan"), 1.0], [1.0, 1.0], "not finite"),
        ("mine", [1.0, 1.1], [2.0, 2.1], "CHANGED"),
    ],
)
def test_a_change_counts_beyond_the_deviations(
    metric: str, before: list[float], after: list[float], verdict: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, values in (("one", before), ("two", after)):
        reported(name, {"a": [{metric: value} for value in values]})
    assert verdicts(capsys)["a", metric]["verdict"] == verdict


def test_other_protocols_are_named_not_compared(capsys: pytest.CaptureFixture[str]) -> None:
    other = protocol("fd", "real=mnist28-train-5000, fake=100, weights=raw")
    reported("one", {"a": [10.0, 11.0], "only_one": [1.0]})
    reported("two", {"a": [{"fd": (90.0, other)}, {"fd": (91.0, other)}], "only_two": [1.0]})
    row = verdicts(capsys)["a", "fd"]
    assert (row["verdict"], row["difference"]) == ("protocols differ", None)
    assert command("bench", "diff", "one", "two") == 0
    text = capsys.readouterr().out
    assert f"a fd: {protocol('fd')} and {other}" in text
    assert "only in first: only_one" in text
    assert "only in second: only_two" in text
    assert "2 √(a² + b²)" in text


def test_the_table_shows_costs_and_what_else_differs(capsys: pytest.CaptureFixture[str]) -> None:
    reported("one", {"a": [10.0, 11.0]})
    write_suite(Path("two"), {"a": [10.0, 11.0]})
    for seed in (0, 1):
        file = Path(f"two/a-{seed}/run.json")
        content = json.loads(file.read_text())
        file.write_text(json.dumps(content | {"training_images_per_second": 400.0 + seed, "commit": "fffffff"}))
    assert command("bench", "report", "two") == 0
    capsys.readouterr()
    assert command("bench", "diff", "one", "two") == 0
    lines = capsys.readouterr().out.splitlines()
    assert "commit differs: 0123abc | fffffff" in lines
    assert not any(line.startswith("hardware differs") for line in lines)
    assert [" ".join(line.split()) for line in lines if line.startswith("a ")] == [
        "a train img/s 100 ± 1 400 ± 1 +300 BETTER"
    ]
    assert "5 other values are equal" in lines


def test_bad_input(fails: Callable[..., str]) -> None:
    reported("one", {"a": [1.0]})
    assert "there is no nowhere: `zoo bench report` writes it" in fails("bench", "diff", "one", "nowhere")
    Path("two").mkdir()
    assert "there is no two/leaderboard.json" in fails("bench", "diff", "one", "two")
    for text in ('{"rows": []}', "[1]", "{"):
        Path("two/leaderboard.json").write_text(text)
        assert "two/leaderboard.json is no leaderboard" in fails("bench", "diff", "one", "two")
