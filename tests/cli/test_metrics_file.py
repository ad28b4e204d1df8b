"""`metrics.csv`: one row per step in order, whoever logs, through kills and resumes."""

from __future__ import annotations

import csv
from pathlib import Path

import yaml

from zoo.cli.reporting import MetricsFile


def rows(folder: Path) -> list[dict[str, str]]:
    with open(folder / "metrics.csv", newline="") as file:
        return [{k: v for k, v in row.items() if v} for row in csv.DictReader(file)]


def test_one_row_per_step_in_order(here: Path) -> None:
    log = MetricsFile(here)
    log.log_metrics({"loss": 1.0}, step=0)
    # At the end of a batch a callback logs under the number of steps, then the trainer under the batch's index.
    log.log_metrics({"fd": 9.0}, step=2)
    log.log_metrics({"loss": 0.5, "new": 3.0}, step=1)
    log.log_metrics({"loss": 0.25}, step=2)
    assert rows(here) == [
        {"step": "0", "loss": "1.0"},
        {"step": "1", "loss": "0.5", "new": "3.0"},
        {"step": "2", "loss": "0.25", "fd": "9.0"},
    ]


def test_a_resumed_run_goes_on(here: Path) -> None:
    log = MetricsFile(here)
    for step in range(6):
        log.log_metrics({"loss": float(step)}, step=step)
    with open(here / "metrics.csv", "a") as file:
        file.write("6,6.12")  # cut off by a kill
    again = MetricsFile(here)
    again.resume(3)
    assert [row["step"] for row in rows(here)] == ["0", "1", "2", "3"]
    again.log_metrics({"loss": 4.5}, step=4)
    again.log_metrics({"fd": 1.0}, step=4)
    assert rows(here)[3:] == [{"step": "3", "loss": "3.0"}, {"step": "4", "loss": "4.5", "fd": "1.0"}]


def test_nothing_is_lost_before_the_first_row(here: Path) -> None:
    MetricsFile(here).log_metrics({"loss": 1.0}, step=5)
    before = (here / "metrics.csv").read_bytes()
    MetricsFile(here).resume(5)
    assert (here / "metrics.csv").read_bytes() == before


def test_values_stand_beside_their_protocol(here: Path) -> None:
    log = MetricsFile(here)
    log.log_hyperparams({"fd_protocol": "fd[x]", "betas": (0.5, 0.9)})
    log.log_metrics({"fd": 2.0}, step=1)
    assert rows(here) == [{"step": "1", "fd": "2.0", "fd_protocol": "fd[x]"}]
    assert yaml.safe_load((here / "hparams.yaml").read_text()) == {"fd_protocol": "fd[x]", "betas": [0.5, 0.9]}
    again = MetricsFile(here)
    again.log_metrics({"fd": 1.0}, step=2)
    assert rows(here)[1]["fd_protocol"] == "fd[x]"
