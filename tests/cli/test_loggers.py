"""Weights & Biases without an account or network; a run's own config.yaml; torchrun."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.parts import TINY, checkpoint, command, same

GRID = [
    "--trainer.callbacks+=zoo.callbacks.SampleGrid",
    "--trainer.callbacks.every_n_steps=3",
    "--trainer.callbacks.num_samples=4",
]


@pytest.mark.slow
def test_wandb_offline_holds_config_metrics_and_grids(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("WANDB_SILENT", "true")
    args = ["fit", *TINY, *GRID, "--name=run", "--trainer.max_steps=6", "--wandb"]
    assert command(*args) == 0
    import wandb

    wandb.finish()
    (folder,) = Path("runs/run/wandb").glob("offline-run-*")
    # Keys and values are plain text in the run's file.
    parts = (b"tests.cli.parts.Watched", b"learning_rate", b"max_steps", b"generator/adversarial", b"samples")
    deadline = time.monotonic() + 60  # a process of its own writes the file, behind us where the machine is busy
    while True:
        log = b"".join(path.read_bytes() for path in folder.glob("*.wandb"))
        missing = [part for part in parts if part not in log]
        if not missing or time.monotonic() > deadline:
            break
        time.sleep(0.5)
    assert not missing
    assert len(list(folder.glob("files/media/images/*.png"))) == 3
    assert Path("runs/run/metrics.csv").is_file()


def test_a_runs_own_configuration_is_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("fit", *TINY, "--name=run", "--trainer.max_steps=2") == 0
    capsys.readouterr()
    assert command("fit", "--config", "runs/run/config.yaml") == 0
    assert "runs/run is finished (2 steps)" in capsys.readouterr().out
    assert command("fit", "--config", "runs/run/config.yaml", "--name=other") == 0
    same(checkpoint(Path("runs/other"))["state_dict"], checkpoint(Path("runs/run"))["state_dict"])


def test_a_file_called_config_is_not_a_run() -> None:
    Path("config.yaml").write_text("trainer:\n  max_steps: 1\n")
    assert command("fit", *TINY, "--config", "config.yaml") == 0
    assert Path("config.yaml").read_text() == "trainer:\n  max_steps: 1\n"
    assert checkpoint(Path("runs/config"))["global_step"] == 1


def test_start_from_another_runs_weights() -> None:
    init = [
        "fit",
        "--model=DCGAN",
        "--model.image_size=8",
        "--model.base_channels=4",
        "--model.latent_dim=4",
        *TINY[1:],
    ]
    assert command(*init, "--name=source", "--trainer.max_steps=2") == 0
    again = [*init, "--name=again", "--trainer.max_steps=1", "--model.learning_rate=0"]
    assert command(*again, "--init=runs/source/checkpoints/last.ckpt") == 0
    ours, theirs = (checkpoint(Path("runs", name))["state_dict"] for name in ("again", "source"))
    same({k: v for k, v in ours.items() if "conv" in k}, {k: v for k, v in theirs.items() if "conv" in k})


@pytest.mark.slow
def test_torchrun_needs_no_further_setting() -> None:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "zoo"]
    settings = ["--name=run", "--trainer.max_steps=2"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*launch, "fit", *TINY, *settings], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert len(checkpoint(Path("runs/run"))["zoo"]["rank_states"]) == 2
