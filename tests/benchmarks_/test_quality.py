from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor, nn

from benchmarks import quality
from zoo.callbacks.base import Result, Samples
from zoo.callbacks.measures import MEASURES, Evaluation, measure
from zoo.dcgan import DCGAN
from zoo.pretrained import verify
from zoo.progressive_gan import ProgressiveGAN


class Pixels(nn.Module):
    """Features that need no network: means of four patches per channel."""

    name = "patch-means"

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool2d(x, 2).flatten(1)


class Noise:
    """A data set of images whose brightness varies."""

    name = "noise8"

    def __init__(self, size: int) -> None:
        generator = torch.Generator().manual_seed(0)
        base = torch.rand(size, 3, 8, 8, generator=generator)
        self.images = base * torch.rand(size, 1, 1, 1, generator=generator) * 2 - 1

    def reference_batches(
        self, num_samples: int, chunk_size: int, *, split: str = "train", rank: int = 0, world_size: int = 1
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        if num_samples > len(self.images):
            raise ValueError("too few")
        for first in range(rank * chunk_size, num_samples, world_size * chunk_size):
            yield first, {"image": self.images[first : min(first + chunk_size, num_samples)]}


def tiny() -> DCGAN:
    return DCGAN(image_size=8, latent_dim=4, base_channels=4)


def distance(**options: Any) -> verify.Measurement:
    settings = {"num_samples": 40, "extractor": Pixels(), "chunk_size": 16, "progress": False, "seed": 0}
    return verify.Measurement("frechet_distance", settings | options)


def test_a_row_has_value_untrained_and_floor(tmp_path: Path) -> None:
    model, state = tiny(), torch.get_rng_state()
    measurement = distance(cache_dir=tmp_path)
    ((metric, row),) = quality.measure(model, Noise(90), measurement, untrained_seeds=[5, 6])
    assert torch.equal(torch.get_rng_state(), state)
    assert row["protocol"].startswith(f"{row['metric']}[")
    assert list(row["seeds"]) == ["0", "1", "2", "3", "4"]
    values = [*row["seeds"].values()]
    assert row["value"] == metric["value"] == pytest.approx(np.mean(values), rel=1e-12)
    assert row["deviation"] == metric["deviation"] == pytest.approx(np.std(values, ddof=1), rel=1e-9)
    assert metric["tolerance"] == pytest.approx(max(3 * row["deviation"], 1e-3 * row["value"]))
    assert row["untrained"] == pytest.approx(sum(row["untrained_seeds"].values()) / 2)
    # Other images of the same set are nearer than those of a network that was never trained.
    assert 0 < row["other_real_images"] < 0.5 * row["untrained"]


def test_an_untrained_model_depends_on_its_seed_alone() -> None:
    model = tiny()
    first, again, other = (quality.untrained(model, seed).sample(2, seed=0) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first, model.sample(2, seed=0))


def test_an_untrained_model_is_grown_as_far() -> None:
    growth = {"training_images": 8, "transition_images": 8, "global_batch_size": 4, "steps_per_schedule_check": 1}
    model = ProgressiveGAN(16, 3, 5, growth=growth, fmap_base=16, max_channels=4, minibatch_stddev_group=2)
    model.grow(12)
    assert quality.untrained(model, 0).progress["alpha"] == model.progress["alpha"] == 0.5
    assert quality.untrained(model, 0).progress["resolution"] == 8


def test_no_floor_where_the_split_is_too_small(tmp_path: Path) -> None:
    ((_, row),) = quality.measure(tiny(), Noise(50), distance(cache_dir=tmp_path), seeds=[0], untrained_seeds=[])
    assert row["other_real_images"] is None
    assert "untrained" not in row
    assert "deviation" not in row


def test_other_images_are_others() -> None:
    data = Noise(80)
    others = quality.OtherImages(data, 40)
    real, other = others.real_and_fake({"image": data.images[32:48]}, seed=0, first=32)
    assert torch.equal(real, data.images[32:48])
    assert torch.equal(other[:8], data.images[72:80])


def test_data_of_an_index_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    ready: list[str] = []
    monkeypatch.setattr("zoo.datamodules.Emoji.prepare_data", lambda self: ready.append("fetched"))
    monkeypatch.setattr("zoo.datamodules.Emoji.setup", lambda self: ready.append("opened"))
    settings = {"class": "zoo.datamodules.Emoji", "init_args": {"image_size": 64}}
    data = quality.data_of(settings, cache_dir="somewhere", data_dir=None)
    assert data.name == "emoji64"
    assert ready == ["fetched", "opened"]


def test_an_unknown_checkpoint_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"^benchmarks\.quality: there is no checkpoint or file 'nothing-here'"):
        quality.main(["nothing-here"])


