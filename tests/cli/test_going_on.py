"""A run that goes on with other settings: what changes is said and kept; what cannot change is refused with advice."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch.callbacks import timer

from tests.cli import parts
from tests.cli.parts import TINY, checkpoint, command, same
from tests.ranks import on_ranks
from zoo import DCGAN
from zoo.cli import parsing
from zoo.cli.changes import Change, completed, describe, differences
from zoo.nn.schedules import Decay

Fails = Callable[..., str]
MODEL = ["--model=DCGAN", "--model.image_size=8", "--model.latent_dim=4", "--model.base_channels=4"]
FIT = ["fit", *MODEL, *TINY[1:], "--name=run"]
RUN = Path("runs/run")
LAST = "runs/run/checkpoints/last.ckpt"


@pytest.fixture(scope="module")
def three_steps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three steps, trained once."""
    place = tmp_path_factory.mktemp("begun")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert command(*FIT, "--trainer.max_steps=3") == 0
    torch.set_num_threads(threads)
    return place / "runs"


@pytest.fixture
def begun(three_steps: Path) -> None:
    """The run of three steps, in this test's folder."""
    shutil.copytree(three_steps, "runs")


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


@pytest.mark.usefixtures("begun")
@pytest.mark.parametrize(("option", "words"), OTHERS)
def test_other_settings(capsys: pytest.CaptureFixture[str], option: str, words: str) -> None:
    assert command(*FIT, "--trainer.max_steps=6", option) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Resuming")]
    assert words in line
    assert "trainer.max_steps 3 -> 6" in line
    assert line.endswith(": no longer the run that it would be without the change")
    saved = checkpoint(RUN)
    assert saved["global_step"] == 6
    groups = [state["param_groups"][0] for state in saved["optimizer_states"]]
    if "learning_rate" in option:
        assert [group["lr"] for group in groups] == [0.001, 0.001]
    if "betas" in option:
        assert [list(group["betas"]) for group in groups] == [[0.6, 0.99]] * 2
    if "ema" in option:  # and without it again
        assert command(*FIT, "--trainer.max_steps=7") == 0
        assert not any("_ema" in key for key in checkpoint(RUN)["state_dict"])


@pytest.mark.usefixtures("begun")
def test_a_finished_run_is_left_alone_under_other_settings(capsys: pytest.CaptureFixture[str]) -> None:
    before = contents()
    for option in ("--trainer.max_steps=2", "--model.learning_rate=1"):
        assert command(*FIT, "--trainer.max_steps=3", option) == 0
        assert "is finished (3 steps): a later end goes on" in capsys.readouterr().out
    assert contents() == before


REFUSED: list[tuple[list[str], list[str]]] = [
    (["--model.latent_dim=5"], ["model.latent_dim 4 -> 5", f"--init {LAST} --init_strict false", "of discriminator"]),
    (["--model.base_channels=8"], ["model.base_channels 4 -> 8", "--fresh"]),
    (["--model.image_size=16", "--data.image_size=16"], ["model.image_size 8", "16", f"--init {LAST}"]),
    (["--seed_everything=1"], ["seed_everything 0", "1", f"--init {LAST}"]),
    (
        ["--model=GAN", "--model.image_size=8", "--model.image_channels=3"],
        ["run of DCGAN", "trains GAN", "--fresh"],
    ),
    ([f"--init={LAST}"], ["--init", "--name"]),
]


@pytest.mark.usefixtures("begun")
def test_what_cannot_change(fails: Fails) -> None:
    before = contents()
    for options, words in REFUSED:
        args = [arg for arg in FIT if not (options[0] == "--model=GAN" and arg.startswith(("--model.", "--model=")))]
        message = fails(*args, "--trainer.max_steps=2", *options)
        assert all(word in message for word in words), message
        assert contents() == before


