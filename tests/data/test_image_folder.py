"""Folders of pictures."""

from __future__ import annotations

import os
import re
import stat
import struct
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from zoo.datamodules import ImageFolder
from zoo.datamodules.base.pictures import square

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def save(path: Path, color: tuple[int, ...] = RED, size: tuple[int, int] = (20, 30), mode: str = "RGB") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, color).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """30 pictures: 20 cats, 10 of them one level deeper, and 10 dogs; and what is no picture."""
    folder = tmp_path / "pets"
    for i in range(10):
        save(folder / "cat" / f"{i}.png", (i, 0, 0))
        save(folder / "cat" / "more" / f"{i}.PNG", (10 + i, 0, 0))
        save(folder / "dog" / f"{i}.png", (20 + i, 0, 0))
    (folder / "cat" / "notes.txt").write_text("x")
    (folder / ".hidden").mkdir()
    (folder / ".hidden" / "x.png").write_text("x")
    return folder


@pytest.fixture
def options(tmp_path: Path) -> dict[str, Any]:
    return {"cache_dir": tmp_path / "cache", "image_size": 8, "batch_size": 4}


def reds(module: ImageFolder, split: str) -> list[int]:
    return [
        int(value)
        for batch in module.evaluation_loader(split)
        for value in ((batch["image"][:, 0, 0, 0] + 1) * 127.5).round().tolist()
    ]


def all_reds(module: ImageFolder) -> list[int]:
    return [value for split in ("train", "val", "test") for value in reds(module, split)]


def test_labels_splits_and_batches(folder: Path, options: dict[str, Any]) -> None:
    module = ImageFolder(folder, **options)
    assert module.num_train == 24
    assert module.class_names == {"label": ["cat", "dog"]}
    assert module.name == "pets8"
    batch = next(iter(module.train_dataloader()))
    assert batch["image"].shape == (4, 3, 8, 8)
    parts = {split: reds(module, split) for split in ("train", "val", "test")}
    assert {split: len(part) for split, part in parts.items()} == {"train": 24, "val": 3, "test": 3}
    assert sorted(all_reds(module)) == list(range(30)), "each in one split"
    for batch in module.evaluation_loader("train"):
        red = ((batch["image"][:, 0, 0, 0] + 1) * 127.5).round()
        assert torch.equal(batch["label"], (red >= 20).long())
    other = ImageFolder(folder, **{**options, "seed": 5, "image_size": 16})
    assert {split: reds(other, split) for split in parts} == parts, "whatever the seed and the size"


def test_the_license_is_the_users_to_state(folder: Path, options: dict[str, Any]) -> None:
    module = ImageFolder(folder, license="CC0-1.0", **options)
    assert repr(module).endswith("license: CC0-1.0)")
    assert repr(ImageFolder(folder, **options)).endswith("license: none stated)")


def test_without_folders_there_are_no_labels(folder: Path, options: dict[str, Any]) -> None:
    module = ImageFolder(folder / "dog", **options)
    assert module.class_names == {}
    assert set(next(iter(module.train_dataloader()))) == {"image"}


def test_folders_of_splits(tmp_path: Path, options: dict[str, Any]) -> None:
    for i in range(20):
        save(tmp_path / "pets" / "train" / ("cat" if i % 2 else "dog") / f"{i}.png", (i, 0, 0))
    save(tmp_path / "pets" / "Test" / "dog" / "0.png", (100, 0, 0))
    module = ImageFolder(tmp_path / "pets", **options)
    assert module.num_train == 18
    assert reds(module, "test") == [100]
    assert max(reds(module, "val")) < 20, "from the training pictures, as there is no folder for it"
    assert module.class_names == {"label": ["cat", "dog"]}
    save(tmp_path / "pets" / "valid" / "cat" / "0.png", (101, 0, 0))
    module = ImageFolder(tmp_path / "pets", **options)
    assert module.num_train == 20
    assert reds(module, "val") == [101]


