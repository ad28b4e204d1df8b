"""The emoji that ship with the package: archive, rendering, splits, fields."""

from __future__ import annotations

import errno
import hashlib
import json
import lzma
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import zoo
from zoo.datamodules.base import emoji_archive, emoji_build
from zoo.datamodules.emoji import Emoji

TABLE = emoji_archive.emoji_table()


@pytest.fixture(scope="module")
def module(cache: Path) -> Emoji:
    """Two vendors at the smallest size, rendered once for all tests."""
    return Emoji(cache_dir=cache, image_size=8, vendors=["twemoji", "fluent"], batch_size=16)


# The archive ---------------------------------------------------------------------------------------------------------


def test_every_vendor_draws_every_emoji() -> None:
    assert len(TABLE) == len({row["code"] for row in TABLE}) == 3139
    assert sum((emoji_archive.DATA / f"{vendor}.json.xz").stat().st_size for vendor in emoji_archive.VENDORS) < 7e6
    for vendor in emoji_archive.VENDORS:
        drawings = json.loads(lzma.decompress(emoji_archive.read(f"{vendor}.json.xz")))
        assert len(drawings) == 3139
        assert all(drawing.startswith("<svg ") and drawing.endswith("</svg>") for drawing in drawings)


def test_each_vendors_license_lies_beside_it() -> None:
    for vendor, (_, spdx) in emoji_archive.VENDORS.items():
        text = (emoji_archive.DATA / f"LICENSE-{vendor}.md").read_text()
        assert spdx in text
        assert "https://github.com/" in text
    assert "Permission is hereby granted" in (emoji_archive.DATA / "LICENSE-fluent.md").read_text()
    assert Emoji(vendors=["noto"]).license == "Apache-2.0"
    assert Emoji().license == "Apache-2.0 AND CC-BY-4.0 AND CC-BY-SA-4.0 AND MIT"


def test_no_base_emoji_lies_in_two_splits() -> None:
    splits: dict[str, set[str]] = {}
    for row in TABLE:
        splits.setdefault(row["base"], set()).add(row["split"])
    assert all(len(found) == 1 for found in splits.values())
    shares = [sum(row["split"] == split for row in TABLE) / 3139 for split in ("train", "val", "test")]
    assert shares == pytest.approx([0.8, 0.1, 0.1], abs=0.005)


@pytest.mark.parametrize(
    ("code", "base", "tone", "gender"),
    [
        ("1f469-1f3ff-200d-1f3eb", "1f9d1-1f3eb", "dark", "woman"),  # woman teacher
        ("1f468-200d-1f3eb", "1f9d1-1f3eb", "none", "man"),
        ("1f9d1-200d-1f3eb", "1f9d1-1f3eb", "none", "none"),
        ("1f3c3-1f3fb-200d-2640-200d-27a1", "1f3c3", "light", "woman"),  # running, facing right
        ("1f385-1f3fd", "1f9d1-1f384", "medium", "man"),  # Santa Claus
        ("1f600", "1f600", "none", "none"),
        ("2640", "2640", "none", "woman"),
    ],
)
def test_tone_and_gender_are_taken_out_of_the_base(code: str, base: str, tone: str, gender: str) -> None:
    assert emoji_build.base(code) == base
    assert emoji_build.skin_tone(code) == tone
    assert emoji_build.gender(code) == gender


def test_captions_agree_with_tone_and_gender() -> None:
    for row in TABLE:
        tone = row["skin_tone"]
        assert row["caption"].endswith(f": {tone} skin tone") == (tone != "none"), row
        words = row["caption"].split()
        if row["gender"] != "none" and {"woman", "man"} & set(words):
            assert row["gender"] in words, row


def package(folder: Path, name: str, icons: dict[str, Any], aliases: dict[str, Any]) -> None:
    """A package in the layout of the originals."""
    folder = folder / f"iconify-json-{name}-1.0.0-data"
    folder.mkdir(parents=True)
    chars = {"1f600": "grin", "1f44b-1f3fb": "wave-light-skin-tone", "1f44b": "wave", "1f697": "car"}
    (folder / "icons.json").write_text(json.dumps({"width": 10, "height": 10, "icons": icons, "aliases": aliases}))
    (folder / "chars.json").write_text(json.dumps(chars))
    (folder / "metadata.json").write_text(json.dumps({"categories": {"All": sorted(chars.values())}}))
    (folder / "info.json").write_text("{}")


