"""The lock of a run folder, and what is said of a folder in which something is missing."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.parts import TINY, checkpoint, command
from zoo.cli import run_lock
from zoo.cli.run_lock import RunLock

HOLDER = """
import sys, os, time
from pathlib import Path
from zoo.cli.run_lock import RunLock
lock = RunLock(Path(sys.argv[1]))
if not os.fork():  # as a loader's worker
    time.sleep(60)
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def holder(here: Path) -> Iterator[Any]:
    """Another process that trains in runs/run, and a child of it that outlives it."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, "runs/run"], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    os.killpg(process.pid, 9)
    process.wait()


def test_a_second_process_says_which_one_is_there(here: Path, holder: Any, fails: Callable[..., str]) -> None:
    args = ["fit", *TINY, "--trainer.max_steps=2", "--name=run"]
    expected = f"process {holder.pid} on {socket.gethostname()} trains in runs/run: wait until it ends, or take another"
    assert fails(*args).startswith(expected)
    assert [path.name for path in (here / "runs/run").iterdir()] == [".lock"]
    (here / "runs/run/config.yaml").write_text("{}")
    assert fails(*args, "--fresh").startswith(expected)

    os.kill(holder.pid, 9)
    holder.wait()
    (here / "runs/run/config.yaml").unlink()
    assert command(*args) == 0, "a killed process keeps nobody out, though its child lives"
    assert checkpoint(here / "runs/run")["global_step"] == 2
    RunLock(here / "runs/run").release()


@pytest.mark.parametrize(
    ("owner", "in_use"),
    [
        ({"pid": 1, "host": "elsewhere"}, True),
        ({"pid": os.getppid(), "host": socket.gethostname()}, True),
        ({"pid": 2**22 - 1, "host": socket.gethostname()}, False),
        ({}, False),
    ],
)
def test_where_the_system_has_no_locks_the_file_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: dict[str, Any], in_use: bool
) -> None:
    def no_locks(file: Any) -> bool:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(run_lock, "_try_lock", no_locks)
    (tmp_path / ".lock").write_text(json.dumps(owner) if owner else "")
    if in_use:
        with pytest.raises(ValueError, match=f"process {owner['pid']} on {owner['host']} trains in"):
            RunLock(tmp_path)
        assert json.loads((tmp_path / ".lock").read_text()) == owner
    else:
        RunLock(tmp_path).release()
        assert (tmp_path / ".lock").read_text() == ""


def test_a_missing_checkpoint_is_said(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["fit", *TINY, "--trainer.max_steps=5", "--checkpoint_every=2", "--name=run"]
    assert command(*args) == 0
    folder = here / "runs/run"
    assert checkpoint(folder)["finished"]
    (folder / "samples").mkdir()
    for name in (".last.ckpt.tmp", "../samples/.step-00000004.png.tmp"):
        (folder / "checkpoints" / name).write_text("half")
    (folder / "checkpoints/last.ckpt").unlink()
    capsys.readouterr()
    assert command(*args) == 0
    out = capsys.readouterr().out
    assert "last.ckpt is missing although the run has begun: it goes on from runs/run/checkpoints/previous.ckpt" in out
    assert not list(folder.rglob(".*.tmp"))
    before = checkpoint(folder)
    for path in (folder / "checkpoints").iterdir():
        path.unlink()
    assert command(*args) == 0
    assert "last.ckpt is missing although the run has begun: it starts at step 0" in capsys.readouterr().out
    assert checkpoint(folder)["global_step"] == before["global_step"] == 5