@pytest.mark.usefixtures("begun")
def test_what_fails_before_its_next_step_leaves_the_run_as_it_was(fails: Fails) -> None:
    before = contents()
    assert "41" in fails(*FIT, "--trainer.max_steps=4", "--data.batch_size=41")
    assert contents() == before


@pytest.mark.usefixtures("begun")
def test_the_advice_leads_on(capsys: pytest.CaptureFixture[str]) -> None:
    other = ["--name=other", "--model.latent_dim=5", f"--init={LAST}", "--init_strict=false", "--trainer.max_steps=1"]
    assert command(*FIT, *other, "--model.learning_rate=0") == 0
    assert (
        "discriminator, generator; of other sizes, so untrained: generator.layers.0.conv\n" in capsys.readouterr().out
    )
    ours, theirs = (checkpoint(path)["state_dict"] for path in (Path("runs/other"), RUN))
    key = "discriminator.layers.0.conv.weight"
    assert torch.equal(ours[key], theirs[key])


def test_time_alone_is_an_end_and_each_command_has_it_anew(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [0.0]  # of steps: nobody waits, and no machine is too slow
    monkeypatch.setattr(timer, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    inner = DCGAN.training_step

    def training_step(self: DCGAN, batch: Any, batch_idx: int) -> None:
        inner(self, batch, batch_idx)
        clock[0] += 1

    monkeypatch.setattr(DCGAN, "training_step", training_step)
    for steps in (3, 6):
        assert command(*FIT, "--trainer.max_time=00:00:00:03") == 0
        assert f"Time is up, the same command goes on: {steps} steps" in capsys.readouterr().out
        assert checkpoint(RUN)["global_step"] == steps


def test_precision_of_a_file_is_for_hardware_that_has_it(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A CPU that computes bf16 in software takes float32 unless it is told; a run keeps what it began with."""
    own = Path("own.yaml")
    own.write_text("trainer: {precision: bf16-mixed, accelerator: cpu}\n")

    def fit(name: str, *more: str, slow: bool, steps: int = 1) -> tuple[str, str]:
        monkeypatch.setattr(parsing, "slow_in_bf16", lambda device: slow)
        args = [*FIT[:-1], f"--config={own}", f"--name={name}", f"--trainer.max_steps={steps}", *more]
        assert command(*args) == 0
        taken = yaml.safe_load(Path("runs", name, "config.yaml").read_text())["trainer"]["precision"]
        return taken, capsys.readouterr().out

    taken, said = fit("slow", slow=True)
    assert taken == "32-true"
    assert said.count("This CPU computes bf16 in software") == 1
    assert fit("told", "--trainer.precision=bf16-mixed", slow=True)[0] == "bf16-mixed"
    taken, said = fit("fast", slow=False)
    assert (taken, "software" in said) == ("bf16-mixed", False)
    assert fit("slow", slow=False, steps=2)[0] == "32-true"
    assert fit("fast", slow=True, steps=2)[0] == "bf16-mixed"
    assert not Path("runs/fast/config.2.yaml").exists()


def test_differences() -> None:
    old = {"model": {"init_args": {"a": 1, "b": [1, 2]}}, "data": {"init_args": {"num_workers": 0}}}
    new = {
        "model": {"init_args": {"a": 1, "b": [1, 3]}},
        "data": {"init_args": {"num_workers": 4, "license": "CC0-1.0"}},
    }
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


@pytest.mark.slow
def test_begun_on_two_processes_it_goes_on_on_one(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    two = ["--data.batch_size=4", "--trainer.devices=2", "--trainer.max_steps=2"]
    assert on_ranks(2, parts.run, str(here), "", 0, [*FIT, *two]) == [0, 0]
    assert command(*FIT, "--data.batch_size=4", "--trainer.devices=1", "--trainer.max_steps=4") == 0
    assert "trainer.devices 2 -> 1" in capsys.readouterr().out
    assert checkpoint(RUN)["global_step"] == 4
    assert checkpoint(RUN)["Noise"]["images_seen"] == 2 * 8 + 2 * 4
