"""Folders of pictures, translated by the command."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.cli.parts import command
from zoo import pretrained
from zoo.cyclegan import CycleGAN
from zoo.folders import translate_folder


class Inverter(CycleGAN):
    """Turns dark into bright, and keeps what it was given."""

    seen: list[tuple[int, ...]]

    def translate(self, x: torch.Tensor, target: str) -> torch.Tensor:
        self.seen = [*getattr(self, "seen", []), tuple(x.shape)]
        return -x


TINY = {"base_channels": 4, "blocks": 1, "discriminator_layers": 1}


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Seven pictures of three sizes, one of them in a folder, and a text."""
    folder = tmp_path / "in"
    (folder / "more").mkdir(parents=True)
    for i in range(5):
        Image.new("RGB", (30, 20), (i, 10, 20)).save(folder / f"{i}.png")
    Image.new("L", (9, 21), 50).save(folder / "more" / "tall.JPG")
    Image.new("RGBA", (16, 16), (0, 0, 0, 0)).save(folder / "clear.webp", lossless=True)
    (folder / "notes.txt").write_text("no picture")
    return folder


def test_pictures_of_any_size_keep_name_and_form(pictures: Path, tmp_path: Path) -> None:
    model, out = Inverter(16, **TINY), tmp_path / "out"
    files = translate_folder(model, pictures, out, "b", batch_size=3, progress=False)
    names = [*(f"{i}.png" for i in range(5)), "clear.png", "more/tall.png"]
    assert [path.relative_to(out).as_posix() for path in files] == names
    assert sorted(model.seen) == [(1, 3, 16, 16), (1, 3, 40, 16), (2, 3, 16, 24), (3, 3, 16, 24)]
    sizes = {path.stem: Image.open(path).size for path in files}
    assert sizes == {**{str(i): (24, 16) for i in range(5)}, "clear": (16, 16), "tall": (16, 37)}
    assert (np.array(Image.open(out / "3.png")) == [252, 245, 235]).all(), "each under its own name"
    assert (np.array(Image.open(out / "clear.png")) == 0).all(), "clear is white"


def test_own_size_is_kept_with_0(pictures: Path, tmp_path: Path) -> None:
    model = Inverter(16, **TINY)
    files = translate_folder(model, pictures, tmp_path / "out", "b", size=0, progress=False)
    assert {Image.open(path).size for path in files} == {(30, 20), (9, 21), (16, 16)}
    assert sorted(model.seen) == [(1, 3, 16, 16), (1, 3, 24, 12), (5, 3, 20, 32)]


def test_the_command(pictures: Path, capsys: pytest.CaptureFixture[str], fails: Callable[..., str]) -> None:
    model = CycleGAN(16, **TINY, domain_names=("day", "night"))
    pretrained.save(model, Path("model.safetensors"))
    args = ["translate", "model.safetensors", str(pictures), "out", "--to", "night"]
    assert command(*args) == 0
    assert "7 pictures, to night: out" in capsys.readouterr().out
    image = torch.from_numpy(np.array(Image.open(pictures / "clear.webp").convert("RGB"))).permute(2, 0, 1)
    expected = model.translate(torch.ones_like(image, dtype=torch.float32)[None], "night")[0]
    found = torch.from_numpy(np.array(Image.open("out/clear.png"))).permute(2, 0, 1) / 127.5 - 1
    assert (found - expected).abs().max() < 1.01 / 127.5

    assert "out/0.png exists: take another folder, or --force" in fails(*args)
    assert command(*args, "--force") == 0
    assert "there is no domain 'noon': take one of a, b, day, night" in fails(*args[:3], "other", "--to", "noon")
    assert not Path("other").exists()


def test_what_cannot_be_translated(pictures: Path, fails: Callable[..., str]) -> None:
    pretrained.save(CycleGAN(16, **TINY), Path("model.safetensors"))
    args = ["translate", "model.safetensors", str(pictures), "out", "--to", "b"]
    assert "there is no folder nowhere" in fails(*args[:2], "nowhere", *args[3:])
    Path("empty").mkdir()
    assert "there is no picture (" in fails(*args[:2], "empty", *args[3:])
    assert "size must not be negative" in fails(*args, "--size", "-1")
    assert "DCGAN does not translate: take a CycleGAN or a StarGAN" in fails(args[0], "dcgan-emoji32", *args[2:])
    (pictures / "0.jpg").write_bytes(b"")
    assert "0.jpg and" in fails(*args)
    (pictures / "0.jpg").rename(pictures / "broken.jpg")
    assert "broken.jpg cannot be read as a picture" in fails(*args)
    assert not Path("out").exists()
