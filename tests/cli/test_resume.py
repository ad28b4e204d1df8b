"""Train 2N steps = train N, kill -9, the same command again: weights, optimizers, metrics and samples, bit for bit."""

from __future__ import annotations

import filecmp
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp

from tests.cli.parts import TINY, checkpoint, command, run, same
from tests.ranks import on_ranks
from zoo.cli.run_folder import RunFolder

STEPS = 14  # epochs of 5: killed and ended in mid-epoch
OURS = [
    "--trainer.max_steps",
    str(STEPS),
    "--checkpoint_every=4",
    "--trainer.callbacks+=zoo.callbacks.SampleGrid",
    "--trainer.callbacks.every_n_steps=3",
    "--trainer.callbacks.num_samples=4",
]


def compare(killed: Path, straight: Path) -> None:
    """Both runs end alike."""
    ours, theirs = checkpoint(killed), checkpoint(straight)
    assert ours["global_step"] == STEPS
    for saved in (ours, theirs):
        saved["zoo"].pop("seconds", None)
    for key in ("state_dict", "optimizer_states", "global_step", "epoch", "zoo"):
        same(ours[key], theirs[key], key)
    names = sorted(path.name for path in (straight / "samples").iterdir())
    assert f"step-{STEPS:08d}.png" in names
    assert sorted(path.name for path in (killed / "samples").iterdir()) == names
    assert filecmp.cmpfiles(killed / "samples", straight / "samples", names, shallow=False)[0] == names
    assert (killed / "metrics.csv").read_text() == (straight / "metrics.csv").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("where", "step", "workers"),
    [
        ("training", 7, 0),
        ("training", 9, 2),
        ("validation", 10, 0),
        ("writing", 8, 0),
        ("writing", 4, 0),  # the first one: from scratch
    ],
)
def test_killed_run_is_resumed_by_the_same_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, step: int, workers: int
) -> None:
    monkeypatch.chdir(tmp_path)
    args = ["fit", *TINY, *OURS, f"--data.num_workers={workers}", "--trainer.check_val_every_n_epoch=2"]
    assert command(*args, "--name=straight") == 0

    with pytest.raises(mp.ProcessExitedException, match="SIGKILL"):
        mp.spawn(_spawned, (str(tmp_path), where, step, [*args, "--name=killed"]), nprocs=1)
    last = tmp_path / "runs/killed/checkpoints/last.ckpt"
    kept = (step - 1) // 4 * 4 if where == "writing" else step // 4 * 4
    assert checkpoint(tmp_path / "runs/killed")["global_step"] == kept if kept else not last.exists()

    assert command(*args, "--name=killed") == 0
    compare(tmp_path / "runs/killed", tmp_path / "runs/straight")
    assert not list((tmp_path / "runs/killed").rglob("*.tmp"))


def _spawned(rank: int, *args: object) -> None:
    run(*args)  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_two_ranks_are_resumed_too(tmp_path: Path, workers: int) -> None:
    args = ["fit", *TINY, *OURS, "--data.batch_size=4", f"--data.num_workers={workers}", "--trainer.devices=2"]
    assert on_ranks(2, run, str(tmp_path), "", 0, [*args, "--name=straight"]) == [0, 0]
    with pytest.raises(mp.ProcessExitedException, match="SIGKILL"):
        on_ranks(2, run, str(tmp_path), "training", 7, [*args, "--name=killed"])
    assert checkpoint(tmp_path / "runs/killed")["global_step"] == 4
    assert on_ranks(2, run, str(tmp_path), "", 0, [*args, "--name=killed"]) == [0, 0]
    compare(tmp_path / "runs/killed", tmp_path / "runs/straight")


def test_a_rank_may_come_while_another_writes_the_configuration(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    (folder.path / ".config.yaml.tmp").write_text("a: ")
    assert folder.check() is None
    (folder.path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="is not empty and holds no run"):
        folder.check()


def test_broken_off_again_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped by errors within an epoch, at its end, at the next one's start."""
    monkeypatch.chdir(tmp_path)
    args = ["fit", *TINY, *OURS, "--checkpoint_every=1"]
    assert command(*args, "--name=straight") == 0
    from tests.cli import parts

    inner = parts.Watched.training_step
    for stop in (2, 5, 6, 9):

        def training_step(self: parts.Watched, batch: object, batch_idx: int, stop: int = stop) -> None:
            if self.trainer.global_step == stop:
                raise RuntimeError("stop here")
            inner(self, batch, batch_idx)  # type: ignore[arg-type]

        monkeypatch.setattr(parts.Watched, "training_step", training_step)
        assert command(*args, "--name=broken") == 1
        assert checkpoint(tmp_path / "runs/broken")["global_step"] == stop
    monkeypatch.setattr(parts.Watched, "training_step", inner)
    assert command(*args, "--name=broken") == 0
    compare(tmp_path / "runs/broken", tmp_path / "runs/straight")


def test_truncated_checkpoint_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.cli.parts import the_line

    monkeypatch.chdir(tmp_path)
    args = ["fit", *TINY, "--trainer.max_steps=3", "--name=run"]
    assert command(*args) == 0
    last = tmp_path / "runs/run/checkpoints/last.ckpt"
    whole = last.read_bytes()
    last.write_bytes(whole[: len(whole) // 2])
    capsys.readouterr()
    assert command(*args) == 2
    assert "last.ckpt is damaged" in the_line(capsys.readouterr().err)
    assert last.stat().st_size == len(whole) // 2

    last.unlink()
    assert command(*args) == 0
    assert torch.equal(
        checkpoint(tmp_path / "runs/run")["state_dict"]["generator.layers.0.conv.weight"],
        torch.load(_write(tmp_path / "w.ckpt", whole), weights_only=True)["state_dict"][
            "generator.layers.0.conv.weight"
        ],
    )


def _write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path