def test_the_archive_is_rebuilt_to_the_byte_and_aliases_are_resolved(tmp_path: Path) -> None:
    corner = {"body": '<rect width="5" height="5" fill="red"/>'}
    icons = {"grin": corner, "wave": corner | {"left": 5, "top": 5, "width": 5, "height": 5}}
    aliases = {
        "wave-light-skin-tone": {"parent": "car", "vFlip": True},
        "car": {"parent": "grin", "hFlip": True},
    }
    for name, _ in emoji_archive.VENDORS.values():
        package(tmp_path / "source", name, icons, aliases)
    shutil.make_archive(str(tmp_path / "source/iconify-json-noto-1.0.0-data"), "gztar", tmp_path / "source",
                        "iconify-json-noto-1.0.0-data")  # fmt: skip
    shutil.rmtree(tmp_path / "source/iconify-json-noto-1.0.0-data")
    (tmp_path / "source/iconify-json-noto-1.0.0-data.tar.gz").rename(
        tmp_path / "source/iconify-json-noto-1.0.0-data.tgz"
    )
    for target in ("one", "two"):
        emoji_build.build(tmp_path / "source", tmp_path / target)
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == sorted(["emoji.json", "sha256.json", *(f"{v}.json.xz" for v in emoji_archive.VENDORS)])
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    sums = json.loads((tmp_path / "one/sha256.json").read_text())
    assert sums["emoji.json"] == hashlib.sha256((tmp_path / "one/emoji.json").read_bytes()).hexdigest()

    codes = [row["code"] for row in json.loads((tmp_path / "one/emoji.json").read_text())]
    drawings = json.loads(lzma.decompress((tmp_path / "one/noto.json.xz").read_bytes()))
    pixels = {c: emoji_archive.rasterize(d, 10, "white")[1] for c, d in zip(codes, drawings, strict=True)}
    red = {code: (values < 128) for code, values in pixels.items()}
    quarter = np.zeros((10, 10), bool)
    quarter[:5, :5] = True
    assert (red["1f600"] == quarter).all()
    assert (red["1f697"] == quarter[:, ::-1]).all(), "hFlip"
    assert (red["1f44b-1f3fb"] == quarter[::-1, ::-1]).all(), "an alias of an alias: hFlip, then vFlip"
    assert not red["1f44b"].any(), "left and top of the view box"


def test_a_drawing_that_is_not_square_is_centered() -> None:
    body = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 36 18"><rect width="36" height="18" fill="red"/></svg>'
    red = emoji_archive.rasterize(body, 16, "#ffffff")[1] < 128
    assert red[4:12].all()
    assert not red[:4].any()
    assert not red[12:].any()


def test_a_damaged_archive_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = Path(shutil.copytree(emoji_archive.DATA, tmp_path / "emoji"))
    data = bytearray((copy / "noto.json.xz").read_bytes())
    data[1000] ^= 1
    (copy / "noto.json.xz").write_bytes(data)
    monkeypatch.setattr(emoji_archive, "DATA", copy)
    with pytest.raises(ValueError, match=r"noto\.json\.xz is damaged .*: install the package again$"):
        emoji_archive.read("noto.json.xz")


# Items ---------------------------------------------------------------------------------------------------------------


def test_a_batch(module: Emoji) -> None:
    batch = next(iter(module.train_dataloader()))
    assert batch["image"].shape == (16, 3, 8, 8)
    assert batch["image"].dtype == torch.float32
    assert batch["image"].min() >= -1
    assert batch["image"].max() == 1, "white background"
    for name in ("label", "vendor", "category", "skin_tone", "gender"):
        assert batch[name].dtype == torch.int64
        assert batch[name].max() < len(module.class_names[name])
    for i, number in enumerate(batch["emoji"].tolist()):
        row = TABLE[number]
        assert row["split"] == "train"
        assert (batch["caption"][i], batch["code"][i]) == (row["caption"], row["code"])
        for name in ("category", "skin_tone", "gender"):
            assert module.class_names[name][batch[name][i]] == row[name]
    assert torch.equal(batch["label"], batch["category"])


