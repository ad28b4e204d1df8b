"""What people type that has another name here, paths that lead elsewhere, broken files and variables: one line each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.parts import TINY, command
from zoo.cli.advice import about_setting, about_word
from zoo.cli.messages import explain, load_settings

Fails = Callable[..., str]
FIT = ["fit", *TINY, "--name=run", "--trainer.max_steps=1"]


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("resume", "the same command resumes its run; --init FILE"),
        ("ckpt_path", "the same command resumes its run"),
        ("trainer.resume_from_checkpoint", "the same command resumes its run"),
        ("gpus", "--trainer.devices"),
        ("trainer.gpus", "--trainer.devices"),
        ("lr", "--model.learning_rate"),
        ("model.lr", "--model.learning_rate"),
        ("model.nz", "--model.latent_dim"),
        ("data.root", "--data.data_dir"),
        ("epochs", "--trainer.max_epochs"),
        ("trainer.epochs", "--trainer.max_epochs"),
        ("seed", "--seed_everything"),
        ("output_dir", "--runs_dir and --name"),
        ("optimizer", "--model.help"),
        ("trainer.max_stps", "'trainer.max_steps'"),
        ("chekpoint_every", "'checkpoint_every'"),
        ("qqqqq", "zoo fit --help"),
    ],
)
def test_settings_under_other_names(name: str, advice: str) -> None:
    assert advice in about_setting(name)


def test_settings_of_a_class() -> None:
    assert about_setting("root", "data", "zoo.datamodules.Emoji") == ": take --data.data_dir"
    assert about_setting("imagesize", "data", "zoo.datamodules.Emoji") == ": did you mean 'data.image_size'?"
    # What other classes have is no advice.
    assert about_setting("gamma", "model", "zoo.DCGAN") == "; --model.help DCGAN lists them"


@pytest.mark.parametrize(
    ("word", "advice"),
    [
        ("dcgan-emoji32-smoke", "--config dcgan-emoji32-smoke"),
        ("own.yaml", "--config own.yaml"),
        ("DCGAN", "--model DCGAN"),
        ("Emoji", "--data Emoji"),
        ("dcgan-emoji32-smok", "did you mean 'dcgan-emoji32-smoke'"),
    ],
)
def test_words_without_an_option(word: str, advice: str) -> None:
    assert advice in about_word(word)


def test_the_parsers_words_are_understood() -> None:
    assert explain("-1 is not in bounds, numpy accepts from 0 to 9") == "seed_everything must lie in 0..9, not -1"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["train", "--config=dcgan-emoji32-smoke"], ["'train'", "take 'fit'"]),
        (["import", "dcgan", "G.pth", "--from=pytorch-examples", "--out=G.pth"], ["G.pth", ".safetensors"]),
        (["generate", "dcgan-emoji32"], ["'generate'", "take 'sample'"]),
        (["fit", "dcgan-emoji32-smoke"], ["--config dcgan-emoji32-smoke"]),
        ([*FIT, "--resume"], ["--resume", "the same command resumes"]),
        ([*FIT, "--seed=1"], ["--seed", "--seed_everything"]),
        ([*FIT, "--seed_everything=-1"], ["seed_everything", "-1", "0..4294967295"]),
        ([*FIT, "--data.root=x"], ["data.root", "--data.data_dir"]),
        ([*FIT, "--data=ImageFolder"], ["ImageFolder needs data_dir", "--data.data_dir"]),
        ([*FIT, "--optimizer=adam"], ["optimizer", "--model.help"]),
        ([*FIT, "--trainer.limit_train_batches=0"], ["limit_train_batches", "at least 1"]),
        ([*FIT, "--trainer.max_time=5m"], ["max_time", "5m", "00:01:30:00"]),
        ([*FIT, "--trainer.devices=x"], ["devices", "'x'", "0,2"]),
        ([*FIT, "--trainer.max_steps=0"], ["max_steps", "at least 1"]),
        ([*FIT, "--runs_dir=s3://bucket/runs"], ["s3://bucket/runs", "no folder of this machine"]),
        ([*FIT, "--name=../../x"], ["../../x", "--runs_dir"]),
        ([*FIT, "--name=a/../.."], ["a/../..", "--runs_dir"]),
        ([*FIT, "--name=/x"], ["/x", "--runs_dir"]),
    ],
    ids=lambda value: value[-1] if value and value[0] in ("fit", "train", "generate") else "",
)
def test_commands(fails: Fails, here: Path, args: list[str], words: list[str]) -> None:
    message = fails(*args)
    assert all(word in message for word in words), message
    assert not [*here.iterdir()]


def test_a_name_may_have_folders() -> None:
    assert command(*FIT, "--name=a/b/../c") == 0
    assert Path("runs/a/c/config.yaml").is_file()


@pytest.mark.parametrize("name", ["RANK", "LOCAL_WORLD_SIZE", "SLURM_NTASKS"])
def test_a_variable_that_is_no_number(fails: Fails, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "x")
    message = fails(*FIT)
    assert f"environment variable {name} is 'x'" in message


def test_fresh_moves_only_runs(fails: Fails) -> None:
    Path("runs/run").mkdir(parents=True)
    Path("runs/run/thesis.txt").write_text("mine")
    assert "holds no run" in fails(*FIT, "--fresh")
    assert [path.name for path in Path("runs").iterdir()] == ["run"]


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 9)
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("model:\n  class_path: DCGAN\n  init_args: {a: [}\n", ["own.yaml, line 3"]),
        (BOMB, ["own.yaml", "aliases"]),
        ("model: &a\n  again: *a\n", ["own.yaml", "aliases"]),
    ],
)
def test_files(fails: Fails, text: str, words: list[str]) -> None:
    Path("own.yaml").write_text(text)
    message = fails(*FIT, "--config=own.yaml")
    assert all(word in message for word in words), message
    # As a run's own.
    Path("runs/run").mkdir(parents=True)
    Path("own.yaml").rename("runs/run/config.yaml")
    Path("runs/run/metrics.csv").write_text("step\n")
    assert words[-1].replace("own", "runs/run/config") in fails(*FIT)


def test_aliases_are_fine(here: Path) -> None:
    Path("own.yaml").write_text("model: &a {class_path: DCGAN}\nother: [*a, *a]\n")
    assert load_settings(here / "own.yaml")["other"] == [{"class_path": "DCGAN"}] * 2
