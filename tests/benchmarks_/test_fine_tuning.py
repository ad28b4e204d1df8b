"""Runs from a checkpoint and from nothing become one row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks import fine_tuning, readme


def run_of(folder: Path, seed: int, init: str | None, fd: float, steps: int = 20, **data: Any) -> Path:
    """What a finished run leaves."""
    folder.mkdir()
    config = {"seed_everything": seed, "init": init, "data": {"init_args": data}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    values = {"fd": {"value": fd, "protocol": "fd[real=pictures64-test-90]"}}
    summary = {"model": "zoo.dcgan.DCGAN", "data": "pictures64", "steps": steps, "images": 320, "values": values}
    summary |= {"training_seconds": 90.4 + seed, "precision": "32-true", "commit": "0123456789abcdef"}
    (folder / "run.json").write_text(json.dumps(summary))
    return folder


def test_a_line_for_each_start(tmp_path: Path) -> None:
    runs = [
        run_of(tmp_path / f"tuned{i}", i, "/some/where/dcgan-emoji64-full", value) for i, value in enumerate((100, 110))
    ]
    runs += [run_of(tmp_path / f"scratch{i}", i, None, value) for i, value in enumerate((300, 340))]
    row = fine_tuning.row(runs)
    assert row["starts"]["dcgan-emoji64-full"]["fd"]["value"] == 105
    assert row["starts"]["nothing"]["fd"]["seeds"] == {"0": 300, "1": 340}
    assert "/some" not in json.dumps(row)
    page = readme.page([row])
    assert "| dcgan-emoji64-full | 0, 1 | 105 ± 7.07 |" in page
    assert "| nothing | 0, 1 | 320 ± 28.3 |" in page
    assert "DCGAN, pictures64: 20 steps, 320 images, 90 to 91 seconds of training, 32-true" in page
    assert "`fd[real=pictures64-test-90]`" in page


def test_what_cannot_be_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = run_of(tmp_path / "a", 0, None, 300)
    (tmp_path / "empty").mkdir()
    cases = {
        "all runs start from nothing: give those of another start too": run_of(tmp_path / "b", 1, None, 310),
        "has seed 0 and starts from nothing, as another": run_of(tmp_path / "c", 0, None, 300),
        "differ in more than seed and start": run_of(tmp_path / "d", 0, "x", 300, steps=21),
        "more than seed and start": run_of(tmp_path / "e", 0, "x", 300, batch_size=2),
        "is no finished run": tmp_path / "empty",
    }
    for words, second in cases.items():
        with pytest.raises((ValueError, FileNotFoundError), match=words):
            fine_tuning.row([first, second])
    with pytest.raises(SystemExit, match=r"benchmarks\.fine_tuning: all runs start from nothing"):
        fine_tuning.main(["name", str(first)])
    fine_tuning.main(["name", str(first), str(run_of(tmp_path / "f", 0, "x", 200)), f"--out-dir={tmp_path}"])
    assert json.loads((tmp_path / "fine_tuning-name.json").read_text()) == json.loads(capsys.readouterr().out)
