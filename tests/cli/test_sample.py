"""`zoo sample`, and what `validate`, `test` and `predict` do with a run."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import zoo
from tests.cli.parts import TINY, command
from zoo import pretrained
from zoo.cli.sample_files import Target, write_samples

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


SAMPLE = ["sample", LAST, "--num=5", "--batch_size=2"]


@pytest.mark.usefixtures("run")
def test_single_pictures_and_arrays(fails: Callable[..., str], capsys: pytest.CaptureFixture[str]) -> None:
    assert command(*SAMPLE, "--out=pictures/") == 0
    assert "Sampling: 100%" in capsys.readouterr().err
    assert command(*SAMPLE, "--format=npz", "--out=all.npz") == 0
    files = sorted(Path("pictures").iterdir())
    assert [file.name for file in files] == [f"00000{i}.png" for i in range(5)]
    array = np.load("all.npz")["arr_0"]
    assert (array.shape, array.dtype) == ((5, 8, 8, 3), np.uint8)
    assert all((np.array(Image.open(file)) == image).all() for file, image in zip(files, array, strict=True))
    # A grid shows the same.
    assert command(*SAMPLE, "--nrow=5", "--out=grid.png") == 0
    assert (np.array(Image.open("grid.png"))[2:10, 2:10] == array[0]).all()
    # What is there stays, unless it may be replaced.
    assert "pictures exists" in fails(*SAMPLE, "--seed=1", "--out=pictures/")
    assert command(*SAMPLE, "--seed=1", "--out=pictures", "--force") == 0
    assert (np.array(Image.open(files[0])) != array[0]).any()
    Path("empty").mkdir()
    assert command(*SAMPLE, "--out=empty") == 0
    assert command(*SAMPLE, "--format=npz") == 0
    assert command(*SAMPLE, "--format=png") == 0
    assert np.load("samples.npz")["arr_0"].shape[0] == len([*Path("samples").iterdir()]) == 5
    assert not [*Path().glob(".*")]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--out=there/grid.png"], ["there", "no folder"]),
        (["--out=there/pictures/"], ["there", "no folder"]),
        (["--out=grid"], ["grid", ".png", ".npz", "slash"]),
        (["--out=grid.xyz"], ["grid.xyz", ".png", ".npz"]),
        (["--out=s3://bucket/grid.png"], ["s3://bucket/grid.png", "this machine"]),
        (["--out=grid.png", "--format=npz"], ["--format npz", ".npz"]),
        (["--out=grid.npz", "--format=png"], ["--format png", "folder/"]),
        (["--batch_size=0"], ["--batch_size", "1"]),
        (["--nrow=0"], ["--nrow", "1"]),
        (["--format=gif"], ["--format", "png", "npz"]),
    ],
)
def test_where_samples_cannot_go(fails: Callable[..., str], here: Path, options: list[str], words: list[str]) -> None:
    message = fails("sample", "dcgan-emoji32", *options)
    assert all(word in message for word in words), message
    assert not [*here.iterdir()]


@pytest.mark.parametrize("out", ["grid.png", "all.npz", "pictures/"])
def test_samples_are_whole_or_absent(here: Path, out: str) -> None:
    def sample(n: int, first: int) -> torch.Tensor:
        if first:
            raise KeyboardInterrupt
        return torch.zeros(n, 3, 8, 8)

    with pytest.raises(KeyboardInterrupt):
        write_samples(sample, 4, Target(out), batch_size=2)
    assert not [*here.iterdir()]
