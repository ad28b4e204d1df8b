"""`zoo evaluate`: runs, checkpoints and folders of pictures, against their own data or others."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import zoo
from tests.cli.parts import TINY, command
from zoo.callbacks.extractors import EXTRACTORS, Extractor, features_of
from zoo.callbacks.metrics import gaussian_distance

RUN = ["--model=DCGAN", "--model.image_size=8", "--model.base_channels=4", *TINY[1:], "--name=run"]
OWN = ["--trust", "tests"]
"""For the DataModule of runs here, which is the tests' own."""


class Pixels(Extractor):
    """Twelve pixels of an image, in the place of a network that takes minutes."""

    name, resize, num_features = "pixels", "none", 12

    def forward(self, x: Tensor) -> Tensor:
        return x[..., :2, :2].flatten(1)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, here: Path) -> None:
    monkeypatch.setitem(EXTRACTORS, "efficientnet-lite0", Pixels)
    monkeypatch.setenv("ZOO_HOME", str(here / "home"))


def pictures(folder: str, count: int, size: int = 8, top: int = 256) -> Tensor:
    """A folder of random pictures; all of them as images."""
    array = np.random.default_rng(len(folder)).integers(0, top, (count, size, size, 3), np.uint8)
    Path(folder, "more").mkdir(parents=True, exist_ok=True)
    for i, pixels in enumerate(array):
        Image.fromarray(pixels).save(Path(folder, "more" if i % 2 else "", f"{i}.png"))
    return torch.from_numpy(array).permute(0, 3, 1, 2).float() / 127.5 - 1


def values(text: str) -> dict[str, float]:
    """Values by metric, of what the command prints."""
    return {line.split()[0]: float(line.split()[1]) for line in text.strip().splitlines()}


def test_a_run_is_measured_on_its_own_data(capsys: pytest.CaptureFixture[str]) -> None:
    measure = ["--trainer.callbacks+=FrechetDistance", "--trainer.callbacks.num_samples=20"]
    assert command("fit", *RUN, *measure, "--trainer.max_steps=1") == 0
    capsys.readouterr()
    assert command("evaluate", "runs/run", "--num_samples=30") == 2
    assert "'tests.cli.parts.Noise'; only classes under 'zoo.' are built, unless you trust" in capsys.readouterr().err
    assert command("evaluate", "runs/run", "--num_samples=30", *OWN) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    assert [line.split()[0] for line in lines] == [
        "fd",
        "kd",
        "precision",
        "recall",
        "density",
        "coverage",
        "authenticity",
    ]
    assert "fd[features=pixels, resize=none, pixels=8bit, real=noise8-train-30, fake=30, weights=raw]" in lines[0]
    assert command("evaluate", "runs/run/checkpoints/last.ckpt", "--metrics=own", "--json", *OWN) == 0
    (own,) = json.loads(capsys.readouterr().out)
    assert "real=noise8-train-20, fake=20" in own["protocol"]
    # Validation and test measure the same of their splits.
    for name, split in (("validate", "val-12"), ("test", "test-10")):
        assert command(name, *RUN, *measure, "--trainer.max_steps=1") == 0
        assert f"real=noise8-{split}, fake=20" in capsys.readouterr().out


