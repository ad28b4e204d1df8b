"""Signals, locks and broken checkpoints: what a run says, the code it leaves with, and that nothing is lost."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.cli import parts
from tests.cli.parts import TINY, checkpoint, command
from tests.cli.test_resume import OURS, STEPS, compare
from tests.ranks import on_ranks

ARGS = ["fit", *TINY, *OURS]


def signalled(place: str, signum: int, step: int, ranks: list[int], args: list[str]) -> int:
    """The command in a process of its own, whose ranks get a signal in the batch after so many steps."""
    torch.set_num_threads(1)
    os.chdir(place)
    inner = parts.Watched.training_step

    def training_step(self: parts.Watched, batch: Any, batch_idx: int) -> None:
        if self.trainer.global_step == step and self.global_rank in ranks:
            os.kill(os.getpid(), signum)
        inner(self, batch, batch_idx)

    parts.Watched.training_step = training_step  # type: ignore[method-assign]
    try:
        return command(*args)
    finally:
        parts.Watched.training_step = inner  # type: ignore[method-assign]


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody stopped."""
    place = tmp_path_factory.mktemp("straight")
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert command(*ARGS, "--name=run") == 0
    return place / "runs/run"


# In mid-epoch; in the last batch of an epoch, which validation follows; in the last batch of all.
@pytest.mark.parametrize(
    ("signum", "step", "code", "stops_at"),
    [
        (signal.SIGTERM, 6, 143, 7),
        (signal.SIGINT, 4, 130, 5),
        (signal.SIGTERM, 9, 143, 10),
        (signal.SIGINT, STEPS - 1, 0, STEPS),
    ],
)
def test_a_signal_saves_first(
    here: Path, straight: Path, capfd: pytest.CaptureFixture[str], signum: int, step: int, code: int, stops_at: int
) -> None:
    assert signalled(str(here), signum, step, [0], [*ARGS, "--name=run"]) == code
    saved = checkpoint(here / "runs/run")
    assert saved["global_step"] == stops_at
    assert saved["finished"] == (code == 0)
    err = capfd.readouterr().err
    line = f"stopped at step {stops_at}; the same command goes on from step {stops_at}"
    assert (line in err) == (code != 0)
    assert "Traceback" not in err
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert command(*ARGS, "--name=run") == 0
    compare(here / "runs/run", straight)


def test_a_stopped_run_may_end_where_it_stands(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """With fewer steps asked for: no step is left at whose end callbacks measure, and the command says so."""
    assert signalled(str(here), signal.SIGTERM, 6, [0], [*ARGS, "--name=run"]) == 143
    capfd.readouterr()
    assert command(*ARGS, "--name=run", "--trainer.max_steps=7") == 0
    said = capfd.readouterr().out
    assert "Finished: 7 steps." in said
    assert "No step was left, so nothing was measured: `zoo evaluate runs/run` measures" in said


RANKS = ["--data.batch_size=4", "--trainer.devices=2"]


@pytest.fixture(scope="module")
def straight_on_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on two ranks that nobody stopped."""
    place = tmp_path_factory.mktemp("straight")
    assert on_ranks(2, signalled, str(place), 0, -1, [], [*ARGS, *RANKS, "--name=run"]) == [0, 0]
    return place / "runs/run"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("signum", "ranks", "code"),
    [
        (signal.SIGTERM, [1], 143),
        (signal.SIGINT, [0, 1], 130),
    ],
)
def test_ranks_leave_together(tmp_path: Path, straight_on_two: Path, signum: int, ranks: list[int], code: int) -> None:
    args = [*ARGS, *RANKS, "--name=run"]
    start = time.monotonic()
    assert on_ranks(2, signalled, str(tmp_path), signum, 6, ranks, args) == [code, code]
    assert time.monotonic() - start < 60
    assert checkpoint(tmp_path / "runs/run")["global_step"] == 8  # the answer comes a batch later
    assert on_ranks(2, signalled, str(tmp_path), 0, -1, [], args) == [0, 0]
    compare(tmp_path / "runs/run", straight_on_two)


def in_slurm(*args: Any) -> int:
    """As `signalled`, as a task of a Slurm job."""
    rank, world = os.environ.pop("RANK"), os.environ.pop("WORLD_SIZE")
    for name in ("LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "TORCHELASTIC_RUN_ID"):
        del os.environ[name]
    os.environ |= {
        "SLURM_NTASKS": world,
        "SLURM_NTASKS_PER_NODE": world,
        "SLURM_PROCID": rank,
        "SLURM_LOCALID": rank,
        "SLURM_NODEID": "0",
        "SLURM_JOB_ID": "1234",
        "SLURM_JOB_NAME": "train",
    }
    return signalled(*args)


@pytest.mark.slow
def test_slurm_puts_the_job_back_once(tmp_path: Path, straight_on_two: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scontrol = tmp_path / "bin/scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\n')
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{scontrol.parent}:{os.environ['PATH']}")
    args = [*ARGS, *RANKS, "--name=run"]
    assert on_ranks(2, in_slurm, str(tmp_path), signal.SIGUSR1, 6, [0, 1], args) == [138, 138]
    assert (tmp_path / "calls").read_text() == "requeue 1234\n"
    assert checkpoint(tmp_path / "runs/run")["global_step"] == 8
    assert on_ranks(2, in_slurm, str(tmp_path), 0, -1, [], args) == [0, 0]
    compare(tmp_path / "runs/run", straight_on_two)
    assert not list((tmp_path / "runs/run").glob("hpc*"))


def stands_still(place: str, args: list[str]) -> tuple[int, str]:
    """The command on two ranks, of which the second one stops; exit code and messages of the first."""
    if os.environ["RANK"] == "1":
        Path(place, "still").write_text(str(os.getpid()))
        return signalled(place, signal.SIGSTOP, 6, [1], args), ""
    err = io.StringIO()
    with contextlib.redirect_stderr(err):
        code = signalled(place, 0, -1, [], args)
    os.kill(int(Path(place, "still").read_text()), signal.SIGCONT)
    return code, err.getvalue()


@pytest.mark.slow
def test_a_rank_that_stands_still_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_RANK_TIMEOUT", "5")
    (code, err), _ = on_ranks(2, stands_still, str(tmp_path), [*ARGS, *RANKS, "--name=run"])
    assert code == 1
    assert parts.the_line(err).startswith("another process of the run did not answer within 5 s")