def test_pictures_are_decoded_once(folder: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    first = all_reds(ImageFolder(folder, **options))
    monkeypatch.setattr(ImageFolder, "_decode", lambda *_: pytest.fail("decoded again"))
    assert all_reds(ImageFolder(folder, **options)) == first


def test_pictures_that_changed_are_decoded_again(folder: Path, options: dict[str, Any]) -> None:
    ImageFolder(folder, **options).split("train")
    os.utime(save(folder / "dog" / "0.png", (250, 0, 0)), (0, 0))
    module = ImageFolder(folder, **options)
    assert 250 in all_reds(module)


def test_a_corrupt_file_is_named_and_refused_or_left_out(folder: Path, options: dict[str, Any]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "cat" / "torn.jpg")
    torn = folder / "cat" / "torn.jpg"
    torn.write_bytes(torn.read_bytes()[:1500])
    (folder / "dog" / "text.png").write_text("no picture")

    with pytest.raises(ValueError, match=r"(torn\.jpg|text\.png) cannot be read \(.*\): mend or remove it, or set"):
        ImageFolder(folder, **options).split("train")
    assert not list(options["cache_dir"].rglob("*.npy"))
    for _ in range(2):  # from the pictures, and from the cache
        module = ImageFolder(folder, **options, on_error="skip")
        with pytest.warns(UserWarning, match=r"^left out 2 of 32 pictures in .*: cat/torn\.jpg, dog/text\.png$"):
            module.split("train")
        assert sorted(all_reds(module)) == list(range(30))
    with pytest.raises(ValueError, match=r"torn\.jpg cannot be read"):  # the cache knows
        ImageFolder(folder, **options).split("train")


def test_each_mistake_has_its_line(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(FileNotFoundError, match=r"^there is no folder .*typo: set data_dir to a folder of pictures$"):
        ImageFolder(tmp_path / "typo", **options).split("train")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"^there are no pictures in .*empty: none of its files ends in "):
        ImageFolder(tmp_path / "empty", **options).split("train")
    (tmp_path / "empty" / "x.png").touch()
    with pytest.raises(ValueError, match=r"^none of the 1 pictures in .* can be read; x\.png: "):
        ImageFolder(tmp_path / "empty", **options, on_error="skip").split("train")
    with pytest.raises(ValueError, match=r"^unknown on_error 'skp': did you mean 'skip'\?$"):
        ImageFolder(tmp_path, **options, on_error="skp")
    with pytest.raises(ValueError, match=r"^image_channels must be 1 or 3, not 4$"):
        ImageFolder(tmp_path, **options, image_channels=4)
    with pytest.raises(ValueError, match=r"^val_share and test_share must leave something to train on, not 0\.6, "):
        ImageFolder(tmp_path, **options, val_share=0.6, test_share=0.5)


# From a file to pixels -----------------------------------------------------------------------------------------------


def corner(path: Path, **options: Any) -> list[int]:
    return square(path, 8, **options)[:, 0, 0].tolist()


def test_pictures_of_any_mode_become_three_or_one_channels(tmp_path: Path) -> None:
    assert corner(save(tmp_path / "rgb.png")) == [255, 0, 0]
    assert corner(save(tmp_path / "grey.png", (90,), mode="L")) == [90] * 3
    assert corner(save(tmp_path / "grey.png", (90,), mode="L"), channels=1) == [90]
    assert corner(save(tmp_path / "clear.png", (255, 0, 0, 0), mode="RGBA")) == [255] * 3, "transparency on white"
    assert corner(save(tmp_path / "half.png", (0, 0, 0, 128), mode="RGBA")) == [127] * 3
    assert corner(save(tmp_path / "cmyk.tif", (0, 255, 255, 0), mode="CMYK")) == [255, 0, 0]
    assert corner(save(tmp_path / "one.png", (1,), mode="1")) == [255] * 3
    Image.new("RGB", (9, 9), GREEN).convert("P").save(tmp_path / "p.gif")
    assert corner(tmp_path / "p.gif") == [0, 255, 0]
    Image.fromarray(np.full((9, 9), 65535 // 2, np.uint16)).save(tmp_path / "deep.png")
    assert corner(tmp_path / "deep.png") == [127] * 3, "16 bits are scaled, not cut"
    save(tmp_path / "webp.webp")
    assert corner(tmp_path / "webp.webp")[0] > 250


def test_the_central_square_is_taken(tmp_path: Path) -> None:
    for shape in ((60, 20), (20, 60)):
        pixels = np.full((*shape, 3), 255, np.uint8)
        middle = np.s_[20:40, :] if shape[0] == 60 else np.s_[:, 20:40]
        pixels[middle] = 50
        Image.fromarray(pixels).save(tmp_path / "x.png")
        assert (square(tmp_path / "x.png", 10) == 50).all()
    assert square(save(tmp_path / "tiny.png", size=(1, 3)), 16).shape == (3, 16, 16)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_the_whole_picture_may_be_squeezed_into_the_square(tmp_path: Path, suffix: str) -> None:
    for shape in ((150, 50), (50, 150)):
        pixels = np.full((*shape, 3), 50, np.uint8)
        pixels[-30:, -30:] = 250  # at the far end: a fifth of the longer side
        Image.fromarray(pixels).save(tmp_path / f"x{suffix}", quality=95)
        found = square(tmp_path / f"x{suffix}", 10, squeeze=True)
        assert found.shape == (3, 10, 10)
        tall, wide = (2, 6) if shape[0] == 150 else (6, 2)
        assert (found[:, -tall + 1 :, -wide + 1 :] > 220).all()
        assert (found[:, : 9 - tall] < 70).all()
        assert (found[:, :, : 9 - wide] < 70).all()
        assert (square(tmp_path / f"x{suffix}", 10) < 70).all(), "not in the middle square"
    assert square(save(tmp_path / "tiny.png", size=(1, 3)), 16, squeeze=True).shape == (3, 16, 16)


def test_squeezed_pictures_have_a_cache_of_their_own(tmp_path: Path, options: dict[str, Any]) -> None:
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[:, :10] = 255  # outside the middle square
    (tmp_path / "wide").mkdir()
    Image.fromarray(pixels).save(tmp_path / "wide" / "x.png")
    names = []
    for _ in range(2):  # from the picture, and from the cache
        for squeeze, left in ((False, 0), (True, 255)):
            module = ImageFolder(tmp_path / "wide", **options, squeeze=squeeze)
            image = module.split("train").images(torch.arange(1))
            assert int(image[0, 0, 4, 0]) == left
            names.append(module.name)
    assert names == ["wide8", "wide8-squeezed"] * 2
    assert len(list((options["cache_dir"] / "folders").glob("*.npy"))) == 2


def test_a_turned_photograph_is_set_upright(tmp_path: Path) -> None:
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[:16] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it
    Image.fromarray(pixels).save(tmp_path / "x.jpg", exif=exif, quality=95)
    turned = square(tmp_path / "x.jpg", 8)
    assert (turned[:, :, -2:] > 200).all()
    assert (turned[:, :, :2] < 50).all()


def test_a_large_jpeg_decoded_at_a_fraction_is_the_same_picture(tmp_path: Path) -> None:
    waves = np.sin(np.linspace(0, 12, 1600))[:, None] * np.cos(np.linspace(0, 9, 1600))[None]
    picture = Image.fromarray((127 + 120 * waves).astype(np.uint8))
    picture.save(tmp_path / "x.jpg", quality=95)
    picture.save(tmp_path / "x.png")
    difference = square(tmp_path / "x.jpg", 32).astype(int) - square(tmp_path / "x.png", 32)
    assert abs(difference).max() <= 3


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (np.linspace(0.5, 1, 81, dtype=np.float32), 191),  # in the middle: 0.75
        (np.linspace(100, 200, 81, dtype=np.float32), 150),
        (np.linspace(0, 65535, 81, dtype=np.float32), 128),
        (np.zeros(81, np.float32), 0),
        (np.linspace(0, 65535, 81).astype(np.int32), 127),
        (np.zeros(81, np.uint16), 0),
        (np.linspace(-1, 1, 81, dtype=np.float32), "from -1 to 1: save them as 0..1, 0..255 or 0..65535"),
        (np.linspace(0, 2, 81, dtype=np.float32), "from 0 to 2: save them as 0..1, "),
        (np.full(81, np.nan, np.float32), "from nan to nan: "),
        (np.linspace(0, 10**6, 81).astype(np.int32), "from 0 to 1e\\+06: save them as 0..255 or 0..65535"),
        (np.linspace(0, 4095, 81).astype(np.uint16), "16-bit values end at 4095, as 12-bit ones do: scale them to"),
    ],
)
def test_values_of_more_than_eight_bits(tmp_path: Path, values: np.ndarray[Any, Any], found: int | str) -> None:
    Image.fromarray(values.reshape(9, 9)).save(tmp_path / "x.tif")
    if isinstance(found, str):
        with pytest.raises(ValueError, match=found):
            square(tmp_path / "x.tif", 9)
    else:
        assert square(tmp_path / "x.tif", 9)[:, 4, 4].tolist() == [found] * 3


# Folders as people have them -----------------------------------------------------------------------------------------


def tree(folder: Path, counts: dict[str, int]) -> Path:
    """Pictures of one red value each, in folders of so many."""
    numbers = iter(range(250))
    for name, count in counts.items():
        for _ in range(count):
            save(folder / name / f"{next(numbers)}.png", (next(numbers), 0, 0), (8, 8))
    return folder


LEFT_OUT = "left out {} of .* pictures in .* that lie beside the folders {}: {}"
LAYOUTS = {  # folders and numbers of pictures; sizes of the splits; classes; the warning
    "train and val": ({"train/a": 6, "train/b": 4, "val/a": 2, "val/b": 2}, (9, 4, 1), ["a", "b"], None),
    "train alone": ({"train/a": 6, "train/b": 4}, (8, 1, 1), ["a", "b"], None),
    "train without classes": ({"train": 10, "val": 3}, (9, 3, 1), [], None),
    "beside the splits": (
        {"train/a": 6, "train/b": 4, "Test/b": 1, "": 1},
        (9, 1, 1),
        ["a", "b"],
        LEFT_OUT.format(1, "test, train", r"\d+\.png"),
    ),
    "beside the classes": ({"a": 10, "b": 10, "": 2}, (16, 2, 2), ["a", "b"], LEFT_OUT.format(2, "of classes", r"\d+")),
    "a flat test folder": (
        {"train/a": 10, "train/b": 10, "test": 6},
        (18, 2, 0),
        ["a", "b"],
        LEFT_OUT.format(6, "of classes", r"(test/\d+\.png, ){5}\.\.\."),
    ),
    "one folder is no class": ({"a": 6, "": 4}, (8, 1, 1), [], None),
    "train as a class": ({"train": 10, "car": 10}, (16, 2, 2), ["car", "train"], None),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout: str, tmp_path: Path, options: dict[str, Any], recwarn: pytest.WarningsRecorder) -> None:
    counts, sizes, classes, warning = LAYOUTS[layout]
    module = ImageFolder(tree(tmp_path / "data", counts), **options)
    assert tuple(len(module.split(split)) for split in ("train", "val", "test")) == sizes
    assert module.class_names == ({"label": classes} if classes else {})
    seen = all_reds(module)
    assert len(set(seen)) == len(seen) == sum(sizes)
    if classes:
        assert {int(label) for batch in module.evaluation_loader("train") for label in batch["label"]} == {0, 1}
    texts = [str(found.message) for found in recwarn]
    assert [re.match(warning, text) is not None for text in texts] == [True] if warning else not texts


def test_linked_folders_are_classes_and_links_in_circles_end(tmp_path: Path, options: dict[str, Any]) -> None:
    tree(tmp_path / "elsewhere", {"dogs": 5})
    tree(tmp_path / "pets", {"cats": 5})
    (tmp_path / "pets" / "dogs").symlink_to(tmp_path / "elsewhere" / "dogs")
    (tmp_path / "pets" / "cats" / "up").symlink_to(tmp_path / "pets")
    module = ImageFolder(tmp_path / "pets", **options)
    module.split("train")
    assert module.class_names == {"label": ["cats", "dogs"]}
    assert len(module.listing()) == 10


def test_what_is_no_file_is_named_and_not_waited_for(tmp_path: Path, options: dict[str, Any]) -> None:
    folder = tree(tmp_path / "pets", {"": 8, "folder.png": 2})
    (folder / "nowhere.png").symlink_to("gone.png")
    os.mkfifo(folder / "pipe.jpg")
    os.mknod(folder / "socket.jpg", stat.S_IFSOCK | 0o600)
    with pytest.raises(ValueError, match=r"nowhere\.png cannot be read \(it is a link that leads nowhere\)"):
        ImageFolder(folder, **options).split("train")
    module = ImageFolder(folder, **options, on_error="skip")
    with pytest.warns(UserWarning, match=r"^left out 3 of 13 pictures in .*: nowhere\.png, pipe\.jpg, socket\.jpg$"):
        module.split("train")
    assert len(all_reds(module)) == 10
    (folder / "nowhere.png").unlink()
    with pytest.raises(ValueError, match=r"pipe\.jpg cannot be read \(it is a folder, a named pipe, "):
        ImageFolder(folder, **options).split("train")


@pytest.mark.skipif(sys.platform != "linux", reason="names are text elsewhere")
def test_names_that_are_not_utf8(tmp_path: Path, options: dict[str, Any]) -> None:
    folder = tree(tmp_path / "pets", {"cat": 4})
    strange = os.fsencode(folder) + b"/caf\xe9"
    os.mkdir(strange)
    for name in (b"/1.png", b"/\xff.png"):
        os.link(folder / "cat" / "0.png", strange + name)
    (folder / "cat" / os.fsdecode(b"\xfe.png")).write_text("no picture")
    with pytest.raises(ValueError, match=r"cat/\\xfe\.png cannot be read"):
        ImageFolder(folder, **options).split("train")
    module = ImageFolder(folder, **options, on_error="skip")
    with pytest.warns(UserWarning, match=r"^left out 1 of 7 pictures in .*: cat/\\xfe\.png$"):
        module.split("train")
    assert module.class_names == {"label": ["caf\\xe9", "cat"]}
    assert len(all_reds(module)) == 6


def test_pictures_too_large_to_open_are_named(tmp_path: Path, options: dict[str, Any]) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    def png(name: str, side: int, *more: bytes) -> None:
        parts = [chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)), *more]
        parts += [chunk(b"IDAT", zlib.compress(bytes(4))), chunk(b"IEND", b"")]
        (tmp_path / "pets" / name).write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))

    (tmp_path / "pets").mkdir()
    png("bomb.png", 1, chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**21))))
    with pytest.raises(ValueError, match=r"bomb\.png cannot be read \(Decompressed data too large"):
        ImageFolder(tmp_path / "pets", **options).split("train")
    png("bomb.png", 50_000)
    with pytest.raises(ValueError, match=r"bomb\.png cannot be read \(Image size \(2500000000 pixels\) exceeds limit"):
        ImageFolder(tmp_path / "pets", **options).split("train")
