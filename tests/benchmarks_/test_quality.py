from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks import quality
from zoo.callbacks.base import Result, Samples
from zoo.callbacks.measures import MEASURES, Evaluation, measure
from zoo.dcgan import DCGAN
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


@pytest.fixture
def options(tmp_path: Path) -> dict[str, Any]:
    return {"extractor": Pixels(), "cache_dir": tmp_path, "chunk_size": 16, "progress": False}


def test_a_row_has_value_untrained_and_floor(options: dict[str, Any]) -> None:
    model = tiny()
    state = torch.get_rng_state()
    row = quality.measure(model, Noise(90), num_samples=40, seeds=[0, 1, 2], untrained_seeds=[5, 6], **options)
    assert torch.equal(torch.get_rng_state(), state)
    assert row["protocol"].startswith(f"{row['metric']}[")
    assert len(set(row["seeds"].values())) == 3
    assert row["value"] == sorted(row["seeds"].values())[1]
    assert row["untrained"] == pytest.approx(sum(row["untrained_seeds"].values()) / 2)
    assert row["over_untrained"] == row["value"] / row["untrained"]
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


def test_no_floor_where_the_split_is_too_small(options: dict[str, Any]) -> None:
    row = quality.measure(tiny(), Noise(50), num_samples=40, seeds=[0], untrained_seeds=[], **options)
    assert row["other_real_images"] is None
    assert "untrained" not in row


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


ENTRY: dict[str, Any] = {
    "recipe": "a-recipe",
    "parameters": 1234,
    "data": {},
    "metrics": [
        {"name": "fd", "arguments": {}},  # as entries were before there were other measures
        {"name": "fid", "measure": "frechet_distance", "arguments": {}},
        {"name": "class_error", "measure": "class_error", "arguments": {"matching": "hungarian", "seed": 4}},
        {"name": "class_error", "measure": "class_error", "arguments": {"matching": "best_example", "seed": 4}},
        {"name": "mig", "measure": "mig", "arguments": {}},
    ],
}


@pytest.fixture
def other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measures that take no time."""
    for name in ("class_error", "mig"):
        monkeypatch.delitem(MEASURES, name)

    @measure(needs=Samples, better="lower", unit="%")
    def class_error(at: Evaluation, *, matching: str = "none") -> Result:
        return at.result(at.model.sample(9, seed=at.seed).std(), matching=matching, seed=at.seed)

    @measure(needs=Samples, better="higher")
    def mig(at: Evaluation) -> Result:
        return at.result(at.model.sample(9, seed=at.seed).std())


@pytest.mark.usefixtures("other")
def test_a_row_of_another_measure(monkeypatch: pytest.MonkeyPatch) -> None:
    model, metric = tiny(), ENTRY["metrics"][2]
    row = quality.remeasure(model, Noise(8), metric, seeds=None, untrained_seeds=None)
    assert (row["metric"], row["unit"]) == ("class_error", "%")
    assert row["protocol"] == "class_error[matching=hungarian, seed=4, weights=raw]"
    assert row["seeds"] == {"4": row["value"]}
    assert list(row["untrained_seeds"]) == ["0", "1", "2"]
    assert row["untrained"] == sorted(row["untrained_seeds"].values())[1] != row["value"]
    row = quality.remeasure(model, Noise(8), metric, seeds=[1, 2, 3], untrained_seeds=[])
    assert row["value"] == sorted(row["seeds"].values())[1]
    assert "untrained" not in row
    monkeypatch.setattr(quality, "CHEAP", -1.0)
    assert "untrained" not in quality.remeasure(model, Noise(8), metric, seeds=None, untrained_seeds=None)


def test_names_of_files_and_choice_of_metrics() -> None:
    chosen = quality.choose("x", ENTRY, None)
    assert [name for name, _ in chosen] == [
        "quality-x.json",
        "quality-x-class_error.json",
        "quality-x-class_error-2.json",
        "quality-x-mig.json",
    ]
    ((name, metric),) = quality.choose("x", ENTRY, ["mig"])
    assert (name, metric) == ("quality-x-mig.json", ENTRY["metrics"][4])
    with pytest.raises(ValueError, match="x was not published with 'elbo': take of fd, class_error, mig"):
        quality.choose("x", ENTRY, ["elbo"])
    with pytest.raises(ValueError, match="x was published without a value that can be measured here"):
        quality.choose("x", {"metrics": []}, None)


@pytest.mark.usefixtures("other")
def test_the_command_writes_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]) -> None:
    def distance(*arguments: Any, device: torch.device, **given: Any) -> Any:
        return frechet_distance(*arguments, **given | options)

    frechet_distance = quality.frechet_distance
    monkeypatch.setattr(quality, "frechet_distance", distance)
    monkeypatch.setattr(quality, "published", lambda slug, device: (tiny(), ENTRY))
    monkeypatch.setattr(quality, "data_of", lambda settings, **_: Noise(80))
    out = tmp_path / "rows"
    quality.main(["dcgan-emoji32", "--num-samples", "40", "--out-dir", str(out)])
    names = {path.name.removeprefix("quality-dcgan-emoji32") for path in out.iterdir()}
    assert names == {".json", "-class_error.json", "-class_error-2.json", "-mig.json"}
    row = json.loads((out / "quality-dcgan-emoji32.json").read_text())
    assert row["protocol"].startswith("fd[")
    assert row["parameters"] == 1234
    assert (row["benchmark"], row["slug"], row["architecture"]) == ("quality", "dcgan-emoji32", "DCGAN")
    assert row["seconds"] >= 0
    assert row["versions"]["torch"] == torch.__version__
