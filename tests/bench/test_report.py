"""`zoo bench report`: which values share a column, what is marked, and what is missing."""

from __future__ import annotations

import json
import math
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.bench.folders import column, protocol, report, write_run, write_suite
from zoo.bench.words import budget
from zoo.callbacks.measures import MEASURES

DYNAMIC = "real=mnist28-dynamic-train-5000, fake=5000, weights=raw"
EMA = "real=mnist28-train-5000, fake=5000, weights=ema"


def test_mean_and_deviation_over_seeds() -> None:
    write_suite(Path("runs/bench/digits"), {"dcgan": [10.0, 12.0, 14.0], "vae": [30.0, 33.0, 36.0]})
    board, text, page = report("digits")
    cell = column(board["tables"][0], "fd")["dcgan"]
    assert cell["mean"] == 12
    assert cell["deviation"] == pytest.approx(2)
    assert (cell["seeds"], cell["values"]) == ([0, 1, 2], [10, 12, 14])
    assert "**12.0 ± 2.0**" in text
    assert "| 33.0 ± 3.0 |" in text
    shown = page["tables"][0]["rows"][0]["cells"][protocol("fd").replace(", weights=raw", "")]
    assert (shown["text"], shown["deviation"], shown["best"]) == ("12.0", "2.0", True)
    assert "10 minutes of training for each run" in text


@pytest.mark.parametrize(
    ("entries", "best"),
    [
        ({"a": [10.0, 12.0], "b": [30.0, 33.0], "c": [50.0, 51.0]}, "a"),
        ({"a": [10.0, 20.0], "b": [12.0, 22.0]}, None),  # within the deviations
        ({"a": [10.0], "b": [90.0]}, None),  # one seed says nothing about chance
        ({"a": [10.0, 10.1], "b": [90.0]}, None),
        ({"a": [10.0, 10.1]}, None),
        ({"a": [math.nan, 1.0], "b": [10.0, 10.1], "c": [90.0, 90.1]}, "b"),
    ],
)
def test_the_best_is_marked_only_beyond_deviations(entries: dict[str, Any], best: str | None) -> None:
    write_suite(Path("runs/bench/digits"), entries)
    board, _, _ = report("digits")
    marked = [name for name, cell in column(board["tables"][0], "fd").items() if cell.get("best")]
    assert marked == ([best] if best else [])


def test_higher_is_better_where_the_metric_says_so() -> None:
    values: list[list[dict[str, Any]]] = [
        [{"precision": 0.5 + s / 100, "authenticity": v / 10, "mine": (v, "mine[x=1]")} for s in (0, 1)]
        for v in (1.0, 9.0)
    ]
    values[1][0]["precision"] = values[1][1]["precision"] = 0.9
    write_suite(Path("runs/bench/digits"), {"a": values[0], "b": values[1]})
    table = report("digits")[0]["tables"][0]
    assert [name for name, cell in column(table, "precision").items() if cell.get("best")] == ["b"]
    assert not any(cell.get("best") for cell in column(table, "authenticity").values()), "noise has most of it"
    # Nobody has said which way a user's own measure goes.
    assert not any(cell.get("best") for cell in column(table, "mine").values())


