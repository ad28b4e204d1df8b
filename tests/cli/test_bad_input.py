"""What a user can do wrong: one clear line, exit code 2 before training and 1 in it, nothing lost, nothing written."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.cli import parts
from tests.cli.parts import TINY, checkpoint, command

Fails = Callable[..., str]
FIT = ["fit", *TINY, "--trainer.max_steps=2", "--name=run"]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--trainer.max_stps=3"], ["trainer.max_stps", "'trainer.max_steps'"]),
        (["--frsh"], ["--frsh", "fresh"]),
        (["--model.learning_rat=1"], ["learning_rat", "learning_rate"]),
        (["--data.batch_siz=1"], ["batch_siz", "batch_size"]),
        (["--model.learning_rate=abc"], ["learning_rate", "abc", "float"]),
        (["--trainer.max_steps=many"], ["max_steps", "many"]),
        (["--trainer.precision=bf17"], ["precision", "bf17", "bf16"]),
        (["--model=DCGN"], ["DCGN", "DCGAN"]),
        (["--data=Emojy"], ["Emojy", "Emoji"]),
        (["--trainer.callbacks+=SampleGrd"], ["SampleGrd", "SampleGrid"]),
        (["--trainer.callbacks+=SampleGrid", "--trainer.callbacks.every_n_step=1"], ["every_n_step", "every_n_steps"]),
        (["--trainer.accelerator=gpu"], ["gpu"]),
        (["--trainer.accelerator=abacus"], ["abacus"]),
        (["--trainer.strategy=ddq"], ["ddq"]),
        (["--model.image_size=33"], ["33", "power of two"]),
        (["--model.image_size=0"], ["0"]),
        (["--data.batch_size=41"], ["41", "40"]),
        (["--data.batch_size=0"], ["batch_size", "0"]),
        (["--trainer.max_steps=-1"], ["max_steps"]),
        (["--checkpoint_every=0"], ["checkpoint_every", "0"]),
        (["--init=nonsense"], ["nonsense"]),
        (["--seed_everything=x"], ["seed_everything", "x"]),
        (["stray"], ["stray"]),
    ],
    ids=lambda value: " ".join(value) if value and value[0].startswith("-") else "",
)
def test_settings(fails: Fails, args: list[str], words: list[str]) -> None:
    message = fails(*FIT, *args)
    assert all(word in message for word in words), message
    assert len(message) < 300, message
    assert "NestedArg" not in message
    # The same command, put right, is not in the way of what was left.
    assert command(*FIT) == 0


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--model=typo.GAN", "model typo.GAN cannot be imported: SyntaxError: '(' was never closed"),
        ("--model=lacking.GAN", "model lacking.GAN cannot be imported: ModuleNotFoundError: No module named 'no_such'"),
        ("--model=no_such.GAN", "model no_such.GAN: there is no no_such.py in "),
        ("--model=whole.MyGANN", "whole has no MyGANN: did you mean 'MyGAN'?"),
        ("--model=whole.Plain", "whole.Plain is no GenerativeModel: derive its class from"),
        ("--data=whole.Plain", "whole.Plain is no LightningDataModule: derive its class from"),
        ("--data=no_such.Data", "data no_such.Data: there is no no_such.py in "),
    ],
)
def test_a_class_of_one_s_own_that_cannot_be_taken(
    fails: Fails, monkeypatch: pytest.MonkeyPatch, option: str, words: str
) -> None:
    monkeypatch.syspath_prepend(str(Path.cwd()))
    for name in ("typo", "lacking", "whole"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    Path("typo.py").write_text("class GAN(\n")
    Path("lacking.py").write_text("import no_such\n")
    Path("whole.py").write_text("from zoo import DCGAN\nclass MyGAN(DCGAN): ...\nclass Plain: ...\n")
    assert words in fails(*FIT, option)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("trainer:\n  max_stps: 3\n", ["max_stps", "max_steps"]),
        ("model:\n  class_path: DCGAN\n  init_args:\n    imagesize: 3\n", ["imagesize", "image_size"]),
        (
            "model:\n  class_path: VAE\n  init_args:\n    decay: {kind: exponential}\n",
            ["decay", "needs a final factor above 0, not 0.0"],
        ),
        ("model: [\n", ["own.yaml"]),
        ("modle:\n  class_path: DCGAN\n", ["modle", "model"]),
        ("", ["model"]),
    ],
)
def test_own_recipe(fails: Fails, here: Path, text: str, words: list[str]) -> None:
    Path("own.yaml").write_text(text)
    message = fails("fit", "--config", "own.yaml", "--data=tests.cli.parts.Noise", "--trainer.max_steps=1")
    assert all(word in message for word in words), message
    assert not Path("runs").exists()


def test_what_cannot_change_the_result_may_differ(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(*FIT) == 0
    capsys.readouterr()
    free = ["--data.num_workers=1", "--trainer.enable_progress_bar=true", "--checkpoint_every=1"]
    assert command(*FIT, *free) == 0
    assert "finished" in capsys.readouterr().out


def test_fresh_moves_the_old_run_aside() -> None:
    assert command(*FIT) == 0
    old = checkpoint(Path("runs/run"))
    assert command(*FIT, "--fresh", "--seed_everything=1") == 0
    assert command(*FIT, "--fresh", "--seed_everything=2") == 0
    parts.same(checkpoint(Path("runs/run.1"))["state_dict"], old["state_dict"])
    assert [checkpoint(Path(f"runs/{name}"))["zoo"]["seed"] for name in ("run.1", "run.2", "run")] == [0, 1, 2]


def test_fresh_with_a_mistake_moves_nothing(fails: Fails) -> None:
    assert command(*FIT) == 0
    for mistake in ("--model.image_size=33", "--trainer.max_steps=-1", "--trainer.accelerator=gpu"):
        fails(*FIT, "--fresh", mistake)
        assert [path.name for path in Path("runs").iterdir()] == ["run"]
        assert checkpoint(Path("runs/run"))["global_step"] == 2


def test_nothing_to_write_to(fails: Fails) -> None:
    Path("file").write_text("")
    assert "file/run" in fails(*FIT, "--runs_dir=file")
    if os.path.isdir("/proc/self"):
        assert "/proc/self/fd/run" in fails(*FIT, "--runs_dir=/proc/self/fd")


def test_a_folder_that_is_no_run(fails: Fails) -> None:
    Path("runs/run").mkdir(parents=True)
    Path("runs/run/thesis.txt").write_text("mine")
    assert "runs/run" in fails(*FIT)
    assert Path("runs/run/thesis.txt").read_text() == "mine"


def test_a_loss_that_is_not_a_number(fails: Fails, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = parts.Watched.training_step

    def training_step(self: parts.Watched, batch: dict[str, torch.Tensor], batch_idx: int) -> None:
        if self.trainer.global_step == 5:
            batch["image"].fill_(float("nan"))
        inner(self, batch, batch_idx)

    monkeypatch.setattr(parts.Watched, "training_step", training_step)
    message = fails(*FIT, "--trainer.max_steps=9", "--checkpoint_every=2", code=1)
    assert "discriminator" in message
    assert "batch 5" in message
    assert "last.ckpt" in message
    assert checkpoint(Path("runs/run"))["global_step"] == 4


def test_a_full_disk(fails: Fails, monkeypatch: pytest.MonkeyPatch) -> None:
    inner, count = torch.save, iter(range(100))

    def save(*args: object, **options: object) -> None:
        if next(count) == 1:
            raise OSError(28, "No space left on device")
        inner(*args, **options)

    monkeypatch.setattr(torch, "save", save)
    message = fails(*FIT, "--trainer.max_steps=9", "--checkpoint_every=2", code=1)
    assert "No space left on device" in message
    assert checkpoint(Path("runs/run"))["global_step"] == 2
    monkeypatch.undo()
    assert command(*FIT, "--trainer.max_steps=9", "--checkpoint_every=2") == 0


def test_missing_data(fails: Fails, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_OFFLINE", "1")
    args = ["fit", "--model=DCGAN", "--model.image_channels=1", "--model.image_size=28", "--data=MNIST"]
    message = fails(*args, "--data.data_dir=nowhere", "--trainer.max_steps=1", "--trainer.accelerator=cpu")
    assert "nowhere" in message


def test_traceback_on_demand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_TRACEBACK", "1")
    with pytest.raises(FileNotFoundError):
        command("fit", "--config", "nonsense")


@pytest.mark.slow
def test_a_users_own_module_is_not_in_the_way(here: Path) -> None:
    Path("callbacks.py").write_text("raise SystemExit('imported by mistake')\n")
    run = [sys.executable, "-m", "zoo", "fit", "--config", "dcgan-emoji32-smoke", "--trainer.max_steps", "1"]
    subprocess.run(run, capture_output=True, check=True)