def callback(name: str, **options: Any) -> dict[str, Any]:
    return {"class_path": "zoo.callbacks.Measure", "init_args": {"measure": name, "options": options, "seed": 4}}


MATCHED = {"split": "test", "num_samples": None, "seed": 4, "matching": "hungarian"}
ENTRY: dict[str, Any] = {
    "recipe": "a-recipe",
    "parameters": 1234,
    "data": {},
    "metrics": [
        {"name": "fd", "arguments": {}, "protocol": "fd[old]"},  # no longer measured by the recipe
        {
            "name": "class_error",
            "measure": "class_error",
            "arguments": MATCHED,
            "history": [[0, 90.0]],
            "protocol": "c",
        },
    ],
}


@pytest.fixture
def other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Measures that take no time, and the recipe of the entry."""
    for name in ("class_error", "mig"):
        monkeypatch.delitem(MEASURES, name)

    @measure(needs=Samples, better="lower", unit="%")
    def class_error(at: Evaluation, *, matching: str = "none") -> Result:
        found = {"value": at.model.sample(9, seed=at.seed).std(), "count": 500, "chance": 90, "error": 2}
        return at.result(found, matching=matching)

    @measure(needs=Samples, better="higher")
    def mig(at: Evaluation, *, identity: bool = False) -> Any:
        values = {"mig": at.model.sample(9, seed=at.seed).std(), "gap": 3.0}
        return [at.result(value, name) for name, value in values.items()]

    callbacks = [
        callback("class_error", matching="hungarian"),
        callback("mig"),
        {"class_path": "zoo.callbacks.SampleGrid"},
    ]
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": callbacks}}))
    monkeypatch.setattr(quality.recipes, "list_recipes", lambda: ["a-recipe"])
    monkeypatch.setattr(quality.recipes, "find", lambda name: tmp_path / "recipe.yaml")


@pytest.mark.usefixtures("other")
def test_the_recipe_says_what_is_measured() -> None:
    error, gap = quality.wanted(ENTRY)
    assert error == ("class_error", MATCHED, {"class_error": [[0, 90.0]]})
    assert (gap.measure, gap.histories) == ("mig", {})
    published = quality.wanted(ENTRY | {"recipe": None})
    assert [m.measure for m in published] == ["frechet_distance", "class_error"]
    assert quality.choose("x", [error, gap], ["mig"]) == [gap]
    with pytest.raises(ValueError, match="x is not measured by 'elbo': take of class_error, mig"):
        quality.choose("x", [error, gap], ["elbo"])
    with pytest.raises(ValueError, match="x has nothing that is measured"):
        quality.choose("x", [], None)


@pytest.mark.usefixtures("other")
def test_a_measure_may_give_several_values(monkeypatch: pytest.MonkeyPatch) -> None:
    model, (error, gap) = tiny(), quality.wanted(ENTRY)
    ((metric, row),) = quality.measure(model, Noise(8), error, selected="val")
    assert (row["metric"], row["unit"], row["chance"], row["count"]) == ("class_error", "%", 90, 500)
    assert row["protocol"] == "class_error[matching=hungarian, weights=raw, selected=val]"
    assert list(row["seeds"]) == ["4", "5", "6", "7", "8"]
    assert list(row["untrained_seeds"]) == ["0", "1", "2"]
    assert row["untrained"] == sorted(row["untrained_seeds"].values())[1] != row["value"]
    assert metric["history"] == [[0, 90.0]]
    assert metric["tolerance"] == pytest.approx(max(0.4, 3 * metric["deviation"])), "two images of 500"
    rows = quality.measure(model, Noise(8), gap, seeds=[1, 2], untrained_seeds=[])
    assert [metric["name"] for metric, _ in rows] == ["mig", "gap"]
    assert rows[1][1]["seeds"] == {"1": 3.0, "2": 3.0}
    assert "untrained" not in rows[0][1]
    identity = gap._replace(arguments=gap.arguments | {"identity": True})
    assert "untrained" not in quality.measure(model, Noise(8), identity)[0][1], "it is no value of the model"
    monkeypatch.setattr(quality, "CHEAP", -1.0)
    assert "untrained" not in quality.measure(model, Noise(8), gap)[0][1]


def test_names_of_files() -> None:
    metrics = [{"name": name, "measure": name} for name in ("class_error", "class_error", "mig")]
    assert list(quality.file_names("x", [{"name": "fd"}, *metrics])) == [
        "quality-x.json",
        "quality-x-class_error.json",
        "quality-x-class_error-2.json",
        "quality-x-mig.json",
    ]


@pytest.mark.usefixtures("other")
def test_the_command_writes_entry_and_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entered: list[Any] = []
    monkeypatch.setattr(quality, "published", lambda slug, device: (tiny(), ENTRY))
    monkeypatch.setattr(quality, "data_of", lambda settings, **_: Noise(80))
    monkeypatch.setattr(
        quality.publish, "republish", lambda *arguments, **options: entered.append((arguments, options))
    )
    out = tmp_path / "rows"
    quality.main(["dcgan-emoji32", "--out-dir", str(out), "--dry-run"])
    assert not out.exists()
    out.mkdir()
    old = {"quality-dcgan-emoji32.json": "dcgan-emoji32", "quality-dcgan-emoji32-more.json": "dcgan-emoji32-more"}
    for name, slug in old.items():
        (out / name).write_text(json.dumps({"slug": slug}))
    quality.main(["dcgan-emoji32", "--out-dir", str(out), "--selected", "test"])
    names = {path.name.removeprefix("quality-dcgan-emoji32") for path in out.iterdir()}
    assert names == {"-class_error.json", "-mig.json", "-gap.json", "-more.json"}, (
        "the old row went, that of another stayed"
    )
    row = json.loads((out / "quality-dcgan-emoji32-mig.json").read_text())
    assert row["protocol"] == "mig[weights=raw, selected=test]"
    assert row["parameters"] == 1234
    assert (row["benchmark"], row["slug"], row["architecture"]) == ("quality", "dcgan-emoji32", "DCGAN")
    assert row["seconds"] >= 0
    assert row["versions"]["torch"] == torch.__version__
    ((slug, metrics), options) = entered.pop()
    assert (slug, options) == ("dcgan-emoji32", {"selected": "test"})
    assert [metric["name"] for metric in metrics] == ["class_error", "mig", "gap"]
    assert metrics[1]["value"] == row["value"], "one measurement"
    # Another time only one of the measures: the other's value and row stay.
    before = (out / "quality-dcgan-emoji32-class_error.json").stat().st_mtime_ns
    quality.main(["dcgan-emoji32", "--out-dir", str(out), "--measures", "mig"])
    ((_, metrics), _) = entered.pop()
    assert metrics[0] == ENTRY["metrics"][1]
    assert (out / "quality-dcgan-emoji32-class_error.json").stat().st_mtime_ns == before


@pytest.mark.usefixtures("other")
def test_values_that_were_just_published_can_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of untrained models are measured; what the entry has no value of is measured, too."""
    entered: list[Any] = []
    error = ENTRY["metrics"][1] | {"value": 12.5, "seeds": {"4": 12.0, "5": 13.0}, "chance": 90}
    monkeypatch.setattr(quality, "published", lambda slug, device: (tiny(), ENTRY | {"metrics": [error]}))
    monkeypatch.setattr(quality, "data_of", lambda settings, **_: Noise(80))
    monkeypatch.setattr(quality.publish, "republish", lambda slug, metrics, **_: entered.extend(metrics))
    quality.main(["dcgan-emoji32", "--out-dir", str(tmp_path), "--keep"])
    row = json.loads((tmp_path / "quality-dcgan-emoji32-class_error.json").read_text())
    assert (row["value"], row["seeds"], row["chance"]) == (12.5, error["seeds"], 90)
    assert list(row["untrained_seeds"]) == ["0", "1", "2"]
    assert entered[0] == error | {"untrained": row["untrained"], "better": "lower"}
    assert [metric["name"] for metric in entered] == ["class_error", "mig", "gap"]
    assert "untrained" not in error
