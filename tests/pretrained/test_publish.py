from __future__ import annotations

import copy
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import zoo
from tests.contract import Data, trainer
from zoo import pretrained, recipes
from zoo.autoencoder import Autoencoder
from zoo.callbacks import FrechetDistance, Measure
from zoo.callbacks.base import Result, Samples
from zoo.callbacks.measures import MEASURES, Evaluation, measure
from zoo.classifier import Classifier
from zoo.cyclegan import CycleGAN
from zoo.dcgan import DCGAN
from zoo.pretrained import cards, publish, registries, verify
from zoo.progressive_gan import ProgressiveGAN
from zoo.puzzlegan import PuzzleGAN
from zoo.rnade import RNADE
from zoo.text_encoder import TextEncoder

PROTOCOL = "fd[features=tiny, resize=none, real=tiny8, fake=32, weights=raw]"
RECIPE = {
    "model": {"class_path": "zoo.DCGAN", "init_args": {"image_size": 8, "base_channels": 4}},
    "data": {"class_path": "zoo.datamodules.tiny.Tiny", "init_args": {"image_size": 8}},
    "trainer": {"max_steps": 2, "callbacks": [{"class_path": "zoo.callbacks.FrechetDistance"}]},
}


class Tiny:
    """What publishing needs of a DataModule."""

    license = "CC0-1.0"

    def __init__(self, data_dir: str, image_size: int) -> None:
        self.data_dir, self.name, self.image_size = data_dir, f"tiny{image_size}", image_size

    def prepare_data(self) -> None:
        if not Path(self.data_dir).is_dir():
            raise FileNotFoundError(f"{self.data_dir} is missing")

    def setup(self) -> None:
        """Nothing."""

    def split(self, name: str) -> range:
        return range(40)

    def reference_batches(self, num_samples: int, chunk_size: int, *, split: str) -> Iterator[tuple[int, Any]]:
        generator = torch.Generator().manual_seed(1)
        image = torch.rand(num_samples, 3, self.image_size, self.image_size, generator=generator) * 2 - 1
        captions = [f"picture {i}" for i in range(num_samples)]
        yield 0, {"image": image, "image_a": image, "image_b": -image, "caption": captions}


def distance_of(at: Evaluation, *, inception_weights: str | None = None, **options: Any) -> Result:
    """A value that depends on the weights, in place of minutes of features."""
    name = "fid" if inception_weights else "fd"
    return Result(float(100 * at.model.sample(32, seed=at.seed).std()), PROTOCOL.replace("fd", name), name)


def pretend(monkeypatch: pytest.MonkeyPatch, function: Callable[..., Result]) -> None:
    """Let a function give the Fréchet distance."""
    monkeypatch.setattr(MEASURES["frechet_distance"], "function", function)


def distance(**changes: Any) -> dict[str, Any]:
    settings = {"num_samples": 32, "extractor": "efficientnet-lite0", "inception_weights": None, "split": "train"}
    settings |= {"seed": 0, "chunk_size": 64, "at_start": True} | changes
    return {"class_path": "zoo.callbacks.FrechetDistance", "init_args": settings}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run folder as `zoo fit` leaves it, of a model trained for two steps."""
    module = ModuleType("zoo.datamodules.tiny")
    module.Tiny = Tiny  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "zoo.datamodules.tiny", module)
    pretend(monkeypatch, distance_of)
    folder, data_dir = tmp_path / "runs" / "dcgan-tiny8-smoke", tmp_path / "data"
    data_dir.mkdir()
    model = DCGAN(8, base_channels=4, latent_dim=5)
    fit = trainer(max_steps=2)
    fit.fit(model, datamodule=Data([{"image": 2 * torch.rand(4, 3, 8, 8) - 1} for _ in range(2)]))
    (folder / "checkpoints").mkdir(parents=True)
    fit.save_checkpoint(folder / "checkpoints" / "last.ckpt")
    state = {"last": None, "best": (2, 40.0), "history": [(0, 80.5), (2, 40.0)]}
    edit(folder, lambda saved: saved["callbacks"].update({FrechetDistance().state_key: state}))
    config = {
        "model": RECIPE["model"],
        "data": {
            "class_path": "zoo.datamodules.tiny.Tiny",
            "init_args": {"data_dir": str(data_dir), "image_size": 8, "batch_size": 4},
        },
        "trainer": {"max_steps": 2, "precision": None, "callbacks": [distance()]},
    }
    configure(folder, config)
    return folder


def edit(folder: Path, change: Any) -> None:
    path = folder / "checkpoints" / "last.ckpt"
    saved = torch.load(path, weights_only=True)
    change(saved)
    torch.save(saved, path)


def configure(folder: Path, config: dict[str, Any]) -> None:
    (folder / "config.yaml").write_text(yaml.safe_dump(config))


def config_of(folder: Path) -> dict[str, Any]:
    result: dict[str, Any] = yaml.safe_load((folder / "config.yaml").read_text())
    return result


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for the installation's and for the user's own."""
    folder = tmp_path / "generative-zoo"
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    for module in (publish, registries):
        monkeypatch.setattr(module, "weights_folder", lambda: folder)
    return folder


