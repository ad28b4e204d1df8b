"""Checkpoints and pictures that are written while training goes on."""

from __future__ import annotations

import io
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

from zoo.callbacks.base.drawing import DrawingCallback
from zoo.cli.reporting import RunCheckpoint
from zoo.engine import checkpoint
from zoo.engine.background import WRITER, Background, host_copy
from zoo.engine.checkpoint import AtomicCheckpointIO


class Slow:
    """In the place of `torch.save`: waits until it may go on."""

    def __init__(self) -> None:
        self.may_go_on, self.running, self.most = threading.Event(), 0, 0

    def __call__(self, saved: Any, file: Any) -> None:
        self.running += 1
        self.most = max(self.most, self.running)
        assert self.may_go_on.wait(60)
        SAVE(saved, file)
        self.running -= 1


SAVE = torch.save


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Slow:
    slow = Slow()
    monkeypatch.setattr(checkpoint.torch, "save", slow)
    return slow


def networks() -> nn.Module:
    """With tied weights, a view, and running statistics."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 3), nn.Conv2d(1, 2, 2))
    model[2].weight = model[0].weight
    model.register_buffer("part", torch.arange(10.0)[2:5])
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def test_a_copy_is_the_same_file_and_stays_when_training_goes_on() -> None:
    model = networks()
    state = {
        "state_dict": model.state_dict(),
        "plain": {"steps": [1, (2.5, "a")], "none": None},
        "empty": torch.ones(0),
    }
    now, later = io.BytesIO(), io.BytesIO()
    torch.save(state, now)
    kept = host_copy(state)
    for value in model.state_dict().values():
        value.add_(1)
    state["plain"]["steps"].append(3)
    torch.save(kept, later)
    assert now.getvalue() == later.getvalue(), "with strides, versions of modules, and what is tied once"


def test_training_goes_on_and_the_file_holds_the_moment_of_the_save(tmp_path: Path, slow: Slow) -> None:
    path, done, weights = tmp_path / "last.ckpt", [], torch.zeros(3)
    writer = AtomicCheckpointIO()
    slow.may_go_on.set()
    writer.save_checkpoint({"weights": weights, "step": 0}, path)
    slow.may_go_on.clear()
    writer.save_checkpoint({"weights": weights, "step": 1}, path, {"keep": "b.ckpt", "then": lambda: done.append(1)})
    weights.add_(1)
    assert torch.load(path)["step"] == 0, "the earlier file, whole, until the new one is"
    assert not done
    slow.may_go_on.set()
    WRITER.wait()
    assert done == [1]
    assert torch.equal(torch.load(path)["weights"], torch.zeros(3))
    assert torch.load(tmp_path / "b.ckpt")["step"] == 0


@pytest.mark.parametrize("later", [{"then": list}, None], ids=["beside training", "at once"])
def test_the_next_save_waits(tmp_path: Path, slow: Slow, later: Any) -> None:
    writer = AtomicCheckpointIO()
    writer.save_checkpoint({"step": 1}, tmp_path / "last.ckpt", {"then": list})
    threading.Timer(0.1, slow.may_go_on.set).start()
    writer.save_checkpoint({"step": 2}, tmp_path / "last.ckpt", later)
    WRITER.wait()
    assert slow.most == 1
    assert torch.load(tmp_path / "last.ckpt")["step"] == 2


def full(*_: Any) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("when", ["at the next save", "at a stop", "at the next picture", "at the end of pictures"])
def test_a_full_disk_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    monkeypatch.setattr(checkpoint.torch, "save", full)
    AtomicCheckpointIO().save_checkpoint({"step": 1}, tmp_path / "last.ckpt", {"then": pytest.fail})
    callback: Any = DrawingCallback()
    callback._last_step = 3
    own = RunCheckpoint(tmp_path, 1, Any, {})  # type: ignore[arg-type]
    fit: Any = SimpleNamespace(global_step=3, default_root_dir=tmp_path, loggers=[], is_global_zero=True)
    steps = {
        "at the next save": lambda: AtomicCheckpointIO().save_checkpoint({"step": 2}, tmp_path / "last.ckpt"),
        "at a stop": lambda: own.save_now(fit),
        "at the next picture": lambda: callback.show(fit, "a", Image.new("RGB", (3, 3)), 3),
        "at the end of pictures": lambda: callback.on_train_end(fit, Any),
    }
    with pytest.raises(OSError, match=r"cannot write the checkpoint .*No space left on device; nothing was written$"):
        steps[when]()
    WRITER.wait()
    assert not list(tmp_path.glob("*.ckpt")) + list(tmp_path.glob(".*"))


def test_another_error_is_not_hidden_by_one_of_the_writer() -> None:
    writer = Background()
    writer.do(full)
    with pytest.warns(UserWarning, match="No space left"):
        writer.settle()
    writer.wait()


def test_a_run_knows_which_checkpoint_is_there(tmp_path: Path, slow: Slow) -> None:
    """What `stopped` and NaN messages name is a file that is complete; a stop does not save a step twice."""
    summary: Any = SimpleNamespace(go_on=lambda: None)
    own, fit = RunCheckpoint(tmp_path, 3, summary, {}), SimpleNamespace(global_step=3, saves=0)

    def save(path: Path, weights_only: bool, options: dict[str, Any]) -> None:
        fit.saves += 1
        AtomicCheckpointIO().save_checkpoint({"step": fit.global_step}, path, options)

    fit.save_checkpoint = save
    own.on_boundary(fit, Any)  # type: ignore[arg-type]
    assert (own.saved_step, own.last_model_path) == (0, "")
    threading.Timer(0.1, slow.may_go_on.set).start()
    assert own.save_now(fit) == own.path  # type: ignore[arg-type]
    assert (own.saved_step, own.last_model_path, fit.saves) == (3, str(own.path), 1)
    assert torch.load(own.path)["step"] == 3
