"""Every recipe that ships: its form, and one shrunk batch of it."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import zoo
from datamodules.base import ImageDataModule, ImageSet
from tests.cli.parts import checkpoint, command
from zoo import recipes

NAMES = zoo.list_recipes()
BUDGETS = ("smoke", "small", "paper")


def settings(name: str) -> dict[str, Any]:
    return dict(yaml.safe_load(recipes.find(name).read_text()))


@pytest.mark.parametrize("name", NAMES)
def test_form(name: str) -> None:
    text = recipes.find(name).read_text()
    lines = text.splitlines()
    assert len(lines) <= 40
    assert lines[0].startswith("# ")
    assert recipes.describe(name) == lines[0][2:]
    found = settings(name)
    assert isinstance(found["seed_everything"], int)
    model, data = found["model"], found["data"]
    architecture, what, *_, budget = name.split("-")
    assert budget in BUDGETS
    assert model["class_path"].rpartition(".")[2].lower() == architecture
    assert re.fullmatch(rf"{data['class_path'].rpartition('.')[2].lower()}{data['init_args']['image_size']}", what)
    assert model["init_args"]["image_size"] == data["init_args"]["image_size"]
    assert {"max_steps", "max_epochs"} & found["trainer"].keys()
    # Only what differs from the defaults.
    for part, kind in ((model, zoo), (data, importlib.import_module("datamodules"))):
        defaults = getattr(kind, part["class_path"].rpartition(".")[2]).__init__.__kwdefaults__
        same = [key for key, value in part["init_args"].items() if key in defaults and defaults[key] == value]
        assert set(same) <= {"image_size", "batch_size"}, same


def test_every_budget_of_the_demo_is_there() -> None:
    assert {f"dcgan-emoji32-{budget}" for budget in ("smoke", "small")} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_one_shrunk_batch(name: str, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = settings(name)
    found["model"]["init_args"]["base_channels"] = 4
    found["data"]["init_args"] |= {"batch_size": 4, "num_workers": 0}
    found["trainer"] |= {"max_steps": 1, "accelerator": "cpu", "enable_progress_bar": False}
    for callback in found["trainer"]["callbacks"]:
        options = callback.setdefault("init_args", {})
        if callback["class_path"].endswith("FrechetDistance"):
            options |= {"num_samples": 4, "chunk_size": 4, "at_start": False}
        if callback["class_path"].endswith("SampleGrid"):
            options["num_samples"] = 4

    def open_(self: ImageDataModule) -> dict[str, ImageSet]:
        channels = 1 if "MNIST" in type(self).__name__ else 3
        images = np.random.default_rng(0).integers(0, 256, (8, channels, self.image_size, self.image_size), np.uint8)
        return {split: ImageSet([images], {"label": torch.arange(8)}) for split in ("train", "val", "test")}

    kind = getattr(importlib.import_module("datamodules"), found["data"]["class_path"].rpartition(".")[2])
    monkeypatch.setattr(kind, "open", open_)
    monkeypatch.setattr(kind, "prepare_data", lambda self: None)
    monkeypatch.setenv("ZOO_HOME", str(here))
    Path(f"{name}.yaml").write_text(yaml.safe_dump(found))
    assert command("fit", "--config", f"{name}.yaml") == 0
    assert checkpoint(Path("runs", name))["global_step"] == 1
    assert Path("runs", name, "samples/step-00000001.png").is_file()


def test_the_paper_recipe_is_the_papers_setting() -> None:
    arguments = settings("dcgan-celeba64-paper")
    model = zoo.DCGAN(**arguments["model"]["init_args"] | {"base_channels": 4})
    paper = zoo.DCGAN.paper(base_channels=4)
    assert dict(model.hparams) == dict(paper.hparams)
    assert arguments["model"]["init_args"]["base_channels"] == 128
    assert arguments["data"]["init_args"]["batch_size"] == 128
