"""`zoo sample`, and what `validate`, `test` and `predict` do with a run."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

import zoo
from tests.cli.parts import TINY, command
from zoo import pretrained

LAST = "runs/run/checkpoints/last.ckpt"
RUN = ["--model=DCGAN", "--model.image_size=8", "--model.base_channels=4", *TINY[1:], "--name=run"]


@pytest.fixture
def run() -> None:
    assert command("fit", *RUN, "--trainer.max_steps=1") == 0


@pytest.mark.usefixtures("run")
def test_a_grid_of_the_same_seed_is_the_same() -> None:
    for name, more in (("a", []), ("b", []), ("c", ["--seed=1"]), ("d", ["--num=3", "--nrow=3"])):
        assert command("sample", LAST, "--num=70", "--out", f"{name}.png", *more) == 0
    a, b, c, d = (Path(f"{name}.png").read_bytes() for name in "abcd")
    assert a == b
    assert a != c
    width, height = Image.open("d.png").size
    assert width > 2.5 * height
    assert d


@pytest.mark.usefixtures("run")
def test_what_sample_refuses(fails: Callable[..., str]) -> None:
    Path("there.png").write_bytes(b"mine")
    assert "there.png" in fails("sample", LAST, "--out=there.png")
    assert Path("there.png").read_bytes() == b"mine"
    assert "--num" in fails("sample", LAST, "--num=0")
    assert "abacus" in fails("sample", LAST, "--device=abacus")
    assert "label" in fails("sample", LAST, "--label=1")
    assert "missing.ckpt" in fails("sample", "missing.ckpt")
    Path("evil.pth").write_bytes(pickle.dumps(print))
    assert "evil.pth" in fails("sample", "evil.pth")
    whole = Path(LAST).read_bytes()
    Path("half.ckpt").write_bytes(whole[: len(whole) // 2])
    assert "half.ckpt" in fails("sample", "half.ckpt")
    torch.save({"state_dict": {}}, "other.ckpt")
    assert "other.ckpt" in fails("sample", "other.ckpt")
    assert not Path("grid.png").exists()


@pytest.mark.usefixtures("run")
def test_predict_writes_into_the_run(fails: Callable[..., str]) -> None:
    assert command("predict", *RUN) == 0
    pictures = list(Path("runs/run").rglob("0*.png"))
    assert len(pictures) == 10
    message = fails("predict", *RUN[:-1], "--name=other")
    assert "runs/other" in message
    wrong = [arg.replace("channels=4", "channels=8") for arg in RUN]
    assert "last.ckpt" in fails("predict", *wrong)


@pytest.mark.usefixtures("run")
def test_a_sentence_is_for_models_that_draw_one(fails: Callable[..., str]) -> None:
    assert "does not draw sentences: leave out --text" in fails("sample", LAST, "--text=a cat", "--out=cat.png")
    encoder = {"kind": "char", "channels": [4, 4], "hidden_features": 4, "embedding_dim": 6, "max_length": 80}
    model = zoo.Text2Image(8, text_encoder=encoder, base_channels=4, discriminator_channels=4)
    pretrained.save(model, Path("model.safetensors"), networks=model.inference_networks)
    assert command("sample", "model.safetensors", "--num=4", "--text", "a red apple", "--out=apple.png") == 0
    assert Path("apple.png").is_file()
    assert "give text=" in fails("sample", "model.safetensors", "--out=nothing.png")