def test_splits_and_pairs(module: Emoji) -> None:
    assert [len(module.split(name)) for name in ("train", "val", "test")] == [2 * 2511, 2 * 314, 2 * 314]
    assert module.num_train == 2 * 2511
    split = module.split("test")
    one = split.batch(torch.tensor([3, 400]))
    for vendor in range(2):
        other = split.batch(one["pairs"][:, vendor])
        assert other["vendor"].tolist() == [vendor, vendor]
        assert other["code"] == one["code"]
    assert one["pairs"][0, 0] == 3, "its own place"
    assert one["pairs"][1, 1] == 400


def test_names_tell_what_the_images_are(cache: Path) -> None:
    assert Emoji().name == "emoji32"
    assert Emoji(vendors=["fluent", "openmoji", "noto", "twemoji"]).name == "emoji32"
    assert Emoji(image_size=64, vendors=["noto"]).name == "emoji64-noto"
    assert Emoji(background="black").name == "emoji32-on-000000"
    assert Emoji(holdout="combinations").name == "emoji32-holdout"


def test_held_out_combinations_are_in_no_other_split(cache: Path) -> None:
    held = Emoji(cache_dir=cache, image_size=8, vendors=["fluent"], holdout="combinations", label="gender")
    kept = held.split("combinations")
    found = kept.batch(torch.arange(len(kept)))
    tones, genders = held.class_names["skin_tone"], held.class_names["gender"]

    def combination(i: int) -> tuple[str, str, str]:
        return TABLE[i]["base"], TABLE[i]["skin_tone"], TABLE[i]["gender"]

    train = held.split("train")
    seen = {combination(i) for i in train.batch(torch.arange(len(train)))["emoji"].tolist()}
    out = [combination(i) for i in found["emoji"].tolist()]
    assert len(out) + len(train) == 2511
    assert not seen & set(out)
    for base, tone, gender in out:
        assert (tone, gender) not in {("none", "none")}
        assert any(b == base and t == tone for b, t, _ in seen), "the tone is seen with that profession"
        assert any(b == base and g == gender for b, _, g in seen), "and so is the gender"
    assert {(t, g) for _, t, g in out} == {(t, g) for t in tones[1:] for g in genders[1:]}, "no pairing is left out"
    assert torch.equal(found["label"], found["gender"])


# Rendering -----------------------------------------------------------------------------------------------------------


def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three emoji in place of 3,139."""
    monkeypatch.setattr(emoji_archive, "emoji_table", lambda: TABLE[:3])


def test_background_and_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few(monkeypatch)
    for size, background, corner in ((8, "white", 255), (24, "black", 0)):
        module = Emoji(cache_dir=tmp_path, image_size=size, background=background, vendors=["openmoji"])
        pixels = np.load(module._rendered("openmoji"))
        assert pixels.shape == (3, 3, size, size)
        assert pixels.dtype == np.uint8
        assert (abs(pixels[:, :, 0, 0].astype(int) - corner) < 4).all()
        assert pixels.std() > 10
    names = sorted(path.name for path in (tmp_path / "emoji").glob("*.npy"))
    assert [name.split("-resvg")[0] for name in names] == ["openmoji-24-000000", "openmoji-8-ffffff"]


def test_fitted_drawings_fill_the_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On their longer side, up to 1/32 of it at either end, wherever and however large the vendor draws them."""
    rectangle = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="10 20 40 40"><rect {} fill="red"/></svg>'
    for place in ('x="12" y="22" width="30" height="15"', 'x="30" y="40" width="4" height="2"'):
        red = emoji_archive.rasterize(rectangle.format(place), 64, "white", fit_to_frame=True)[1] < 128
        rows, columns = red.any(1).nonzero()[0], red.any(0).nonzero()[0]
        assert columns[0] == 2
        assert columns[-1] in (60, 61)
        assert abs(len(rows) - 30) <= 1
        assert abs(rows[0] + rows[-1] - 63) <= 1, "in the middle"
    nothing = rectangle.format('width="0"')
    assert emoji_archive.fitted(nothing) == nothing
    few(monkeypatch)
    margins = {}
    for fit in (False, True):
        module = Emoji(cache_dir=tmp_path, image_size=32, vendors=["openmoji"], fit_to_frame=fit)
        drawn = (np.load(module._rendered("openmoji")) < 128).any((0, 1))
        margins[module.name] = int(drawn.any(0).argmax())
    assert margins == {"emoji32-openmoji": 5, "emoji32-openmoji-fit": 1}