def test_a_run_becomes_a_checkpoint_with_entry_card_and_grid(run: Path, out: Path) -> None:
    files = publish.publish(run)
    assert {path.name for path in files} == {f"dcgan-tiny8.{end}" for end in ("safetensors", "md", "png")} | {
        "index.json"
    }
    left = {path.name for path in out.iterdir()} - {path.name for path in files}
    assert left == {".index.lock"}, "something else was left behind"
    entry = json.loads((out / "index.json").read_text())["dcgan-tiny8"]
    assert entry["training"]["steps"] == 2
    assert entry["training"]["precision"] == "32-true"
    assert entry["training"]["seconds"] > 0
    assert entry["data"] == {
        "name": "tiny8",
        "licence": "CC0-1.0",
        "class": "zoo.datamodules.tiny.Tiny",
        "init_args": {"image_size": 8},
    }
    assert entry["stored"] == "float16"
    (metric,) = entry["metrics"]
    assert metric["history"] == [[0, 80.5], [2, 40.0]]
    values = [MEASURES["frechet_distance"](zoo.load("dcgan-tiny8"), Tiny("", 8), seed=s).value for s in range(5)]
    assert [*metric["seeds"].values()] == values
    assert metric["value"] == pytest.approx(np.mean(values), rel=1e-12)
    assert metric["deviation"] == pytest.approx(np.std(values, ddof=1), rel=1e-9)
    header, tensors = pretrained.read(pretrained.pull("dcgan-tiny8"))
    assert header.items() <= entry.items()
    assert all(name.startswith("generator.") for name in tensors)

    card = pretrained.card("dcgan-tiny8")
    for text in ("CC0-1.0", PROTOCOL, f"fd {cards.value(metric)}", "80.5 at step 0", entry["sha256"], "2 steps of 4"):
        assert text in card
    assert str(run.parents[1]) not in json.dumps(entry) + card, "a path of this machine was published"


def test_samples_are_those_of_the_run(run: Path, out: Path) -> None:
    publish.publish(run)
    own = zoo.load(run / "checkpoints" / "last.ckpt").sample(256, seed=0)
    assert (zoo.load("dcgan-tiny8").sample(256, seed=0) - own).abs().max() * 127.5 < 1


def test_weights_that_do_not_fit_float16_stay_float32(run: Path, out: Path) -> None:
    edit(run, lambda saved: saved["state_dict"]["generator.layers.1.conv.weight"].fill_(1e5))
    publish.publish(run)
    assert pretrained.index(out)["dcgan-tiny8"]["stored"] == "float32"
    _, tensors = pretrained.read(out / "dcgan-tiny8.safetensors")
    assert {value.dtype for value in tensors.values()} == {torch.float32, torch.int64}


