"""Runs of one setting with several seeds become one row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks import readme, seeds
from zoo.callbacks.base import Result

RECIPE = """# A recipe.
seed_everything: 0
model:
  class_path: zoo.SemiSupervisedAAE
  init_args: {affine_classes: true, latent_dim: 4}
data:
  class_path: zoo.datamodules.MNIST
  init_args: {batch_size: 100}
trainer:
  max_steps: 20
"""


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    path = tmp_path / "own.yaml"
    path.write_text(RECIPE)
    return str(path)


def run_of(folder: Path, seed: int, test: float, commit: str = "0123456789abcdef", **options: Any) -> Path:
    """What a finished run leaves."""
    folder.mkdir()
    config = yaml.safe_load(RECIPE)
    config["seed_everything"] = seed
    config["model"]["init_args"] |= {"input_noise_std": 0.3} | options
    config["data"]["init_args"] |= {"data_dir": "/somewhere"}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    values = {"class_error": {"value": test, "protocol": "class_error[test=mnist28-test-10000]"}}
    summary = {"model": "zoo.semi_supervised_aae.SemiSupervisedAAE", "data": "mnist28", "steps": 20}
    summary |= {"training_seconds": 90.4, "precision": "32-true", "commit": commit, "values": values}
    (folder / "run.json").write_text(json.dumps(summary))
    return folder


@pytest.fixture(autouse=True)
def _validation_is_half_of_the_test_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def validated(run: Path, config: dict[str, Any], measure: str) -> Result:
        test = json.loads((run / "run.json").read_text())["values"][measure]["value"]
        return Result(test / 2, "class_error[test=mnist28-val-10000]", measure, error=0.2, chance=90.0)

    monkeypatch.setattr(seeds, "_validated", validated)


def test_means_deviations_and_what_differs_from_the_recipe(tmp_path: Path, recipe: str) -> None:
    runs = [run_of(tmp_path / str(i), i, value, affine_classes=False) for i, value in enumerate((2.0, 4.0, 6.0))]
    row = seeds.row(runs, recipe, "class_error", "the paper's")
    assert row["changed"] == {"model.init_args.affine_classes": False}
    assert row["test"]["seeds"] == {"0": 2.0, "1": 4.0, "2": 6.0}
    assert (row["test"]["value"], row["test"]["deviation"]) == (4.0, 2.0)
    assert (row["validation"]["value"], row["validation"]["deviation"]) == (2.0, 1.0)
    assert row["validation"]["protocol"] == "class_error[test=mnist28-val-10000]"
    assert row["commit"] == "0123456789"
    page = readme.page([row])
    assert "| the paper's | **2.00 % ± 1.00 %** | 0.20 % | 4.00 % ± 2.00 % | 0: 2.00 %, 1: 4.00 %, 2: 6.00 % |" in page


def test_a_single_run_has_no_deviation(tmp_path: Path, recipe: str) -> None:
    row = seeds.row([run_of(tmp_path / "a", 3, 2.0)], recipe, "class_error", "the variant's")
    assert row["changed"] == {}
    assert row["test"]["deviation"] is None
    assert "| **1.00 %** |" in readme.page([row])


def test_what_cannot_be_one_row(tmp_path: Path, recipe: str, capsys: pytest.CaptureFixture[str]) -> None:
    first = run_of(tmp_path / "a", 0, 2.0)
    (tmp_path / "empty").mkdir()
    cases = {
        "differ in more than their seeds": run_of(tmp_path / "b", 1, 2.0, latent_dim=5),
        "seed 0, as another": run_of(tmp_path / "c", 0, 2.0),
        "several commits": run_of(tmp_path / "d", 1, 2.0, commit="fedcba9876543210"),
        "no finished run": tmp_path / "empty",
    }
    for words, second in cases.items():
        with pytest.raises((ValueError, FileNotFoundError), match=words):
            seeds.row([first, second], recipe, "class_error", "any")
    with pytest.raises(SystemExit, match="did not measure 'knn', but class_error"):
        seeds.main(["name", str(first), f"--recipe={recipe}", "--measure=knn", "--objective=any"])