def test_the_measure_of_a_suite_tells_which_side_is_better(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "from zoo.callbacks.base import Samples\nfrom zoo.callbacks.measures import measure\n"
    (here / "digits_measures.py").write_text(
        f'{text}@measure(needs=Samples, better="higher")\ndef roundness(at):\n    """How round."""\n'
    )
    monkeypatch.setattr("sys.path", [str(here), *sys.path])
    values = [[{"roundness": (v + s / 10, "roundness[x=1]")} for s in (0, 1)] for v in (1.0, 9.0)]
    suite = write_suite(Path("runs/bench/digits"), {"a": values[0], "b": values[1]})
    with open(suite / "suite.yaml", "a") as file:
        file.write("measures: [nll, {measure: digits_measures.roundness}, no_module.missing]\n")
    try:
        cells = column(report("digits")[0]["tables"][0], "roundness")
    finally:
        MEASURES.pop("roundness", None)
    assert [name for name, cell in cells.items() if cell.get("best")] == ["b"]


def test_protocols_never_share_a_column() -> None:
    dynamic = {"fd": (5.0, protocol("fd", DYNAMIC)), "nll": (80.0, "nll[test=digits, weights=raw]")}
    entries = {
        "gan": [{"fd": 40.0, "precision": 0.5}],
        "vae": [dynamic],
        "dcgan": [{"fd": (20.0, protocol("fd", EMA)), "precision": (0.6, protocol("precision", EMA))}],
        "nade": [{"nll": (90.0, "nll[test=digits, weights=raw]")}],
    }
    write_suite(Path("runs/bench/digits"), entries)
    board, text, _ = report("digits")
    assert [[row["entry"] for row in table["rows"]] for table in board["tables"]] == [["dcgan", "gan"], ["vae", "nade"]]
    assert [row["weights"] for row in board["tables"][0]["rows"]] == ["ema", "raw"]
    for metric, shown in (("real=mnist28-train-5000", 2), ("real=mnist28-dynamic-train-5000", 2)):
        assert text.count(metric) == shown  # as the table's title, and in its protocol
    assert "fd, precision: features=classifier-mnist28" in text
    assert "precision also k=3" in text
    for table in board["tables"]:
        keys = [c["key"] for c in table["columns"]]
        assert len(keys) == len(set(keys))


def test_two_protocols_of_one_metric_are_two_columns() -> None:
    both = {"fd": 10.0, "fd 2": (70.0, protocol("fd", "real=mnist28-test-100, fake=100, weights=raw"))}
    write_suite(Path("runs/bench/digits"), {"a": [both], "b": [{"fd": 20.0}]})
    board, text, _ = report("digits")
    assert "| fd (1) ↓ | fd (2) ↓ |" in text
    assert "| b | 20.0 |  |" in text
    assert len(board["tables"]) == 1


def test_not_measured_is_empty() -> None:
    write_suite(Path("runs/bench/digits"), {"a": [{"fd": 0.0, "kd": 0.5}], "b": [{"fd": 3.0}]})
    board, text, page = report("digits")
    assert "b" not in column(board["tables"][0], "kd")
    assert re.search(r"\| b \| 3\.00 \|  \|", text)
    assert not any(key.startswith("kd") for key in page["tables"][0]["rows"][1]["cells"])
    assert page["tables"][0]["rows"][0]["cells"][protocol("fd").replace(", weights=raw", "")]["text"] == "0.0000"


def test_costs_and_parameters() -> None:
    suite = write_suite(Path("runs/bench/digits"), {"a": [10.0, 12.0]})
    content = json.loads((suite / "a-0" / "run.json").read_text())
    speed = {"value": 400.0, "protocol": "sampling_speed[batch=64, device=cpu, threads=1]"}
    content |= {"values": content["values"] | {"sampling_speed": speed}}
    (suite / "flops.json").write_text('{"a": 3500000.0}')
    (suite / "a-0" / "run.json").write_text(json.dumps(content))
    board, text, _ = report("digits")
    table = board["tables"][0]
    assert column(table, "parameters")["a"]["mean"] == 1_500_000  # the average of the generator is no further network
    assert column(table, "training_seconds")["a"]["mean"] == 64.5
    assert column(table, "flops_per_image")["a"]["mean"] == 3_500_000
    heads = text.splitlines()[6]
    order = ["fd", "train img/s", "sampling img/s", "seconds", "images", "peak MiB", "parameters", "MFLOP/img"]
    assert re.sub(" [↑↓]", "", heads) == f"| entry | {' | '.join(order)} | seeds |"
    assert "| 100 ± 1 | 400 | 64.5 ± 0.7 | 6.4 k | 512 | 1.50 M | 3.50 | 2 |" in text


@pytest.mark.parametrize(
    ("name", "number", "said"),
    [
        ("minutes", 10, "10 minutes"),
        ("minutes", 1, "1 minute"),
        ("images", 100000, "100,000 images"),
        ("flops", 1, "1 FLOPs"),
    ],
)
def test_the_budget_in_words(name: str, number: float, said: str) -> None:
    assert budget({"budget": {name: number}}) == f"{said} of training for each run"


@pytest.mark.parametrize(
    ("limit", "marked", "said"),
    [
        ({"images": 6400}, ["fd"], "costs and speeds are not marked."),
        ({"minutes": 10}, [], "no value is marked, because the same minutes are more training on a faster one."),
    ],
)
def test_what_depends_on_the_machine_is_not_marked_over_two(
    limit: dict[str, int], marked: list[str], said: str
) -> None:
    folder = Path("runs/bench/digits")
    write_suite(folder, {"a": [10.0, 11.0], "b": [90.0, 91.0]})
    suite = yaml.safe_load((folder / "suite.yaml").read_text()) | {"budget": limit}
    (folder / "suite.yaml").write_text(yaml.safe_dump(suite))
    speed = "sampling_speed[batch=64, threads=1]"
    for name, rate in (("a", 900.0), ("b", 10.0)):
        for seed in (0, 1):
            file = folder / f"{name}-{seed}" / "run.json"
            content = json.loads(file.read_text()) | {"training_images_per_second": rate + seed}
            content["values"]["sampling_speed"] = {"value": rate + seed, "protocol": speed}
            file.write_text(json.dumps(content))

    def best() -> list[str]:
        table = board["tables"][0]
        names = [c.get("metric", c.get("cost")) for c in table["columns"]]
        return [name for name in names if any(cell.get("best") for cell in column(table, name).values())]

    board, text, page = report("digits")
    assert best() == ["fd", "training_images_per_second", "sampling_speed"]
    assert "several machines" not in text + page["rule"]
    for seed in (0, 1):
        file = folder / f"a-{seed}" / "run.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"hardware": "GPU"}))
    board, text, page = report("digits")
    assert best() == marked
    assert "hardware: GPU (a); 2 CPU cores (x86\\_64) (b)" in text
    for shown in (text, page["rule"]):
        assert f"In a table with runs of several machines {said}" in shown


def test_of_an_entry_that_differs_the_seeds_are_named() -> None:
    folder = Path("runs/bench/digits")
    write_suite(folder, {"a": [10.0, 11.0, 12.0], "b": [10.0, 11.0, 12.0], "c": [9.0]})
    for name, commit in (("a-0", "one"), ("b-0", "one"), ("c-0", "one")):
        file = folder / name / "run.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"commit": commit, "precision": commit}))
    for name in ("a-2", "b-2"):
        file = folder / name / "run.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"hardware": "GPU"}))
    text = report("digits")[1]
    assert "commit: one (seed 0 of a, b; c); 0123abc (seeds 1, 2 of a, b)" in text
    assert "hardware: 2 CPU cores (x86\\_64) (seeds 0, 1 of a, b; c); GPU (seed 2 of a, b)" in text
    shutil.rmtree(folder / "c-0")
    assert "commit: one (seed 0 of all entries); 0123abc (seeds 1, 2 of all entries)" in report("digits")[1]


def test_unfinished_runs_are_named_and_do_not_count() -> None:
    suite = write_suite(Path("runs/bench/digits"), {"a": [10.0, None, 12.0], "b": [9.0, 10.0], "c": [None]})
    run = suite / "b-0" / "run.json"
    run.write_text(run.read_text().replace("0123abc", f"{'0123456789' * 4}+"))
    (suite / "a-1.log").write_text("step 5\rstep 6\n\x1b[31mzoo: error: the disk is full\x1b[0m\n\n")
    (suite / "c-0.log").write_text("training <b>\n")
    board, text, page = report("digits")
    assert column(board["tables"][0], "fd")["a"]["seeds"] == [0, 2]
    assert page["unfinished"] == [
        "a, seed 1: failed: zoo: error: the disk is full",
        "b, seed 2: not begun",
        "c, seed 0: unfinished: training <b>",
        "c, seeds 1, 2: not begun",
    ]
    assert "- a, seed 1: failed: zoo: error: the disk is full" in text
    assert "commit: 0123abc (a; seed 1 of b); 0123456789+ (seed 0 of b)" in text
    assert {row["entry"] for row in board["tables"][0]["rows"]} == {"a", "b"}


def test_runs_that_differ_in_the_seed_alone_are_one_entry() -> None:
    for name, seed, width in (
        ("p", 0, 32),
        ("q", 1, 32),
        ("r", 0, 64),
        ("s", 1, 64),
        ("alone", 0, 128),
        ("again", 0, 32),
    ):
        model = {"class_path": "zoo.DCGAN", "init_args": {"base_channels": width}}
        write_run(Path("x") / name, {"fd": 10.0 + seed}, seed=seed, settings={"model": model})
    folders = [f"x/{name}" for name in ("p", "q", "r", "s", "alone", "again")]
    board, _, _ = report("--runs", *folders, "--out_dir", "out", folder="out")
    rows = {row["entry"]: row["seeds"] for row in board["tables"][0]["rows"]}
    # The same seed once more is no second seed.
    assert rows == {"DCGAN base_channels=32": [0, 1], "DCGAN base_channels=64": [0, 1], "alone": [0], "again": [0]}


def test_entries_of_earlier_commands_count_and_are_not_missed() -> None:
    suite = write_suite(Path("runs/bench/digits"), {"a": [10.0, 11.0]})
    write_run(suite / "earlier-0", {"fd": 30.0})
    for name in ("a", "earlier", "never"):  # as `zoo bench run` leaves them for each entry
        (suite / f"{name}.yaml").write_text("model: {}\n")
    board, _, page = report("digits")
    assert {row["entry"]: row["seeds"] for row in board["tables"][0]["rows"]} == {"a": [0, 1], "earlier": [0]}
    assert page["unfinished"] == []


def test_bad_input(fails: Callable[..., str]) -> None:
    assert "`zoo bench run` makes them" in fails("bench", "report", "digits")
    home = Path("runs/bench")
    write_suite(home / "digits", {"a": [None]})
    assert fails("bench", "report", "digti").endswith("did you mean 'digits'?")
    assert fails("bench", "report", "d").endswith("take one of digits")
    assert "none of the 1 runs of digits is finished: a, seed 0 is unfinished" in fails("bench", "report", "digits")
    (home / "digits" / "a-0" / "run.json").write_text('{"steps": ')
    assert "a-0/run.json cannot be read" in fails("bench", "report", "digits")
    (home / "digits" / "flops.json").write_text("{")
    assert "flops.json cannot be read" in fails("bench", "report", "digits")
    (home / "empty").mkdir()
    assert "empty holds no runs" in fails("bench", "report", "empty")
    (home / "empty" / "suite.yaml").write_text("entries: {a: {}}\nseeds: [0]\n")
    assert "empty holds no runs of its suite" in fails("bench", "report", "empty")
    (home / "empty" / "suite.yaml").write_text("entries: [")
    assert "suite.yaml cannot be read" in fails("bench", "report", "empty")
    assert "there is no run folder nowhere" in fails("bench", "report", "--runs", "nowhere")
    assert "runs is no run folder" in fails("bench", "report", "--runs", "runs")
    assert "give the name of a suite, or --runs" in fails("bench", "report")
    assert not list(home.glob("*/leaderboard.*"))