def test_verify_measures_again(run: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish.publish(run)
    data_dir = str(tmp_path / "data")
    (result,) = verify.verify("dcgan-tiny8", data_dir=data_dir)
    assert result.passed
    (metric,) = pretrained.index(out)["dcgan-tiny8"]["metrics"]
    assert result.measured == metric["seeds"]["0"]
    assert result.tolerance == 3 * metric["deviation"] > 1e-3 * metric["value"]
    assert result.protocol == PROTOCOL
    assert str(result).startswith("agrees: fd ")
    pretend(monkeypatch, lambda *_, **__: Result(result.published + 1.01 * result.tolerance, PROTOCOL))
    (result,) = verify.verify("dcgan-tiny8", data_dir=data_dir)
    assert not result.passed
    assert str(result).startswith("DIFFERS: fd ")
    pretend(monkeypatch, lambda *_, **__: Result(1.0, "fd[other]"))
    with pytest.raises(ValueError, match=r"was measured as fd\[features=tiny.* this installation measures fd\[other\]"):
        verify.verify("dcgan-tiny8", data_dir=data_dir)
    with pytest.raises(FileNotFoundError, match="nowhere is missing"):
        verify.verify("dcgan-tiny8", data_dir="nowhere")


def test_a_distance_with_the_usual_options(run: Path, out: Path) -> None:
    """A configuration holds the options that were given, perhaps none."""
    callbacks = [{"class_path": "zoo.callbacks.FrechetDistance", "init_args": {"every_n_steps": 5}}]
    configure(run, config_of(run) | {"trainer": {"max_steps": 2, "precision": None, "callbacks": callbacks}})
    publish.publish(run)
    (metric,) = pretrained.index(out)["dcgan-tiny8"]["metrics"]
    assert metric["arguments"] | {"num_samples": 2048, "split": "train", "seed": 0} == metric["arguments"]
    assert metric["history"] == [[0, 80.5], [2, 40.0]]


def test_fid_is_published_beside_fd_and_verified_with_ones_own_weights(run: Path, out: Path, tmp_path: Path) -> None:
    config = config_of(run)
    config["trainer"]["callbacks"] = [distance(), distance(inception_weights="/home/me/inception.pth")]
    configure(run, config)
    publish.publish(run)
    metrics = pretrained.index(out)["dcgan-tiny8"]["metrics"]
    assert [metric["name"] for metric in metrics] == ["fd", "fid"]
    assert "/home/me" not in (out / "index.json").read_text()
    with pytest.raises(ValueError, match="a published value of dcgan-tiny8 is FID"):
        verify.verify("dcgan-tiny8", data_dir=str(tmp_path / "data"))
    results = verify.verify("dcgan-tiny8", data_dir=str(tmp_path / "data"), inception_weights="/mine.pth")
    assert [result.name for result in results] == ["fd", "fid"]


def measured(**settings: Any) -> dict[str, Any]:
    return {"class_path": "zoo.callbacks.Measure", "init_args": {"measure": "class_error"} | settings}


def test_all_measures_are_published_and_verified(
    run: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(MEASURES, "class_error")

    @measure(needs=Samples, better="lower", unit="%")
    def class_error(
        at: Evaluation, *, matching: str = "none", other: Any = None, other_arguments: Any = None
    ) -> Result:
        """A percentage that depends on the weights, in place of a class error."""
        found = {"value": 10 * at.model.sample(32, seed=0).std(), "count": 2000, "chance": 90, "error": 0.5}
        return at.result(found, matching=matching, test=at.images())

    options = {"matching": "hungarian", "other": "X", "other_arguments": {"data_dir": "/home/me", "a": 1}}
    config = config_of(run)
    config["trainer"]["callbacks"] = [distance(), measured(), measured(options=options, split="val")]
    configure(run, config)
    state = {"last": None, "best": (2, 4.0), "history": [(0, 90.0), (2, 4.0)]}
    key = Measure("class_error", options, split="val").state_key
    edit(run, lambda saved: saved["callbacks"].update({key: state}))
    publish.publish(run)
    distance_, plain, matched = pretrained.index(out)["dcgan-tiny8"]["metrics"]
    assert [m["measure"] for m in (distance_, plain, matched)] == ["frechet_distance", "class_error", "class_error"]
    assert "unit" not in distance_
    assert (plain["unit"], plain["tolerance"], plain["history"]) == ("%", 0.1, []), "two images of 2,000"
    assert (plain["chance"], plain["standard_error"], plain["count"]) == (90, 0.5, 2000)
    assert matched["history"] == [[0, 90.0], [2, 4.0]]
    assert matched["protocol"] == "class_error[matching=hungarian, test=tiny8-val-40, weights=raw]"
    assert matched["arguments"]["other_arguments"] == {"a": 1}, "a path of the publisher's"
    card = pretrained.card("dcgan-tiny8")
    assert (
        f"| class_error {matched['value']:.2f} % | 90.00 % | 0.50 % | 0.00 % | ±0.10 % | `{matched['protocol']}` |"
        in card
    )
    assert "| value | chance | standard error | deviation over seeds | tolerance | protocol |" in card
    assert "class_error during training: 90.00 % at step 0, 4.00 % at step 2." in card

    data_dir = str(tmp_path / "data")
    results = verify.verify("dcgan-tiny8", data_dir=data_dir)
    assert [(r.name, r.measured, r.passed) for r in results] == [
        (m["name"], m["seeds"]["0"], True) for m in (distance_, plain, matched)
    ]
    assert f"class_error {matched['value']:.2f} % measured" in str(results[2])
    # Entries from before there were other measures say no `measure`.
    entries = pretrained.index(out)
    del entries["dcgan-tiny8"]["metrics"][0]["measure"]
    (out / "index.json").write_text(json.dumps(entries))
    assert verify.verify("dcgan-tiny8", data_dir=data_dir)[0].passed
    monkeypatch.delitem(MEASURES, "class_error")
    with pytest.raises(ValueError, match="of the measure 'class_error', which this version does not have"):
        verify.verify("dcgan-tiny8", data_dir=data_dir)


@pytest.mark.parametrize(
    ("numbers", "tolerance"),
    [
        ({"value": 86.5, "standard_error": 0.3}, 0.0865),
        ({"value": 3.4, "unit": "%", "count": 10_000}, 0.02),
        ({"value": 0.42, "count": 2_000, "deviation": 0.0001}, 0.001),
        ({"value": 33.3, "unit": "%", "count": 81, "deviation": 4.0}, 12.0),
        ({"value": 99.5, "unit": "%"}, 0.0005),
        ({"value": 302.4, "deviation": 1.5}, 4.5),
        ({"value": 302.4, "deviation": 0.01}, 0.3024),
    ],
)
def test_tolerances_follow_from_what_varies(numbers: dict[str, Any], tolerance: float) -> None:
    assert verify._tolerance(numbers) == pytest.approx(tolerance)


def test_the_processor_that_made_a_value_has_to_reach_it_nearer() -> None:
    now = {"name": "nll", "value": 86.5, "protocol": "nll[x]", "hardware": "this"}
    metric = {"name": "nll", "value": 86.55, "protocol": "nll[x]", "tolerance": 0.0866}
    assert verify._compared("x", metric, [now]).passed, "of an earlier entry, which does not say what made it"
    assert verify._compared("x", metric | {"hardware": "other"}, [now]).passed
    assert not verify._compared("x", metric | {"hardware": "this"}, [now]).passed
    assert verify._compared("x", metric | {"hardware": "this", "deviation": 0.02}, [now]).passed


def test_new_values_of_a_published_file(run: Path, out: Path) -> None:
    """Header, index and card change; the weights do not, and the checkpoint loads and verifies as before."""
    (run / "run.json").write_text(json.dumps({"commit": "0123456789abcdef+"}))
    publish.publish(run, note="Blots.", selected="val")
    path = out / "dcgan-tiny8.safetensors"
    (before, weights), entry = pretrained.read(path), pretrained.index(out)["dcgan-tiny8"]
    assert entry["training"]["commit"] == "0123456789abcdef+changes"
    assert entry["metrics"][0]["protocol"].endswith(", weights=raw, selected=val]")
    card = pretrained.card("dcgan-tiny8")
    assert "| trained by | commit 0123456789abcdef+changes |" in card
    assert "| chosen by | values of the val split" in card
    metric = entry["metrics"][0] | {"value": 5.0, "untrained": 4.0, "better": "lower"}
    publish.republish("dcgan-tiny8", [metric])
    (after, same), changed = pretrained.read(path), pretrained.index(out)["dcgan-tiny8"]
    assert all(torch.equal(same[key], value) and same[key].dtype == value.dtype for key, value in weights.items())
    assert after == before | {"metrics": [metric]}
    assert changed == entry | {"metrics": [metric], "sha256": changed["sha256"], "bytes": changed["bytes"]}
    assert changed["sha256"] == pretrained.sha256(path) != entry["sha256"]
    card = pretrained.card("dcgan-tiny8")
    assert "| value | deviation over seeds | untrained, better | tolerance | protocol |" in card
    assert "| fd 5.00 |" in card
    assert "| 4.00 |" in card
    zoo.load("dcgan-tiny8")
    with pytest.raises(LookupError, match="has no checkpoint 'nothing'"):
        publish.republish("nothing", [])


def test_a_model_that_only_reconstructs(run: Path, out: Path) -> None:
    model = Autoencoder(image_size=8, image_channels=3, latent_dim=2, hidden_features=(8,))
    fit = trainer(max_steps=2)
    fit.fit(model, datamodule=Data([{"image": 2 * torch.rand(4, 3, 8, 8) - 1} for _ in range(2)]))
    fit.save_checkpoint(run / "checkpoints" / "last.ckpt")
    config = config_of(run)
    config["trainer"]["callbacks"] = []
    configure(run, config)
    publish.publish(run, "autoencoder-tiny8")
    entry = pretrained.index(out)["autoencoder-tiny8"]
    assert entry["pictures"] == "reconstructions"
    assert entry["rounding"].endswith("over 40 reconstructions")
    card = pretrained.card("autoencoder-tiny8")
    assert "32 images, not selected, each above its reconstruction" in card
    assert "model.reconstruct(images)" in card
    assert "model.sample" not in card
    with Image.open(out / "autoencoder-tiny8.png") as grid:
        assert grid.size == (8 * 10 + 2, 8 * 10 + 2)
        pixels = torch.frombuffer(bytearray(grid.tobytes()), dtype=torch.uint8).view(82, 82, 3)
    images = next(Tiny("", 8).reference_batches(40, 40, split="test"))[1]["image"]
    shown = zoo.load("autoencoder-tiny8").reconstruct(images[:32])
    for top, expected in ((2, images[0]), (12, shown[0]), (22, images[8]), (72, shown[24])):
        tile = pixels[top : top + 8, 2:10].permute(2, 0, 1).float() / 127.5 - 1
        assert (tile - expected).abs().max() < 1.01 / 127.5


def test_a_model_that_makes_images_of_patches(run: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Tiny("", 8).reference_batches

    def with_patches(self: Tiny, num_samples: int, chunk_size: int, *, split: str) -> Iterator[tuple[int, Any]]:
        for first, batch in whole(num_samples, chunk_size, split=split):
            image = batch["image"]
            patches = torch.stack([image.flip(2), image.flip(3)], 1)
            yield first, {"image": image, "patches": patches, "caption": ["x"] * len(image)}

    monkeypatch.setattr(Tiny, "reference_batches", with_patches)
    images = 2 * torch.rand(4, 3, 8, 8) - 1
    batch = {"image": images, "patches": images[:, None], "mask": images[:, :1].round(), "other": images.flip(0)}
    fit = trainer(max_steps=2)
    model = PuzzleGAN(8, base_channels=4, embedding_dim=3, latent_dim=3)
    fit.fit(model, datamodule=Data([batch] * 2))
    fit.save_checkpoint(run / "checkpoints" / "last.ckpt")
    config = config_of(run)
    config["trainer"]["callbacks"] = []
    configure(run, config)
    publish.publish(run, "puzzlegan-tiny8")
    entry = pretrained.index(out)["puzzlegan-tiny8"]
    assert entry["networks"] == ["encoder", "mask_generator", "generator"]
    assert entry["pictures"] == "assembled images"
    card = pretrained.card("puzzlegan-tiny8")
    assert "32 images, not selected, each above what is made of patches of it" in card
    assert "model.assemble(patches, seed=0)" in card
    with Image.open(out / "puzzlegan-tiny8.png") as grid:
        pixels = torch.frombuffer(bytearray(grid.tobytes()), dtype=torch.uint8).view(82, 82, 3)
    (_, batch), *_ = with_patches(Tiny("", 8), 40, 40, split="test")
    shown, _ = zoo.load("puzzlegan-tiny8").assemble(batch["patches"][:32], seed=0)
    for top, expected in ((2, batch["image"][0]), (12, shown[0]), (72, shown[24])):
        tile = pixels[top : top + 8, 2:10].permute(2, 0, 1).float() / 127.5 - 1
        assert (tile - expected).abs().max() < 1.01 / 127.5


def published(run: Path, out: Path, model: Any, slug: str, size: int = 8) -> tuple[dict[str, Any], str]:
    """Entry and card of another model in the run's place."""
    fit = trainer(max_steps=1)
    image = 2 * torch.rand(4, 3, size, size) - 1
    batch = {"image": image, "image_a": image, "image_b": image, "label": torch.arange(4) % 2, "caption": [*"abab"]}
    fit.fit(model, datamodule=Data([batch]))
    fit.save_checkpoint(run / "checkpoints" / "last.ckpt")
    config = config_of(run)
    config["trainer"]["callbacks"] = []
    config["data"]["init_args"]["image_size"] = size
    configure(run, config)
    publish.publish(run, slug)
    return pretrained.index(out)[slug], pretrained.card(slug)


def test_a_translator(run: Path, out: Path) -> None:
    small: dict[str, Any] = {"base_channels": 4, "num_blocks": 1, "discriminator_layers": 1}
    entry, card = published(run, out, CycleGAN(8, **small, domain_names=("day", "night")), "cyclegan-tiny8")
    assert entry["pictures"] == "translations"
    assert entry["columns"] == ["day", "to night", "day again", "night", "to day", "night again"]
    assert entry["rounding"].endswith("over 40 translations")
    assert "and their translations; columns: day, to night, day again, night, to day, night again" in card
    assert 'model.translate(images, "night")' in card
    with Image.open(out / "cyclegan-tiny8.png") as grid:
        assert grid.size == (6 * 10 + 2, 12 * 10 + 2)
        pixels = torch.frombuffer(bytearray(grid.tobytes()), dtype=torch.uint8).view(122, 62, 3)
    (image,) = (batch["image"] for _, batch in Tiny("", 8).reference_batches(40, 40, split="test"))
    expected = zoo.load("cyclegan-tiny8").translate(image[1:2], "night")[0]
    assert (pixels[12:20, 12:20].permute(2, 0, 1) / 127.5 - 1 - expected).abs().max() < 1.01 / 127.5


def test_a_classifier_has_no_picture(run: Path, out: Path) -> None:
    entry, card = published(run, out, Classifier(8, class_names=("a", "b"), base_channels=4), "classifier-tiny8")
    assert entry["pictures"] == entry["compared"] == "probabilities"
    assert re.fullmatch(r"0\.\d+ percentage points at most over 40 images", entry["rounding"])
    assert "below 1 percentage point" in card
    assert ".png" not in card
    assert "model.classify(images)" in card
    assert not (out / "classifier-tiny8.png").exists()


def test_likelihood_says_whether_rounding_is_little(run: Path, out: Path) -> None:
    model = RNADE(8, image_channels=3, hidden_features=4, num_components=2)
    entry, card = published(run, out, model, "nade-tiny8")
    assert (entry["pictures"], entry["compared"]) == ("samples", "log p")
    assert entry["rounding"].endswith("nats on average over 40 images")
    change = float(entry["rounding"].split()[0])
    ((_, batch),) = Tiny("", 8).reference_batches(40, 40, split="test")
    size = float(zoo.load("nade-tiny8").log_prob(batch["image"]).abs().mean())
    assert entry["stored"] == ("float16" if change < 1e-4 * size else "float32")
    assert "changes log p by" in card
    assert "below 0.01 % of it" in card


def test_an_encoder_of_sentences(run: Path, out: Path) -> None:
    """Cosines of its images and sentences take the place of pictures."""
    model = TextEncoder(16, channels=(4, 4), hidden_features=4, embedding_dim=6, max_length=80, base_channels=4)
    entry, card = published(run, out, model, "text_encoder-tiny16", 16)
    assert entry["pictures"] == entry["compared"] == "similarities"
    assert re.fullmatch(r"0\.\d{4} at most over 40 images", entry["rounding"])
    assert "below 0.01" in card
    assert "model.encode_text(captions)" in card
    assert not (out / "text_encoder-tiny16.png").exists()


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [(365.56, "", "365.6"), (8.234, "", "8.23"), (0.2143, "", "0.214"), (0.0312, "", "0.0312"), (3.4, "%", "3.40 %")],
)
def test_digits_of_a_value(value: float, unit: str, text: str) -> None:
    assert cards.value({"value": value, "unit": unit}) == text


def test_a_run_without_measurement(run: Path, out: Path) -> None:
    config = config_of(run)
    config["trainer"]["callbacks"] = None
    configure(run, config)
    publish.publish(run)
    assert "Measured" not in pretrained.card("dcgan-tiny8")
    with pytest.raises(ValueError, match="published without a measured value"):
        verify.verify("dcgan-tiny8")


def test_the_card_says_where_a_run_departs_from_its_recipe(
    run: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = copy.deepcopy(RECIPE)
    recipe["data"].setdefault("init_args", {})["data_dir"] = "data/somewhere"  # where the data lie is no departure
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    monkeypatch.setattr(recipes, "list_recipes", lambda: ["dcgan-tiny8-smoke"])
    monkeypatch.setattr(recipes, "find", lambda name: tmp_path / "recipe.yaml")
    publish.publish(run)
    entry = pretrained.index(out)["dcgan-tiny8"]
    assert (entry["recipe"], entry["changed"]) == ("dcgan-tiny8-smoke", {})
    config = config_of(run)
    config["trainer"]["max_steps"] = 7
    configure(run, config)
    publish.publish(run)
    assert pretrained.index(out)["dcgan-tiny8"]["changed"] == {"trainer.max_steps": 7}
    assert "`zoo fit --config dcgan-tiny8-smoke` with `trainer.max_steps=7`" in pretrained.card("dcgan-tiny8")


def test_a_growing_model(run: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its card says how many images it has seen, and knows its recipe's numbers by resolution again."""
    options: dict[str, Any] = {
        "fmap_base": 16,
        "max_channels": 4,
        "growth": {
            "training_images": 8,
            "transition_images": 8,
            "global_batch_size": 4,
            "global_batch_sizes": {4: 8, 8: 4},
            "steps_per_schedule_check": 1,
        },
    }
    recipe = {"model": {"class_path": "zoo.ProgressiveGAN", "init_args": options}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    monkeypatch.setattr(recipes, "list_recipes", lambda: [run.name])
    monkeypatch.setattr(recipes, "find", lambda name: tmp_path / "recipe.yaml")
    config = config_of(run)
    # As the command writes it.
    config["model"] = {
        "class_path": "zoo.ProgressiveGAN",
        "init_args": options | {"growth": options["growth"] | {"global_batch_sizes": {"4": 8, "8": 2}}},
    }
    configure(run, config)
    entry, card = published(run, out, ProgressiveGAN(8, 3, 5, **options), "progressive_gan-tiny8")
    assert entry["changed"] == {"model.init_args.growth.global_batch_sizes.8": 2}
    assert (entry["training"]["steps"], entry["training"]["images"]) == (1, 4)
    assert "| training | 1 steps, 4 images, 32-true, seed " in card
    assert "global_batch_sizes.8=2`" in card
    assert "global_batch_sizes.4" not in card


def test_the_card_says_what_was_seen(run: Path, out: Path) -> None:
    publish.publish(run, note="Blots, no shapes.")
    header, _ = pretrained.read(out / "dcgan-tiny8.safetensors")
    assert header["note"] == "Blots, no shapes.", "whoever makes the card again has it"
    picture, seen, table = pretrained.card("dcgan-tiny8").split("\n")[2:7:2]
    assert (picture[0], seen, table) == ("!", "Blots, no shapes.", "| | |")


def test_publishing_again_replaces_and_keeps_the_others(run: Path, out: Path) -> None:
    publish.publish(run)
    first = pretrained.index(out)["dcgan-tiny8"]
    publish.publish(run, "dcgan-other8")
    publish.publish(run)
    assert sorted(pretrained.index(out)) == ["dcgan-other8", "dcgan-tiny8"]
    assert pretrained.index(out)["dcgan-tiny8"] == first, "publishing twice gives two files"


def test_what_cannot_be_published(run: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match=r"is no run with a checkpoint: .*config\.yaml is missing"):
        publish.publish(tmp_path)
    own = run.rename(run.with_name("mine"))
    with pytest.raises(ValueError, match=r"mine is not named after a recipe .*name the checkpoint with --slug"):
        publish.publish(own)
    with pytest.raises(ValueError, match=r"'\.\./x' is no name of a checkpoint"):
        publish.publish(own, "../x")
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"cannot write to .*file.*; take another folder"):
        publish.publish(own, "mine", out_dir=tmp_path / "file" / "weights")
    config = config_of(own)
    configure(own, {key: value for key, value in config.items() if key != "data"})
    with pytest.raises(ValueError, match=r"config\.yaml is not the configuration of a run: 'data' is missing"):
        publish.publish(own, "mine")
    configure(own, config)
    monkeypatch.setattr(publish, "MAX_FILE", 1000)
    with pytest.raises(ValueError, match=r"mine has 0\.0 MiB, all together .*at most .* train a narrower network"):
        publish.publish(own, "mine")
    assert not [path for path in out.iterdir() if path.is_file()], "a refused checkpoint left something"


def test_all_files_together_are_limited(run: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish.publish(run)
    size = (out / "dcgan-tiny8.safetensors").stat().st_size
    monkeypatch.setattr(publish, "MAX_TOTAL", int(1.5 * size))
    publish.publish(run)  # itself again: nothing is added
    with pytest.raises(ValueError, match="all together"):
        publish.publish(run, "another8")


def test_the_run_s_own_checkpoint_is_loaded_whole(run: Path) -> None:
    path = run / "checkpoints" / "last.ckpt"
    saved = torch.load(path, weights_only=True)["state_dict"]
    model = zoo.load(path)
    assert all(torch.equal(value, saved[key]) for key, value in model.state_dict().items())
    edit(run, lambda saved: saved["state_dict"].pop("discriminator.layers.0.conv.weight"))
    with pytest.raises(ValueError, match=r"last\.ckpt does not fit zoo\.dcgan\.DCGAN: Missing key"):
        zoo.load(path)
    edit(run, lambda saved: saved.pop("zoo"))
    with pytest.raises(ValueError, match="is no checkpoint of a run of this package"):
        zoo.load(path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"last\.ckpt is damaged"):
        zoo.load(path)
    torch.save({"zoo": re.compile("a")}, path)
    with pytest.raises(ValueError, match="holds more than tensors and plain types"):
        zoo.load(path)
