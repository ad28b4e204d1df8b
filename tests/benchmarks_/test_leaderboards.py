"""Suites' results are kept without weights, and the README shows them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from benchmarks import leaderboards
from tests.bench.folders import protocol, write_run
from zoo.bench.rows import read_suite

ROOT = Path(__file__).parents[2]


def suite_of(folder: Path, entries: dict[str, list[float]], *, first_seed: int = 0, minutes: int = 10) -> Path:
    """The folder of a suite's finished runs: by entry the fd of each seed."""
    folder.mkdir(parents=True)
    length = max(map(len, entries.values()))
    suite = {
        "description": "digits",
        "data": {"class_path": "MNIST", "init_args": {"data_dir": "/somewhere/of/mine"}},
        "budget": {"minutes": minutes},
        "seeds": list(range(first_seed, first_seed + length)),
        "entries": {name: {"recipe": f"{name}-mnist28-small"} for name in entries},
    }
    (folder / "suite.yaml").write_text(yaml.safe_dump(suite, sort_keys=False))
    (folder / "flops.json").write_text(json.dumps(dict.fromkeys(entries, 1e6)))
    along = {"step": 50, "fd": 400.0, "fd_protocol": protocol("fd"), "budget_seconds": 30, "budget_images": 3200}
    for name, values in entries.items():
        for seed, value in enumerate(values, first_seed):
            history = [{"step": 10, "loss_g": 0.7}, along, {"step": 100, "loss_g": 0.7}]
            run = folder / f"{name}-{seed}"
            write_run(run, {"fd": value, "precision": 0.5, "recall": 0.1}, seed=seed, history=history, grid=242)
            (run / "checkpoints").mkdir()
            (run / "checkpoints" / "last.ckpt").write_bytes(b"weights")
            run.with_name(f"{run.name}.log").write_text("Training in /somewhere/of/mine")
    return folder


def test_a_kept_suite_says_what_its_runs_say(tmp_path: Path) -> None:
    runs = suite_of(tmp_path / "runs" / "digits", {"gan": [300.0, 320.0], "vae": [200.0, 210.0]})
    kept = leaderboards.keep(runs, tmp_path / "kept")
    assert {path.name for path in kept.rglob("*") if path.is_file()} == {
        "suite.yaml", "flops.json", "run.json", "metrics.csv", "step-00000100.png",
    }  # fmt: skip
    assert "of/mine" not in "".join(path.read_text() for path in kept.rglob("*.*") if path.suffix != ".png")
    one, two = read_suite(runs), read_suite(kept)
    assert [run.facts for run in one.runs] == [run.facts for run in two.runs]
    assert [run.history for run in one.runs] == [run.history for run in two.runs]
    assert "loss_g" not in (kept / "gan-0" / "metrics.csv").read_text()
    leaderboards.write(kept)
    board = json.loads((kept / "leaderboard.json").read_text())
    assert [row["entry"] for row in board["tables"][0]["rows"]] == ["vae", "gan"]
    assert "| vae | **205.0 ± 7.1** |" in (kept / "leaderboard.md").read_text()
    with Image.open(kept / "leaderboard.png") as picture, Image.open(kept / "vae-0/samples/step-00000100.png") as grid:
        assert picture.height == 2 * (leaderboards.SIDE + leaderboards.GAP)
        first = np.asarray(picture.convert("RGB"))[:64, leaderboards.TEXT : leaderboards.TEXT + 64]
        image = grid.convert("RGB").crop((2, 2, 30, 30)).resize((64, 64), Image.Resampling.NEAREST)
        assert np.array_equal(first, np.asarray(image))
    text = leaderboards.section({"digits": board})
    assert "](benchmarks/leaderboards/digits/leaderboard.png)](benchmarks/leaderboards/digits/leaderboard.md)" in text
    assert "| data | entry | fd | precision | recall | train img/s | seeds |" in text
    assert "| mnist28 | vae | 205.0 ± 7.1 | 0.500 ± 0.000 | 0.100 ± 0.000 | 100 | 2 |" in text


def test_further_seeds_and_entries_join(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    leaderboards.keep(suite_of(tmp_path / "a" / "digits", {"gan": [300.0], "vae": [200.0]}), kept)
    leaderboards.keep(suite_of(tmp_path / "b" / "digits", {"vae": [210.0], "wae": [250.0]}, first_seed=1), kept)
    collection, board = leaderboards.read(kept / "digits")
    finished = [run.name for run in collection.runs if run.state == "finished"]
    assert finished == ["gan, seed 0", "vae, seed 0", "vae, seed 1", "wae, seed 1"]
    assert yaml.safe_load((kept / "digits" / "suite.yaml").read_text())["seeds"] == [0, 1]
    assert [len(row["seeds"]) for row in board["tables"][0]["rows"]] == [2, 1, 1]


def test_what_is_not_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = tmp_path / "kept"
    leaderboards.keep(suite_of(tmp_path / "a" / "digits", {"gan": [300.0]}), kept)
    with pytest.raises(ValueError, match=r"budget is \{'minutes': 5\}, .* has runs with \{'minutes': 10\}"):
        leaderboards.keep(suite_of(tmp_path / "b" / "digits", {"gan": [300.0]}, minutes=5), kept)
    other = suite_of(tmp_path / "c" / "digits", {"gan": [300.0]})
    suite = yaml.safe_load((other / "suite.yaml").read_text())
    suite["entries"]["gan"]["model"] = {"init_args": {"learning_rate": 0.01}}
    (other / "suite.yaml").write_text(yaml.safe_dump(suite))
    with pytest.raises(ValueError, match="entry gan has other settings than its runs in"):
        leaderboards.keep(other, kept)
    dirty = suite_of(tmp_path / "d" / "digits", {"gan": [300.0]})
    run = dirty / "gan-0" / "run.json"
    run.write_text(run.read_text().replace("0123abc", "0123abc+"))
    with pytest.raises(ValueError, match=r"gan-0 is of 0123abc\+: only runs of a commit are kept"):
        leaderboards.keep(dirty, kept)
    run.unlink()
    with pytest.raises(ValueError, match=r"no run in .*digits is finished"):
        leaderboards.keep(dirty, kept)
    with pytest.raises(SystemExit, match=r"benchmarks\.leaderboards: .*nowhere is no suite's folder"):
        leaderboards.main([str(tmp_path / "nowhere")])


def test_the_readme_shows_what_is_kept() -> None:
    text = (ROOT / "README.md").read_text()
    assert leaderboards.document(text) == text, "run python -m benchmarks.leaderboards"
    for folder in leaderboards.kept():
        _, board = leaderboards.read(folder)
        assert json.loads((folder / "leaderboard.json").read_text()) == board
