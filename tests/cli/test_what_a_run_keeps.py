"""What a command leaves behind: metrics of short runs, a summary, checkpoints; of trials and refusals nothing."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lightning.pytorch.accelerators import CPUAccelerator

from tests.cli.parts import TINY, checkpoint, command
from zoo.cli import fit
from zoo.engine.devices import name_of

Fails = Callable[..., str]
FIT = ["fit", *TINY, "--name=run"]
RUN = Path("runs/run")


def test_a_run_shorter_than_the_logging_interval_has_metrics() -> None:
    assert command(*FIT, "--trainer.max_steps=3", "--trainer.log_every_n_steps=50") == 0
    with open(RUN / "metrics.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["generator/adversarial"]]
    assert [row["step"] for row in rows] == ["2"]


def test_a_summary(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(*FIT, "--trainer.max_steps=1") == 0
    assert command(*FIT, "--trainer.max_steps=3") == 0
    found = json.loads((RUN / "run.json").read_text())
    assert found["images"] == 24
    assert 0 < found["training_seconds"] < found["seconds"]
    assert found["parameters"] == {"generator": 456, "discriminator": 256}
    assert found["steps"] == 3
    assert found["training_images_per_second"] > 0
    assert 0 < found["seconds"] < 600
    assert found["peak_memory_bytes"] > 2**20
    assert found["hardware"] == f"{name_of('cpu')}, {torch.get_num_threads()} of {os.cpu_count()} cores"
    assert found["data"] == "noise8"
    assert found["commit"] is None or len(found["commit"].rstrip("+")) == 40


def test_a_run_says_where_it_goes_what_came_out_and_what_is_next(capsys: pytest.CaptureFixture[str]) -> None:
    measure = ["--trainer.callbacks+=Measure", "--trainer.callbacks.measure=sampling_speed"]
    assert command(*FIT, *measure, "--trainer.max_steps=1") == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "Training Watched on noise8; everything goes to runs/run/"
    end = said[said.index("Finished: 1 steps. Everything is in runs/run/") :]
    value = json.loads((RUN / "run.json").read_text())["values"]["sampling_speed"]["value"]
    assert end[1] == f"  sampling_speed  {value:.4g}"
    assert end[2:] == [
        "Next:  zoo sample runs/run/checkpoints/last.ckpt --out grid.png",
        "       zoo publish runs/run",
    ]


def test_a_trial_needs_no_end_and_keeps_nothing(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grid = ["--trainer.callbacks+=SampleGrid", "--trainer.callbacks.every_n_steps=1"]
    assert command(*FIT, *grid, "--trainer.fast_dev_run=2") == 0
    assert "Tried 2 steps" in capsys.readouterr().out
    assert not Path("runs").exists()
    # In a folder that a run has, too.
    assert command(*FIT, "--trainer.max_steps=1") == 0
    before = {path: path.read_bytes() for path in RUN.rglob("*") if path.is_file()}
    assert command(*FIT, "--trainer.fast_dev_run=true", "--model.learning_rate=1") == 0
    assert {path: path.read_bytes() for path in RUN.rglob("*") if path.is_file()} == before


def test_a_checkpoint_that_is_asked_for_is_kept() -> None:
    asked = ["--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.every_n_train_steps=2"]
    assert command(*FIT, *asked, "--trainer.max_steps=3") == 0
    names = sorted(path.name for path in (RUN / "checkpoints").iterdir())
    assert names == ["epoch=0-step=2.ckpt", "last.ckpt"]
    assert checkpoint(RUN)["global_step"] == 3


def test_profilers_report_and_lightning_advertises_nothing(
    caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    averaged = ["--model=DCGAN", "--model.base_channels=4", "--model.ema_decay=0.9", *TINY[1:], "--name=run"]
    assert command("fit", *averaged, "--trainer.max_steps=6", "--trainer.profiler=simple") == 0
    assert "Profiler Report" in caplog.text
    assert "litlogger" not in caplog.text
    assert [str(warning.message) for warning in recwarn] == []


SIZED = ["fit", "--data=tests.cli.parts.Noise", *TINY[2:], "--trainer.max_steps=1", "--name=run"]


def test_a_model_is_as_large_as_its_data() -> None:
    model = ["--model=DCGAN", "--model.base_channels=4", "--model.latent_dim=4"]
    assert command(*SIZED, *model, "--data.image_size=16") == 0
    assert checkpoint(RUN)["hyper_parameters"]["image_size"] == 16
    assert "image_size: 16" in (RUN / "config.yaml").read_text().partition("data:")[0]
    # Channels too; and the command that says as much goes on.
    vae = ["--model=VAE", "--model.hidden_features=[8]", "--name=vae"]
    assert command(*SIZED, *vae) == 0
    assert checkpoint(Path("runs/vae"))["hyper_parameters"]["image_channels"] == 3
    said = ["--model.image_size=8", "--model.image_channels=3", "--trainer.max_steps=2"]
    assert command(*SIZED, *vae, *said) == 0
    assert checkpoint(Path("runs/vae"))["global_step"] == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--model=DCGAN", "--model.image_size=16"], ["3x8x8", "3x16x16"]),
        (["--model=VAE", "--model.init_args.image_channels", "1"], ["3x8x8", "1x8x8"]),
        (["--model={class_path: VAE, init_args: {image_channels: 1}}"], ["3x8x8", "1x8x8"]),
        (["--model=DCGAN", "--data.batch_size=41"], ["41", "40"]),
    ],
)
def test_a_refused_run_leaves_no_folder(
    fails: Fails, monkeypatch: pytest.MonkeyPatch, options: list[str], words: list[str]
) -> None:
    if "41" not in words:
        monkeypatch.setattr("tests.cli.parts.Noise.prepare_data", lambda self: pytest.fail("the data are loaded"))
    message = fails(*SIZED, *options)
    assert all(word in message for word in words), message
    assert not Path("runs/run").exists()


def test_what_is_refused_leaves_the_earlier_run_in_its_place(fails: Fails) -> None:
    assert command(*FIT, "--trainer.max_steps=1") == 0
    fails(*FIT, "--trainer.max_steps=1", "--fresh", "--data.batch_size=41")
    assert [path.name for path in Path("runs").iterdir()] == ["run"]
    assert checkpoint(RUN)["global_step"] == 1


@pytest.mark.parametrize(
    ("asked", "expected"), [([], 1), (["--trainer.devices=auto"], 1), (["--trainer.devices=2"], 2)]
)
def test_one_device_unless_more_are_asked_for(monkeypatch: pytest.MonkeyPatch, asked: list[str], expected: int) -> None:
    """On a machine of three; Lightning's `auto` would take them all, and multiply the batch."""
    monkeypatch.setattr(CPUAccelerator, "auto_device_count", staticmethod(lambda: 3))
    found: list[int] = []
    monkeypatch.setattr(fit, "_fit", lambda cli, model: found.append(cli.trainer.num_devices))
    assert command(*FIT, "--trainer.max_steps=1", *asked) == 0
    assert found == [expected]
