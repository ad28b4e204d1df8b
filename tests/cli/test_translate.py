"""Folders of pictures, translated by the command."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.cli.parts import command
from zoo import pretrained
from zoo.cli.translate_folder import translate_folder
from zoo.cyclegan import CycleGAN
from zoo.stargan import StarGAN


class Inverter(CycleGAN):
    """Turns dark into bright, and keeps what it was given."""

    seen: list[tuple[int, ...]]

    def translate(self, x: torch.Tensor, target: str) -> torch.Tensor:
        self.seen = [*getattr(self, "seen", []), tuple(x.shape)]
        return -x


TINY = {"base_channels": 4, "num_blocks": 1, "discriminator_layers": 1}


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


def test_a_network_gets_multiples_of_its_own_size(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    Image.new("RGB", (20, 37)).save(tmp_path / "in" / "a.png")
    model = Inverter(16, **TINY)
    model.multiple = 16
    for size, expected in ((None, (16, 30)), (0, (20, 37))):
        (file,) = translate_folder(model, tmp_path / "in", tmp_path / "out", "b", size=size, progress=False, force=True)
        assert Image.open(file).size == expected
    assert model.seen == [(1, 3, 32, 16), (1, 3, 48, 32)]


def test_tiny_pictures_are_mirrored_over_and_over(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for side in (1, 2, 3):
        Image.fromarray(np.arange(side, dtype=np.uint8)[None].repeat(side, 0)).save(tmp_path / "in" / f"{side}.png")
    model = Inverter(16, **TINY)
    given: list[torch.Tensor] = []
    model.translate = lambda x, target: given.append(x) or -x  # type: ignore[func-returns-value,method-assign]
    files = translate_folder(model, tmp_path / "in", tmp_path / "out", "b", size=0, progress=False)
    assert [Image.open(file).size for file in files] == [(1, 1), (2, 2), (3, 3)]
    rows = [((x[0, 0, 5] + 1) * 127.5).round().tolist() for x in given]
    assert rows == [[0] * 8, [0, 1] * 4, [0, 1, 2, 1, 0, 1, 2, 1]]
    model = CycleGAN(16, **TINY)
    translate_folder(model, tmp_path / "in", tmp_path / "real", "b", size=0, progress=False)


def test_pictures_of_16_bits_are_scaled(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    levels = np.linspace(0, 65535, 16 * 16).astype(np.uint16).reshape(16, 16)
    Image.fromarray(levels).save(tmp_path / "in" / "grey.png")
    assert Image.open(tmp_path / "in" / "grey.png").mode.startswith("I")
    (file,) = translate_folder(Inverter(16, **TINY), tmp_path / "in", tmp_path / "out", "b", progress=False)
    assert np.abs(255 - np.array(Image.open(file))[..., 0] - levels / 257.0).max() <= 0.51


def test_pictures_of_floats_are_scaled_or_named(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    Image.fromarray(np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)).save(tmp_path / "in" / "a.tif")
    (file,) = translate_folder(Inverter(16, **TINY), tmp_path / "in", tmp_path / "out", "b", progress=False)
    assert np.abs(255 - np.array(Image.open(file))[..., 0] - np.linspace(0, 255, 256).reshape(16, 16)).max() <= 0.51
    Image.fromarray(np.full((16, 16), -3, np.float32)).save(tmp_path / "in" / "b.tif")
    with pytest.raises(ValueError, match=r"b\.tif cannot be .* \(its values go from -3 to -3: save them"):
        translate_folder(Inverter(16, **TINY), tmp_path / "in", tmp_path / "new", "b", progress=False)


def test_every_suffix_and_no_hidden_files(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / ".thumbnails").mkdir(parents=True)
    Image.new("RGB", (16, 16)).save(folder / "a.ppm")
    Image.new("L", (16, 16)).save(folder / "b.pgm")
    Image.new("RGB", (16, 16)).save(folder / "c.jfif", "JPEG")
    Image.new("RGB", (16, 16)).save(folder / ".thumbnails" / "a.png")
    (folder / "._c.jpg").write_bytes(b"not a picture")
    files = translate_folder(Inverter(16, **TINY), folder, tmp_path / "out", "b", progress=False)
    assert [file.name for file in files] == ["a.png", "b.png", "c.png"]


def test_attributes_of_pictures_of_any_size(tmp_path: Path) -> None:
    """StarGAN asks its discriminator, which was trained with one size, what else a picture is."""
    (tmp_path / "in").mkdir()
    for width, height in ((3, 5), (9, 12), (40, 20)):
        Image.new("RGB", (width, height)).save(tmp_path / "in" / f"{width}.png")
    model = StarGAN(16, attributes=["old", "glad"], base_channels=4, num_blocks=1, discriminator_layers=3)
    files = translate_folder(model, tmp_path / "in", tmp_path / "out", "glad", size=0, progress=False)
    assert sorted(Image.open(file).size for file in files) == [(3, 5), (9, 12), (40, 20)]


def test_broken_pictures_are_left_out_if_asked(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (pictures / "broken.png").write_bytes((pictures / "0.png").read_bytes()[:40])
    (pictures / "gone.png").symlink_to("nowhere.png")
    (pictures / "folder.png").mkdir()
    if hasattr(os, "mkfifo"):
        os.mkfifo(pictures / "pipe.png")
    model, out = Inverter(16, **TINY), tmp_path / "out"
    with pytest.raises(ValueError, match=r"broken.png cannot be read as a picture: remove it, or set on_error to skip"):
        translate_folder(model, pictures, out, "b", progress=False)
    assert not out.exists()
    files = translate_folder(model, pictures, out, "b", progress=False, on_error="skip")
    assert len(files) == len([*out.rglob("*.png")]) == 7
    said = capsys.readouterr().out.splitlines()
    assert [line.partition(" cannot")[0] for line in said] == [
        f"left out: {pictures / name}" for name in ("broken.png", "gone.png")
    ]


def test_a_picture_is_written_whole_or_not_at_all(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = Image.Image.save

    def save(self: Image.Image, file: Any, **options: Any) -> None:
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", save)
    with pytest.raises(KeyboardInterrupt):
        translate_folder(Inverter(16, **TINY), pictures, tmp_path / "out", "b", progress=False)
    monkeypatch.setattr(Image.Image, "save", inner)
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
