"""Training ends once a budget is spent, measures along the way, and goes on with what is left of it."""

from __future__ import annotations

import csv
import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer

from tests.cli.parts import TINY, checkpoint, command, same
from zoo import DCGAN
from zoo.callbacks import Budget, budget
from zoo.callbacks.base import Result
from zoo.callbacks.base.measuring import MeasuringCallback
from zoo.nn.schedules import Decay

FIT = ["fit", *TINY, "--name=run", "--trainer.callbacks+=Budget"]
RUN = Path("runs/run")


class Steps(MeasuringCallback):
    """Measures the number of steps."""

    def evaluate(self, trainer: Trainer, model: LightningModule) -> Result:
        return Result(float(trainer.global_step), "steps[]", "steps")


class Ends(Steps):
    """The same under another protocol."""

    def evaluate(self, trainer: Trainer, model: LightningModule) -> Result:
        return Result(float(trainer.global_step), "steps[end]", "steps")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def rows() -> list[dict[str, str]]:
    with open(RUN / "metrics.csv", newline="") as file:
        return [row for row in csv.DictReader(file) if row.get("budget_images")]


def test_images_are_an_end_and_a_larger_budget_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(*FIT, "--trainer.callbacks.images=35") == 0  # batches of 8
    assert checkpoint(RUN)["global_step"] == 5
    capsys.readouterr()
    assert command(*FIT, "--trainer.callbacks.images=35") == 0
    assert "is finished (5 steps)" in capsys.readouterr().out
    assert command(*FIT, "--trainer.callbacks.images=64") == 0
    assert checkpoint(RUN)["global_step"] == 8
    assert checkpoint(RUN)["callbacks"]["Budget"]["images"] == 64


def test_callbacks_measure_at_equal_shares() -> None:
    measured = [f"--trainer.callbacks+={__name__}.Steps", "--trainer.callbacks.at_looks=true"]
    others = ["--trainer.callbacks+=Measure", "--trainer.callbacks.measure=tests.bench.own.brightness"]
    assert command(*FIT, "--trainer.callbacks.images=64", "--trainer.callbacks.looks=3", *measured, *others) == 0
    found = [(row["step"], row["steps"], row["budget_images"]) for row in rows()]
    assert found == [(step, f"{step}.0", f"{8 * int(step)}.0") for step in "2468"]
    assert all(float(row["budget_seconds"]) > 0 for row in rows())
    assert [row["step"] for row in rows() if row["brightness"]] == ["8"]


def test_each_value_stands_beside_its_own_protocol() -> None:
    """Of two callbacks that give one name, at the start and at the end."""
    both = [f"--trainer.callbacks+={__name__}.Ends", "--trainer.callbacks.at_start=true"]
    both += [f"--trainer.callbacks+={__name__}.Steps", "--trainer.callbacks.every_n_steps=2"]
    both += ["--trainer.callbacks.at_end=false"]
    assert command(*FIT, "--trainer.callbacks.images=40", *both) == 0
    with open(RUN / "metrics.csv", newline="") as file:
        found = {row["step"]: row["steps_protocol"] for row in csv.DictReader(file) if row["steps"]}
    assert found == {"0": "steps[end]", "2": "steps[]", "4": "steps[]", "5": "steps[end]"}


def test_minutes_are_those_of_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that moves by a second whenever it is read: once before a batch, and once after it."""
    ticks = itertools.count()
    monkeypatch.setattr(budget, "perf_counter", lambda: float(next(ticks)))
    assert command(*FIT, f"--trainer.callbacks.minutes={4.5 / 60}", "--trainer.max_steps=3") == 0
    assert checkpoint(RUN)["callbacks"]["Budget"] == {"seconds": 3.0, "images": 24}
    assert command(*FIT, f"--trainer.callbacks.minutes={4.5 / 60}", "--trainer.max_steps=30") == 0
    assert checkpoint(RUN)["global_step"] == 5


def test_ranks_look_and_end_by_the_clock_of_rank_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step takes a second here and 0.9 s on rank zero, which is asked every 25 steps; a look waits for that."""
    ticks = itertools.count()
    monkeypatch.setattr(budget, "perf_counter", lambda: float(next(ticks)))
    monkeypatch.setattr(Budget, "_look", lambda self, trainer, model: looks.append(trainer.global_step))
    looks: list[int] = []
    strategy = SimpleNamespace(broadcast=lambda seconds: 0.9 * trainer.global_step)
    trainer: Any = SimpleNamespace(global_step=0, world_size=2, strategy=strategy, should_stop=False)
    found, model = Budget(minutes=80 / 60, looks=3), DCGAN(8, base_channels=4)
    found.on_train_start(trainer, model)
    while not trainer.should_stop:
        found.on_train_batch_start(trainer, model, {}, 0)
        trainer.global_step += 1
        found.on_train_batch_end(trainer, model, None, {"image": torch.zeros(4, 3, 8, 8)}, 0)
        found.on_boundary(trainer, model)
        assert trainer.global_step < 200
    assert (looks, trainer.global_step, found.seen) == ([25, 50, 75], 100, 800)
    assert model.run_share == found.share > 1
    found.on_exception(trainer, model, KeyboardInterrupt())
    assert model.run_share is None


def test_rates_fall_with_the_share_that_is_spent() -> None:
    """As with so many steps, wherever the run was interrupted."""
    falls = ["--model.decay.kind=exponential", "--model.decay.final=0.1"]
    fit = ["fit", "--model=VAE", "--model.hidden_features=[4]", "--model.latent_dim=2", *falls, *TINY[1:]]
    budget = ["--trainer.callbacks+=Budget", "--trainer.callbacks.images=64"]
    assert command(*fit, "--name=steps", "--trainer.max_steps=8") == 0
    assert command(*fit, "--name=images", *budget) == 0
    assert command(*fit, "--name=run", *budget, "--trainer.max_steps=3") == 0
    assert command(*fit, "--name=run", *budget) == 0
    steps, images, interrupted = (checkpoint(Path("runs", name)) for name in ("steps", "images", "run"))
    rates = [saved["optimizer_states"][0]["param_groups"][0]["lr"] for saved in (steps, images, interrupted)]
    assert rates[1:] == pytest.approx([rates[0]] * 2, rel=1e-9)
    assert rates[0] < 1e-3 / 4
    same(interrupted["state_dict"], images["state_dict"])


@pytest.mark.parametrize(("epoch", "rate"), [(0, 1.0), (2, 0.5), (3, 0.25)])
def test_rates_fall_by_epochs_too(monkeypatch: pytest.MonkeyPatch, epoch: int, rate: float) -> None:
    model = DCGAN(8, base_channels=4)
    monkeypatch.setattr(model, "_trainer", SimpleNamespace(current_epoch=epoch, max_epochs=-1))
    model.run_share = {0: 0.1, 2: 0.5, 3: 0.75}[epoch]
    assert model.decayed(1.0, Decay("linear", unit="epochs"), 100) == pytest.approx(rate)


@pytest.mark.parametrize("options", [{}, {"minutes": 0}, {"images": 0}, {"minutes": 1, "looks": -1}])
def test_a_budget_has_a_size(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"budget needs minutes|must be"):
        Budget(**options)
