"""Suites: what is read from a file, what each entry comes to, and what is refused before anything is trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from zoo import recipes, suites
from zoo.bench.plan import checked, narrowed, planned
from zoo.bench.suite import Suite, check_budget, check_seeds, read_suite
from zoo.cli.bench.run import _seeds
from zoo.datamodules import MNIST, FashionMNIST, ImageFolder

SMALL = """
description: two of them
data: {class_path: tests.cli.parts.Noise}
budget: {images: 24}
seeds: 2
evaluate: {num_samples: 8, extractor: classifier-mnist28}
measures: [nll, sampling_speed]
entries:
  gan: {recipe: gan-mnist28-smoke, note: as on MNIST}
  nade: {model: {class_path: PixelCNN, init_args: {hidden_channels: 4}}, data: {batch_size: 4}}
"""


def suite(tmp_path: Path, text: str = SMALL, name: str = "mine") -> Suite:
    path = tmp_path / f"{name}.yaml"
    path.write_text(text)
    return read_suite(path)


@pytest.mark.parametrize("name", suites.list_suites())
def test_every_entry_of_every_suite_can_be_built(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (MNIST, FashionMNIST, ImageFolder):  # whose files are not in the package
        monkeypatch.setattr(kind, "prepare_data", lambda self: None)
    if name in ("fashionmnist28", "folder"):  # the others are counted
        monkeypatch.setattr("zoo.bench.plan.flops_per_image", lambda model, batch: 1.0)
    path = suites.find(name)
    assert len(path.read_text().splitlines()) <= 40
    found = read_suite(path)
    if name == "folder":
        with pytest.raises(ValueError, match="ImageFolder has no data of its own: give --data_dir"):
            checked(found)
        found.data["init_args"]["data_dir"] = "pictures"
    for entry, config in checked(found)[0].items():
        assert config["trainer"]["callbacks"][0]["init_args"]["minutes"] == found.budget["minutes"], entry
    if name == "mnist28":
        assert len(found.entries) >= 14


def test_what_an_entry_comes_to(tmp_path: Path) -> None:
    found, flops = checked(suite(tmp_path))
    assert all(flops[name] > 1e3 for name in found)
    assert list(found) == ["gan", "nade"]
    gan, nade = found.values()
    assert gan["model"]["class_path"] == "zoo.gan.GAN"
    assert not {"image_size", "image_channels"} & gan["model"]["init_args"].keys()
    recipe = yaml.safe_load(recipes.find("gan-mnist28-smoke").read_text())
    assert gan["data"]["init_args"] == {"batch_size": recipe["data"]["init_args"]["batch_size"]}
    assert recipe["trainer"]["precision"] == "bf16-mixed"
    assert "precision" not in gan["trainer"], "entries are compared in float32"
    kinds = [callback["class_path"].rpartition(".")[2] for callback in gan["trainer"]["callbacks"]]
    assert kinds == ["Budget", "SampleGrid", "Evaluate", "Measure"]
    measured = [c["init_args"]["measure"] for c in nade["trainer"]["callbacks"] if "measure" in c["init_args"]]
    assert measured == ["nll", "sampling_speed"]
    assert nade["data"]["init_args"] == {"batch_size": 4}


def test_looks_along_the_way(tmp_path: Path) -> None:
    found = suite(tmp_path, SMALL + "curve: {looks: 3, num_samples: 4, metrics: [fd]}\n").configuration("gan")
    first, _, whole, along, *_ = [callback["init_args"] for callback in found["trainer"]["callbacks"]]
    assert first == {"images": 24, "looks": 3}
    assert whole == {"num_samples": 8, "extractor": "classifier-mnist28"}
    when = {"at_end": False, "at_looks": True}
    assert along == {"num_samples": 4, "extractor": "classifier-mnist28", "metrics": ["fd"], **when}


def test_runs_of_the_first_seed_come_first(tmp_path: Path) -> None:
    plan = planned(suite(tmp_path), tmp_path / "runs")
    assert [run.name for run in plan.runs] == ["gan-0", "nade-0", "gan-1", "nade-1"]
    assert plan.folder == tmp_path / "runs/bench/mine"
    assert not plan.folder.exists()
    plan.write()
    assert read_suite(plan.folder / "suite.yaml") == suite(tmp_path)
    planned(narrowed(suite(tmp_path), only=["nade"], seeds=[7]), tmp_path / "runs").write()
    again = read_suite(plan.folder / "suite.yaml")
    assert (list(again.entries), again.seeds) == (["gan", "nade"], [0, 1, 7])
    assert json.loads((plan.folder / "flops.json").read_text()).keys() == {"gan", "nade"}


def test_a_narrower_suite(tmp_path: Path) -> None:
    found = narrowed(suite(tmp_path), only=["nade"], seeds=[5], budget={"minutes": 1})
    assert (list(found.entries), found.seeds, found.name) == (["nade"], [5], "mine-1minutes")
    assert narrowed(suite(tmp_path), budget={"images": 24}).name == "mine"
    with pytest.raises(ValueError, match="no entry 'nadir': did you mean 'nade'"):
        narrowed(suite(tmp_path), only=["nadir"])


def test_a_suite_that_changes_names_the_runs_that_have_begun(tmp_path: Path) -> None:
    plan = planned(suite(tmp_path), tmp_path / "runs")
    plan.write()
    for name in ("gan-1", "nade-0"):
        (plan.folder / name).mkdir()
        (plan.folder / name / "config.yaml").write_text("")
    assert plan.changed() == []
    other = planned(suite(tmp_path, SMALL.replace("hidden_channels: 4", "hidden_channels: 8")), tmp_path / "runs")
    assert [run.name for run in other.changed()] == ["nade-0"]
    longer = planned(suite(tmp_path, SMALL.replace("images: 24", "images: 32")), tmp_path / "runs")
    assert [run.name for run in longer.changed()] == ["nade-0", "gan-1"]


WRONG: list[tuple[str, str, str]] = [
    ("budget: {images: 24}", "budget: {}", "needs `budget:`"),
    ("budget: {images: 24}", "budget: {images: 0}", "a budget of images must be at least 1, not 0"),
    ("budget: {images: 24}", "budget: {minutes: 0}", "a budget of minutes must be above 0, not 0"),
    ("budget: {images: 24}", "budget: {hours: 1}", "a budget is one of images, minutes, flops"),
    ("seeds: 2", "seeds: 0", "seeds are a number of at least 1"),
    ("seeds: 2", "seeds: [1, 1]", "not all different"),
    ("seeds: 2", "sedes: 2", "no key 'sedes': did you mean 'seeds'"),
    ("class_path: tests.cli.parts.Noise", "batch_size: 3", "`data:` needs a class_path"),
    ("recipe: gan-mnist28-smoke", "recipe: gan-mnits28-smoke", "entry gan: there is no recipe .*did you mean"),
    ("  gan: {", "  ../gan: {", "names a folder"),
    ("note: as", "nota: as", "entry gan has no key 'nota': did you mean 'note'"),
    ("model: {class_path: PixelCNN, ", "model: {", "entry nade: `model:` needs a class_path"),
]


@pytest.mark.parametrize(("before", "after", "message"), WRONG)
def test_what_is_wrong_in_a_file_is_named(tmp_path: Path, before: str, after: str, message: str) -> None:
    assert before in SMALL
    with pytest.raises(ValueError, match=message) as caught:
        suite(tmp_path, SMALL.replace(before, after))
    assert "\n" not in str(caught.value)


UNBUILT: list[tuple[str, str, str]] = [
    ("class_path: PixelCNN", "class_path: PixlCNN", "entry nade: there is no model PixlCNN: did you mean 'PixelCNN'"),
    ("class_path: PixelCNN", "class_path: nothing.here", "entry nade: there is no model nothing.here: No module"),
    ("hidden_channels: 4", "hiden: 4", "entry nade: .*hiden"),
    ("batch_size: 4", "batchsize: 4", "entry nade: Noise has no option 'batchsize': did you mean 'batch_size'"),
    ("tests.cli.parts.Noise}", "tests.cli.parts.Noise, init_args: {image_size: 12}}", "entry dcgan: .*12 is not"),
    ("num_samples: 8", "metrics: [fd, pr]", "evaluate: there is no metric 'pr': .*precision"),
    ("num_samples: 8", "num_smples: 8", "evaluate: .*num_smples"),
    ("measures:", "curve: {looks: 2, metrics: [fdd]}\nmeasures:", "curve: there is no metric 'fdd': did you mean 'fd'"),
    ("classifier-mnist28}", "classifier-mnits28}", "evaluate: unknown extractor 'classifier-mnits28': did you mean"),
    ("[nll,", "[nlll,", "no measure 'nlll': did you mean 'nll'"),
    ("[nll,", "[my_own.thing,", "the measure my_own.thing cannot be imported: No module named 'my_own'"),
]


@pytest.mark.parametrize(("before", "after", "message"), UNBUILT)
def test_what_cannot_be_built_is_named(tmp_path: Path, before: str, after: str, message: str) -> None:
    text = SMALL.replace("gan: {recipe: gan-mnist28-smoke", "dcgan: {recipe: dcgan-emoji32-smoke")
    assert before in text
    with pytest.raises(ValueError, match=message) as caught:
        checked(suite(tmp_path, text.replace(before, after)))
    assert "\n" not in str(caught.value)


def test_an_extractor_of_ones_own_is_left_to_the_runs(tmp_path: Path) -> None:
    own = "extractor: {class_path: tests.cli.test_evaluate.Pixels}"
    found, _ = checked(suite(tmp_path, SMALL.replace("extractor: classifier-mnist28", own)))
    evaluate = found["gan"]["trainer"]["callbacks"][2]["init_args"]
    assert evaluate["extractor"] == {"class_path": "tests.cli.test_evaluate.Pixels"}


def test_seeds_of_the_command() -> None:
    assert [_seeds(text) for text in (None, "3", "0,2", "2,")] == [None, [0, 1, 2], [0, 2], [2]]


def test_budgets_and_seeds_of_a_suite() -> None:
    check_budget({"flops": 1e15})
    check_seeds([0, 7])
    for wrong in ({"images": 1, "minutes": 1}, {"images": 1.5}, {"minutes": float("nan")}):
        with pytest.raises(ValueError, match="budget"):
            check_budget(wrong)


def test_a_budget_of_flops_becomes_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    costs: dict[str, Any] = {"GAN": 10.0, "PixelCNN": 1000.0}
    monkeypatch.setattr(
        "zoo.bench.plan.images_for", lambda flops, model, batch: round(flops / costs[type(model).__name__])
    )
    found, _ = checked(suite(tmp_path, SMALL.replace("images: 24", "flops: 4000")))
    assert [config["trainer"]["callbacks"][0]["init_args"] for config in found.values()] == [
        {"images": 400},
        {"images": 4},
    ]
