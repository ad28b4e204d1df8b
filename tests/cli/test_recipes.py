"""Every recipe that ships: its form, and one shrunk batch of it."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import zoo
from tests.cli.parts import checkpoint, command
from zoo import pretrained, recipes
from zoo.datamodules.base import ImageDataModule, ImageSet
from zoo.datamodules.unpaired import Pairs

NAMES = zoo.list_recipes()
BUDGETS = ("smoke", "small", "paper")


def settings(name: str) -> dict[str, Any]:
    return dict(yaml.safe_load(recipes.find(name).read_text()))


def defaults(part: dict[str, Any], package: Any) -> dict[str, Any]:
    """Default arguments of a recipe's class."""
    signature = inspect.signature(getattr(package, part["class_path"].rpartition(".")[2]))
    return {name: parameter.default for name, parameter in signature.parameters.items()}


def data_names(data: dict[str, Any]) -> list[str]:
    """What a recipe may call its data: the class, or what the class was pointed at."""
    kind, arguments = data["class_path"].rpartition(".")[2], data.get("init_args", {})
    if kind in ("Attributes", "Captioned"):
        return [str(arguments.get("source", "emoji"))]
    if kind == "ImageFolder":
        return [Path(arguments["data_dir"]).name]
    if kind == "Patches":
        return [str(arguments.get("source", "Emoji")).lower()]
    if kind == "Unpaired":
        module = zoo.datamodules.Unpaired(**arguments)
        name = module.name.removesuffix("-fit").removesuffix(str(module.image_size))
        return [name] + ([] if module.data_dir else ["emoji"])
    return [kind.lower()]


# What makes each model small, whatever the recipe says.
SMALL: dict[str, Any] = {
    "base_channels": 4,
    "hidden_features": 8,
    "discriminator_features": [8],
    "num_blocks": 1,
    "features": 8,
    "embedding_dim": 8,
    "hidden_channels": 8,
    "num_layers": 1,
    "discriminator_layers": 1,
    "pretraining_steps": 0,
    "discriminator_channels": 4,
    "channels": [8, 8],
    "text_encoder": "encoder.safetensors",
    "fmap_base": 64,
    "max_channels": 4,
}


def shrunk(model: dict[str, Any]) -> dict[str, Any]:
    """A recipe's model, small."""
    default = defaults(model, zoo)
    arguments = dict(model.get("init_args", {}))
    for name, value in SMALL.items():
        if arguments.get(name, default.get(name)):  # 0 is off, and stays so
            is_list = isinstance(arguments.get(name, default.get(name)), list | tuple)
            if isinstance(value, list) and not is_list:
                arguments[name] = value[0]
            else:
                arguments[name] = [value] if is_list and not isinstance(value, list) else value
    if "growth" in default:
        arguments["growth"] = arguments.get("growth", {}) | {"global_batch_size": 4, "global_batch_sizes": {}}
    return model | {"init_args": arguments}


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
    parts = ((model, zoo), (data, zoo.datamodules))
    architecture, what, *_, budget = name.split("-")
    assert budget in BUDGETS
    kinds = getattr(zoo, model["class_path"].rpartition(".")[2]).__mro__  # a variant may go under its paper's name
    assert architecture.replace("_", "") in [kind.__name__.lower() for kind in kinds]
    sizes = [part.get("init_args", {}).get("image_size", defaults(part, kind)["image_size"]) for part, kind in parts]
    assert re.fullmatch(f"({'|'.join(data_names(data))}){sizes[1]}", what)
    assert sizes[0] == sizes[1]
    assert {"max_steps", "max_epochs"} & found["trainer"].keys()
    # Only what differs from the defaults.
    for part, kind in parts:
        default = defaults(part, kind)
        same = [k for k, v in part.get("init_args", {}).items() if k in default and default[k] == v]
        assert set(same) <= {"image_size", "batch_size"}, same


def test_every_budget_of_the_demo_is_there() -> None:
    assert {f"dcgan-emoji32-{budget}" for budget in ("smoke", "small")} <= set(NAMES)


