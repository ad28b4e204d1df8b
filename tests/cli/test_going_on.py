"""A run that goes on with other settings: what changes is said and kept; what cannot change is refused with advice."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch.callbacks import timer

from tests.cli.parts import TINY, checkpoint, command, same
from zoo import DCGAN
from zoo.cli.changes import Change, completed, describe, differences
from zoo.nn.schedules import Decay

Fails = Callable[..., str]
MODEL = ["--model=DCGAN", "--model.image_size=8", "--model.latent_dim=4", "--model.base_channels=4"]
FIT = ["fit", *MODEL, *TINY[1:], "--name=run"]
RUN = Path("runs/run")
LAST = "runs/run/checkpoints/last.ckpt"


def contents() -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in RUN.rglob("*") if path.is_file()}


@pytest.mark.parametrize("end", ["max_steps", "max_epochs"])
def test_a_later_end_is_the_same_run(capsys: pytest.CaptureFixture[str], end: str) -> None:
    early, late = (f"--trainer.{end}={n}" for n in ((3, 8) if end == "max_steps" else (1, 2)))
    assert command(*FIT, early) == 0
    capsys.readouterr()
    assert command(*FIT, late) == 0
    said = capsys.readouterr().out
    assert f"Resuming runs/run with trainer.{end} {early[-1]} -> {late[-1]}\n" in said
    assert command(*FIT[:-1], "--name=straight", late) == 0
    ours, theirs = checkpoint(RUN), checkpoint(Path("runs/straight"))
    for key in ("state_dict", "optimizer_states", "global_step", "epoch"):
        same(ours[key], theirs[key], key)
    kept = (RUN / "config.1.yaml").read_text()
    assert kept.startswith(f"# Until step {early[-1] if end == 'max_steps' else 5}; ")
    assert str(yaml.safe_load(kept)["trainer"][end]) == early[-1]
    assert str(yaml.safe_load((RUN / "config.yaml").read_text())["trainer"][end]) == late[-1]


OTHERS = [
    ("--model.learning_rate=0.001", "model.learning_rate 0.0002 -> 0.001"),
    ("--model.betas=[0.6,0.99]", "model.betas.0 0.5 -> 0.6, model.betas.1 0.999 -> 0.99"),
    ("--data.batch_size=20", "data.batch_size 8 -> 20"),  # two batches in an epoch, where three were done
    ("--model.ema_decay=0.9", "model.ema_decay None -> 0.9"),
    ("--trainer.precision=bf16-mixed", "trainer.precision None -> bf16-mixed"),
    ("--trainer.callbacks+=SampleGrid", "trainer.callbacks"),
]


@pytest.mark.parametrize(("option", "words"), OTHERS)
def test_other_settings(capsys: pytest.CaptureFixture[str], option: str, words: str) -> None:
    assert command(*FIT, "--trainer.max_steps=3") == 0
    capsys.readouterr()
    assert command(*FIT, "--trainer.max_steps=7", option) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Resuming")]
    assert words in line
    assert "trainer.max_steps 3 -> 7" in line
    assert line.endswith(": no longer the run that it would be without the change")
    saved = checkpoint(RUN)
    assert saved["global_step"] == 7
    groups = [state["param_groups"][0] for state in saved["optimizer_states"]]
    if "learning_rate" in option:
        assert [group["lr"] for group in groups] == [0.001, 0.001]
    if "betas" in option:
        assert [list(group["betas"]) for group in groups] == [[0.6, 0.99]] * 2
    # The same command once more, and the one of the beginning: nothing is left to do, nothing is written.
    before = contents()
    assert command(*FIT, "--trainer.max_steps=7", option) == 0
    assert command(*FIT, "--trainer.max_steps=3") == 0
    assert capsys.readouterr().out.count("is finished (7 steps): a later end goes on") == 2
    assert contents() == before
    if "ema" in option:  # and without it again
        assert command(*FIT, "--trainer.max_steps=8") == 0
        assert not any("_ema" in key for key in checkpoint(RUN)["state_dict"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--model.latent_dim=5"], ["model.latent_dim 4 -> 5", f"--init {LAST}", "weights of discriminator"]),
        (["--model.base_channels=8"], ["model.base_channels 4 -> 8", "--fresh"]),
        (["--model.image_size=16", "--data.image_size=16"], ["model.image_size 8", "16", f"--init {LAST}"]),
        (["--seed_everything=1"], ["seed_everything 0", "1", f"--init {LAST}"]),
        (["--model=GAN"], ["run of DCGAN", "trains GAN", "--fresh"]),
        ([f"--init={LAST}"], ["--init", "--name"]),
    ],
)
def test_what_cannot_change(fails: Fails, options: list[str], words: list[str]) -> None:
    assert command(*FIT, "--trainer.max_steps=2") == 0
    before = contents()
    args = [arg for arg in FIT if not (options[0] == "--model=GAN" and arg.startswith(("--model.", "--model=")))]
    if options[0] == "--model=GAN":
        options = [*options, "--model.image_size=8", "--model.image_channels=3"]
    message = fails(*args, "--trainer.max_steps=2", *options)
    assert all(word in message for word in words), message
    assert contents() == before


def test_the_advice_leads_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(*FIT, "--trainer.max_steps=2") == 0
    other = ["--name=other", "--model.latent_dim=5", f"--init={LAST}", "--trainer.max_steps=1"]
    assert command(*FIT, *other, "--model.learning_rate=0") == 0
    assert "discriminator; of other sizes, so untrained: generator" in capsys.readouterr().out
    ours, theirs = (checkpoint(path)["state_dict"] for path in (Path("runs/other"), RUN))
    key = "discriminator.layers.0.conv.weight"
    assert torch.equal(ours[key], theirs[key])


def test_time_alone_is_an_end_and_each_command_has_it_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]  # of steps: nobody waits, and no machine is too slow
    monkeypatch.setattr(timer, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    inner = DCGAN.training_step

    def training_step(self: DCGAN, batch: Any, batch_idx: int) -> None:
        inner(self, batch, batch_idx)
        clock[0] += 1

    monkeypatch.setattr(DCGAN, "training_step", training_step)
    for steps in (3, 6):
        assert command(*FIT, "--trainer.max_time=00:00:00:03") == 0
        assert checkpoint(RUN)["global_step"] == steps


def test_differences() -> None:
    old = {"model": {"init_args": {"a": 1, "b": [1, 2]}}, "data": {"init_args": {"num_workers": 0}}}
    new = {"model": {"init_args": {"a": 1, "b": [1, 3]}}, "data": {"init_args": {"num_workers": 4}}}
    assert differences(old, new) == [Change("model.init_args.b.1", 2, 3)]
    assert differences(old, old) == []
    assert differences({"a": {}}, {"a": {"b": 1}})
    devices = {"trainer": {"devices": 1}}, {"trainer": {"devices": 2}}
    assert differences(*devices)
    assert not differences(*devices, scheduled=True)


def test_a_group_of_options_may_be_given_in_part() -> None:
    part = {"class_path": "zoo.Classifier", "init_args": {"decay": {"kind": "linear", "length": 5}}}
    whole = {"class_path": "zoo.Classifier", "init_args": {"decay": dataclasses.asdict(Decay("linear", length=5))}}
    other = {"class_path": "zoo.Classifier", "init_args": {"decay": {"kind": "linear", "length": 6}}}
    assert differences(part, whole) == []
    assert differences(part, other) == [Change("init_args.decay.length", 5, 6)]


def test_an_option_that_is_not_given_is_the_default() -> None:
    before = {"class_path": "zoo.DCGAN", "init_args": {"image_size": 64, "ema_decay": None, "accumulate": 1}}
    now = {"class_path": "zoo.DCGAN", "init_args": {}}
    assert completed(now)["init_args"]["image_size"] == 64
    assert differences(before, now) == []
    before["init_args"]["accumulate"] = 2
    assert differences(before, now) == [Change("init_args.accumulate", 2, 1)]


def test_an_end_changes_what_was_before_it_where_a_schedule_ends_with_the_run() -> None:
    later = [Change("trainer.max_steps", 5, 9)]
    assert describe(later, whole=False) == "trainer.max_steps 5 -> 9"
    assert describe(later).endswith("no longer the run that it would be without the change")
    assert "and 2 more" in describe([Change(f"data.{i}", 0, 1) for i in range(8)])