def test_a_recipe_chooses_the_features(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    class Own(Pixels):
        name = "own-pixels"

    monkeypatch.setitem(EXTRACTORS, "classifier-mnist28", Own)
    options = ["extractor=classifier-mnist28", "num_samples=20", "metrics=[recall,fd]"]
    measure = ["--trainer.callbacks+=Evaluate", *(f"--trainer.callbacks.{option}" for option in options)]
    assert command("fit", *RUN, *measure, "--trainer.max_steps=1") == 0
    table = Path("runs/run/metrics.csv").read_text()
    assert all(f"{name}[features=own-pixels" in table for name in ("recall", "fd"))
    capsys.readouterr()
    assert command("evaluate", "runs/run", "--metrics=fd", *OWN) == 0
    assert "fd[features=own-pixels, " in capsys.readouterr().out
    assert command("evaluate", "runs/run", "--metrics=fd", "--extractor=efficientnet-lite0", *OWN) == 0
    assert "fd[features=pixels, " in capsys.readouterr().out


def test_folders_of_pictures(capsys: pytest.CaptureFixture[str], fails: Callable[..., str]) -> None:
    """The value is that of all pictures at once, whatever their order and folders."""
    fake, real = pictures("fake", 70), pictures("reals", 90, top=200)
    assert command("evaluate", "fake", "--data=reals", "--metrics=fd,recall", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    a, b = (features_of(Pixels(), x).double() for x in (real, fake))
    expected = gaussian_distance(a.mean(0), torch.cov(a.T), b.mean(0), torch.cov(b.T))
    assert found[0]["value"] == pytest.approx(expected.item(), rel=1e-6)
    assert "real=reals-train-90, fake=70" in found[0]["protocol"]
    pictures("big", 8, 16)
    Path("mixed").mkdir()
    for i, name in enumerate(("fake/0.png", "big/0.png")):
        Path(name).rename(f"mixed/{i}.png")
    assert "several sizes (0.png 8 x 8, 1.png 16 x 16)" in fails("evaluate", "mixed", "--data=reals")
    Path("fake/2.png").write_bytes(b"no picture")
    assert "2.png cannot be read" in fails("evaluate", "fake", "--data=reals")


def test_a_model_against_another_data_set(capsys: pytest.CaptureFixture[str]) -> None:
    pictures("own", 30)
    data: list[Any] = ["--data=ImageFolder", "--data.data_dir=own", "--data.image_size=8"]
    zoo.pretrained.save(
        model := zoo.DCGAN(8, base_channels=4), Path("m.safetensors"), networks=model.inference_networks
    )
    assert command("evaluate", "m.safetensors", *data, "--metrics=fd", "--seeds=3") == 0
    out = capsys.readouterr().out
    assert "seeds=3]" in out
    assert " ± " in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["m.safetensors", "--metrics=fdi"], "has no data of its own"),
        (["fake"], "a folder of pictures has no data of its own: give a DataModule or a folder"),
        (["fake", "--data=reals", "--metrics=fdi"], "there is no metric 'fdi': did you mean 'fd'"),
        (["fake", "--data=reals", "--metrics=own"], "the recipe of PictureFolder measures nothing"),
        (["fake", "--data=reals", "--metrics=nll"], "nll needs log_prob, which PictureFolder does not have"),
        (["fake", "--data=reals", "--metrics=fid", "--extractor=efficientnet-lite0"], "'fid' is the name of 'fd' with"),
        (["fake", "--data=reals", "--metrics=cs"], "cs needs an extractor with classes, pixels has none"),
        (["fake", "--data=reals", "--num_samples=4"], "needs 6 images on each side, num_samples is 4"),
        (["fake", "--data=reals", "--seeds=0"], "seeds must be at least 1"),
        (["fake", "--data=Emojis"], "no folder and no DataModule 'Emojis': did you mean 'Emoji'"),
        (["fake", "--data.image_size=8"], "needs --data with the name of a DataModule"),
        (["fake", "--data=Emoji", "--data.size=8"], "there is no setting data.size: take --data.image_size"),
        (["fake", "--metric=fd"], "there is no option --metric: did you mean '--metrics'"),
        (["nothing"], "there is no checkpoint or file 'nothing'"),
        (["home"], "there are no pictures in home"),
    ],
)
def test_what_is_refused(fails: Callable[..., str], arguments: list[str], message: str) -> None:
    pictures("fake", 8), pictures("reals", 8)
    Path("home").mkdir()
    model = zoo.DCGAN(8, base_channels=4)
    zoo.pretrained.save(model, Path("m.safetensors"), networks=model.inference_networks)
    assert message in fails("evaluate", *arguments)
