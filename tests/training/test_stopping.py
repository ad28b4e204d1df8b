"""A plain Trainer that is stopped: what it keeps, what it logs, and that it goes on as if nothing had happened."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader

from tests.contract import Data, trainer
from zoo import DCGAN, VAE
from zoo.callbacks import SampleGrid
from zoo.engine import stopping
from zoo.engine.stopping import Stopped, StopSignals, rank_timeout, shield_worker

BATCHES = [{"image": torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(i)) * 2 - 1} for i in range(5)]


class Rest(torch.utils.data.Dataset[Any]):
    """What is left of an epoch, however often a pass begins."""

    def __init__(self, run: Trainer) -> None:
        self.run = run

    def __len__(self) -> int:
        return len(BATCHES)

    def __getitem__(self, index: int) -> Any:
        return BATCHES[index]

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.run.fit_loop.epoch_loop.batch_progress.current.ready, len(self)))


class Interrupted(DCGAN):
    """A tiny DCGAN whose process gets a signal in a batch, and whose generator steps in every third."""

    def __init__(self, signum: int = 0, at: int = -1) -> None:
        torch.manual_seed(0)
        super().__init__(8, base_channels=4, latent_dim=5, step_every={"generator": 3})
        self.signum, self.at = signum, at

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self.batch_index == self.at:
            os.kill(os.getpid(), self.signum)
        # What a user's model may log: a mean over the epoch.
        self.log("mine", float(batch_idx), on_step=False, on_epoch=True, batch_size=1)


def fit(model: Any, folder: Path, *, epochs: int = 3, checkpoint: Any = None, **options: Any) -> Any:
    keep = [] if options.get("enable_checkpointing") is False else [ModelCheckpoint(dirpath=folder, save_top_k=0)]
    run = trainer(
        max_epochs=epochs,
        log_every_n_steps=1,
        **{"enable_checkpointing": True, "logger": CSVLogger(folder, name="", version=""), "callbacks": keep} | options,
    )
    rest: Any = Rest(run)
    run.fit(model, DataLoader(rest, batch_size=None, sampler=rest), ckpt_path=checkpoint)
    return run


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The weights of a run that nobody stopped."""
    model = Interrupted()
    fit(model, tmp_path_factory.mktemp("straight"))
    return model.state_dict()


# Within an epoch; at its end; in its first batch.
@pytest.mark.parametrize(("signum", "at"), [(signal.SIGTERM, 6), (signal.SIGINT, 9), (signal.SIGTERM, 5)])
def test_a_signal_saves_and_the_run_goes_on(tmp_path: Path, straight: dict[str, Any], signum: int, at: int) -> None:
    with pytest.raises(Stopped) as stopped:
        fit(Interrupted(int(signum), at), tmp_path)
    assert stopped.value.code == 128 + signum
    assert (stopped.value.step, stopped.value.path) == (at + 1, tmp_path / "last.ckpt")
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    model = Interrupted()
    assert fit(model, tmp_path, checkpoint=tmp_path / "last.ckpt").global_step == 15
    assert all(torch.equal(value, straight[name]) for name, value in model.state_dict().items())


def test_without_checkpoints_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(Stopped, match=r"stopped by SIGTERM at step 3, nothing was saved") as stopped:
        fit(Interrupted(15, 2), tmp_path, enable_checkpointing=False, logger=False)
    assert stopped.value.path is None
    assert not list(tmp_path.iterdir())


def test_a_second_ctrl_c_stops_at_once(tmp_path: Path) -> None:
    signals = StopSignals(trainer())
    signals._ask(signal.SIGINT, None)
    signals._ask(signal.SIGINT, None)  # a launcher repeats what the terminal has sent
    assert signals._asked == 1
    signals._first -= 3
    with pytest.raises(KeyboardInterrupt):
        signals._ask(signal.SIGINT, None)


def test_a_run_that_ended_within_an_epoch_can_be_made_longer(tmp_path: Path, straight: dict[str, Any]) -> None:
    run = fit(Interrupted(), tmp_path, epochs=-1, max_steps=8)
    run.save_checkpoint(tmp_path / "8.ckpt")
    model = Interrupted()
    assert fit(model, tmp_path, checkpoint=tmp_path / "8.ckpt").global_step == 15
    assert all(torch.equal(value, straight[name]) for name, value in model.state_dict().items())


def test_only_what_a_batch_computed_is_logged(tmp_path: Path) -> None:
    import csv

    fit(Interrupted(), tmp_path, epochs=2)
    with open(tmp_path / "metrics.csv") as file:
        rows = list(csv.DictReader(file))
    stepped = [int(row["step"]) for row in rows if row["generator/adversarial"]]
    assert stepped == [2, 5, 8], "the generator's term is repeated where it did not step"
    assert [float(row["mine"]) for row in rows if row["mine"]] == [2.0, 2.0], "means over an epoch are lost"


def test_pictures_of_two_runs_stay_apart(tmp_path: Path) -> None:
    for version in range(2):
        model = VAE(8, 3, hidden_features=(4,))
        logger = CSVLogger(tmp_path)
        run = trainer(logger=logger, default_root_dir=tmp_path, callbacks=[SampleGrid(None, 4, gif=False)])
        run.fit(model, datamodule=Data(BATCHES[:1]))
        assert (tmp_path / f"lightning_logs/version_{version}/samples/step-00000001.png").exists()
    assert not (tmp_path / "samples").exists()


def test_a_loader_s_worker_lives_through_one_signal_to_all(monkeypatch: pytest.MonkeyPatch) -> None:
    pid = os.fork()
    if not pid:
        shield_worker(0)
        for signum in (signal.SIGINT, signal.SIGUSR1, signal.SIGTERM):
            os.kill(os.getpid(), signum)
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
        time.sleep(5)
        os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0


@pytest.mark.parametrize("value", ["x", "0", "-3", "nan", "inf"])
def test_the_time_that_ranks_wait_is_a_number(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("ZOO_RANK_TIMEOUT", value)
    with pytest.raises(ValueError, match=f"ZOO_RANK_TIMEOUT must be a number of seconds above 0, not '{value}'"):
        rank_timeout()
    monkeypatch.setenv("ZOO_RANK_TIMEOUT", "2.5")
    assert rank_timeout().total_seconds() == 2.5


def test_a_process_whose_launcher_is_gone_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """It asks itself to stop, and leaves if that does not help."""
    monkeypatch.setattr(stopping, "ORPHAN_SECONDS", 0.1)
    ends: list[Any] = []
    monkeypatch.setattr(os, "kill", lambda pid, signum: ends.append((pid, signum)))
    monkeypatch.setattr(os, "_exit", lambda code: ends.append(code))
    StopSignals(trainer())._watch(os.getppid() + 1)
    assert ends == [(os.getpid(), signal.SIGTERM), 143]