# What makes each callback quick.
QUICK: dict[str, dict[str, Any]] = {
    "Completion": {"num_images": 1, "num_completions": 2},
    "Evaluate": {"num_samples": 6, "metrics": ["fd", "recall"], "options": {"chunk_size": 6}},
    "FrechetDistance": {"num_samples": 4, "chunk_size": 4, "at_start": False},
    "Interpolation": {"num_walks": 2, "columns": 2, "frames": 2},
    "LatentScatter": {"num_images": 4},
    "LatentTraversal": {"num_rows": 1, "steps": 2, "max_codes": 2},
    "Measure": {"num_samples": 20},
    "PatchSheet": {"num_images": 2},
    "PromptSheet": {"num_noises": 2, "steps": 2},
    "Reconstruction": {"num_images": 4},
    "SampleGrid": {"num_samples": 4},
    "TranslationSheet": {"num_images": 2},
}
QUICK_OPTIONS: dict[str, dict[str, Any]] = {
    "beta_vae_metric": {"pairs": 2},
    "elbo": {"num_importance": 2},
    "iw_nll": {"num_importance": 2},
    "knn": {"num_fit": 8},
    "linear_probe": {"num_fit": 8},
    "r_precision": {"candidates": 2, "retriever": "encoder.safetensors"},
    "retrieval": {"candidates": 2},
}
PICTURES = {
    "Completion": "completion-00000001.png",
    "Interpolation": "interpolation-00000001.gif",
    "LatentScatter": "scatter-00000001.png",
    "LatentTraversal": "traversal-00000001.gif",
    "PatchSheet": "patches-00000001.png",
    "PromptSheet": "prompts-00000001.png",
    "Reconstruction": "reconstruction-00000001.png",
    "SampleGrid": "step-00000001.png",
    "TranslationSheet": "translation-00000001.png",
}


@pytest.mark.parametrize("name", NAMES)
def test_one_shrunk_batch(name: str, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = settings(name)
    found["model"] = shrunk(found["model"])
    found["data"]["init_args"] |= {"batch_size": 4, "num_workers": 0}
    if "num_labelled" in found["data"]["init_args"]:
        found["data"]["init_args"] |= {"num_labelled": 10, "labelled_batch_size": 4}
    found["trainer"] |= {"max_steps": 1, "accelerator": "cpu", "enable_progress_bar": False}
    if "text_encoder" in found["data"]["init_args"]:
        found["data"]["init_args"] |= {"text_encoder": None, "average": 1}
    if found["data"]["class_path"].endswith("Captioned"):
        small = zoo.TextEncoder(channels=(4, 4), hidden_features=4, embedding_dim=8, max_length=80, base_channels=4)
        pretrained.save(small, Path("encoder.safetensors"))
    pictures = []
    for callback in found["trainer"]["callbacks"]:
        kind = callback["class_path"].rpartition(".")[2]
        options = callback.setdefault("init_args", {})
        options |= QUICK[kind]
        if more := QUICK_OPTIONS.get(options.get("measure", "")):
            options["options"] = options.get("options", {}) | more
        pictures += [PICTURES[kind]] if kind in PICTURES else []

    def open_(self: ImageDataModule) -> dict[str, ImageSet]:
        channels = 1 if "MNIST" in type(self).__name__ else 3
        images = np.random.default_rng(0).integers(0, 256, (20, channels, self.image_size, self.image_size), np.uint8)
        label = torch.arange(20) % 10
        fields: dict[str, Any] = {"label": label}
        if names := self.class_names.get("attributes"):
            classes = len(names)
            label = torch.arange(20) % classes
            pairs = torch.arange(classes) + label[:, None] * 0
            fields = {"label": label, "attributes": torch.eye(classes)[label], "pairs": pairs}
        if type(self).__name__ == "Captioned":
            texts = [f"noto's number {i} of flags: dark skin tone" for i in range(20)]
            fields |= {"caption": texts, "mismatched_caption": texts[::-1], "caption_class": torch.arange(20)}
            for field, value in (("skin_tone", "dark"), ("vendor", "noto"), ("category", "Flags")):
                fields[field] = torch.full((20,), self.class_names.get(field, [value]).index(value))
        one = ImageSet([images], fields)
        paired = "Unpaired" in type(self).__name__
        return {split: Pairs(one, one) if paired else one for split in ("train", "val", "test", "unseen")}

    source = found["data"]["init_args"].get("source", "Emoji")
    for kind in ("MNIST", "FashionMNIST", found["data"]["class_path"].rpartition(".")[2]):
        if kind != "Shapes":  # which needs no files
            kind = source if kind == "Patches" else kind  # which opens another one
            module = getattr(zoo.datamodules, kind)
            monkeypatch.setattr(module, "open", open_)
            monkeypatch.setattr(module, "prepare_data", lambda self: None)
    monkeypatch.setenv("ZOO_HOME", str(here))
    Path(f"{name}.yaml").write_text(yaml.safe_dump(found))
    assert command("fit", "--config", f"{name}.yaml") == 0
    assert checkpoint(Path("runs", name))["global_step"] == 1
    for picture in pictures:
        assert Path("runs", name, "samples", picture).is_file()


def test_the_paper_recipe_is_the_papers_setting() -> None:
    arguments = settings("dcgan-celeba64-paper")
    model = zoo.DCGAN(**arguments["model"]["init_args"] | {"base_channels": 4})
    paper = zoo.DCGAN.paper(base_channels=4)
    assert dict(model.hparams) == dict(paper.hparams)
    assert arguments["model"]["init_args"]["base_channels"] == 128
    assert arguments["data"]["init_args"]["batch_size"] == 128