def test_files_in_the_users_folder_are_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few(monkeypatch)
    for name in ("resvg_py", "json", "files"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the file of the user')")
    monkeypatch.chdir(tmp_path)
    assert Emoji(cache_dir=tmp_path, image_size=8, vendors=["fluent"])._rendered("fluent").is_file()


@pytest.mark.slow
def test_a_killed_renderer_leaves_no_half_file(tmp_path: Path) -> None:
    """That processes which start at once render once is tested with the files."""
    options = {"cache_dir": str(tmp_path), "image_size": 32, "vendors": ["fluent"]}
    code = f"from zoo.datamodules import Emoji; Emoji(**{options}).prepare_data()"
    environment = os.environ | {"PYTHONPATH": str(Path(zoo.__file__).parents[1])}
    process = subprocess.Popen([sys.executable, "-c", code], env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(tmp_path.rglob(".*.tmp")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert list(tmp_path.rglob("*.tmp")), "killed too late to show anything"
    assert not list(tmp_path.rglob("*.npy"))
    module = Emoji(**options)
    pixels = np.load(module._rendered("fluent"))
    for i in (0, 1500, 3138):
        assert np.array_equal(pixels[i], emoji_archive.rasterize(module.svg("fluent")[i], 32, "white"))
    assert not list(tmp_path.rglob("*.tmp"))


# Bad input -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vendors": ["notto"]}, r"^unknown vendor 'notto': did you mean 'noto'\?$"),
        ({"vendors": []}, r"^vendors must name at least one vendor, each once; got \[\]$"),
        ({"vendors": ["noto", "noto"]}, r"^vendors must name at least one vendor, each once"),
        ({"label": "categry"}, r"^unknown label 'categry': did you mean 'category'\?$"),
        ({"holdout": "tones"}, r"^unknown holdout 'tones': take 'combinations' or none$"),
        ({"background": "whit"}, r"^unknown background 'whit': take a CSS color"),
        ({"background": "#00000080"}, r"^background '#00000080' is transparent"),
        ({"image_size": 2000}, r"^image_size must lie in 8\.\.1024, not 2000$"),
        ({"data_dir": "data"}, r"^Emoji ships with the package and takes no data_dir"),
    ],
)
def test_one_line_for_each_mistake(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Emoji(**options)


def test_a_full_disk_is_noticed_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(100, 100, 100))
    with pytest.raises(OSError, match=r"No space left .*set cache_dir") as caught:
        Emoji(cache_dir=tmp_path, image_size=8, vendors=["noto"]).prepare_data()
    assert caught.value.errno == errno.ENOSPC
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.rglob("*.npy")) + list(tmp_path.rglob("*.tmp"))


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"cannot write .*file.*set cache_dir"):
        Emoji(cache_dir=tmp_path / "file", image_size=8, vendors=["noto"]).prepare_data()


def test_a_renderer_that_fails_is_named_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few(monkeypatch)
    module = Emoji(cache_dir=tmp_path, image_size=8, vendors=["noto"])
    module.background = "no colour"
    with pytest.raises(RuntimeError, match=r"^cannot render emoji 0023-20e3 of noto: .*background.*$") as caught:
        module.prepare_data()
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.rglob("*.npy")) + list(tmp_path.rglob("*.tmp"))
