"""Where commands compute."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from jsonargparse import Namespace

from tests.cli.parts import command
from zoo.callbacks.base import Result
from zoo.cli import fit, parsing
from zoo.dcgan import DCGAN


class Data:
    """One batch of zeros."""

    splits = {"val": range(2)}  # noqa: RUF012

    def prepare_data(self) -> None: ...

    def setup(self, stage: str | None) -> None: ...

    def predict_dataloader(self) -> list[Any]:
        return [{"image": torch.zeros(2, 3, 8, 8)}]


@pytest.fixture
def cli(tmp_path: Path) -> Any:
    """A command whose Trainer has another device than the CPU."""
    strategy = SimpleNamespace(root_device=torch.device("meta"))
    folder = SimpleNamespace(path=tmp_path)
    return SimpleNamespace(datamodule=Data(), folder=folder, trainer=SimpleNamespace(strategy=strategy))


def test_measures_are_computed_on_the_trainers_device(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, places = DCGAN(8, base_channels=4), []

    def measure(name: str, model: DCGAN, data: Any, arguments: dict[str, Any]) -> list[Any]:
        places.append((name, arguments["split"], model.device.type))
        return [Result(1.0, "fd[]")]

    monkeypatch.setattr(fit, "measure_once", measure)
    cli.resolved = {"trainer": {"callbacks": None}}
    fit._measure(cli, model, "val")
    assert places == [("image_metrics", "val", "meta")]


def test_predictions_are_computed_on_the_trainers_device(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, places = DCGAN(8, base_channels=4), []

    def real_and_fake(batch: Any, **_: Any) -> Any:
        places.extend([model.device.type, batch["image"].device.type])
        return None, torch.zeros(2, 3, 8, 8)

    monkeypatch.setattr(model, "real_and_fake", real_and_fake)
    fit._predict(cli, model)
    assert places == ["meta", "meta"]
    assert len([*cli.folder.path.glob("predictions/*.png")]) == 2


def test_denormals_are_flushed_while_a_fit_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    def flushed() -> bool:
        return bool(torch.full((), 1e-40).mul(1) == 0)

    found = []
    monkeypatch.setattr(fit, "run", lambda name, *_: found.append((name, flushed())))
    for name in ("fit", "validate"):
        command(name)
    can = torch.set_flush_denormal(False)
    assert found == [("fit", can), ("validate", False)]
    assert not flushed()


def test_denormals_are_flushed_in_all_threads() -> None:
    """A mean of Adam's would else become 0 or not by the thread that computes it."""
    lines = (
        "import torch; from zoo.engine.devices import flushed_denormals",
        "torch.set_num_threads(2); can = torch.set_flush_denormal(False)",
        "with flushed_denormals(): tiny = torch.full((10**6,), 1e-40).mul(1)",
        "assert not can or tiny.eq(0).all()",
        "assert torch.full((), 1e-40).mul(1) > 0",
    )
    subprocess.run([sys.executable, "-c", "\n".join(lines)], check=True, timeout=120)


@pytest.mark.parametrize(("devices", "processes"), [("auto", 1), (-1, 4), ("-1", 4), (2, 2), ("0,3", 2)])
def test_one_device_unless_more_are_asked_for(devices: Any, processes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    for name in ("WORLD_SIZE", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    assert parsing._processes(Namespace(devices=devices, accelerator="auto", num_nodes=1)) == processes
