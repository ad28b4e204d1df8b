"""CelebA from files of its layout."""

from __future__ import annotations

import hashlib
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from zoo.datamodules import CelebA


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """12 pictures: 8 for training, 2 for validation, 2 for testing. Picture i is grey 20 i, with a red band on top."""
    folder = tmp_path / "data" / "celeba"
    (folder / "img_align_celeba").mkdir(parents=True)
    names = [f"{i + 1:06}.jpg" for i in range(12)]
    for i, name in enumerate(names):
        pixels = np.full((218, 178, 3), 20 * i, np.uint8)
        pixels[:20] = (255, 0, 0)  # the crop is rows 20 to 197
        Image.fromarray(pixels).save(folder / "img_align_celeba" / name, quality=95, subsampling=0)
    rows = [f"{name} {' '.join('1' if (i + k) % 3 == 0 else '-1' for k in range(40))}" for i, name in enumerate(names)]
    heads = " ".join(f"Attribute_{k}" for k in range(40))
    (folder / "list_attr_celeba.txt").write_text("\n".join(["12", heads, *rows]) + "\n")
    partition = "\n".join(f"{name} {0 if i < 8 else 1 if i < 10 else 2}" for i, name in enumerate(names))
    (folder / "list_eval_partition.txt").write_text(partition + "\n")
    with zipfile.ZipFile(folder / "img_align_celeba.zip", "w") as archive:
        for name in names:
            archive.write(folder / "img_align_celeba" / name, f"img_align_celeba/{name}")
    sums = {name: ("", hashlib.md5((folder / name).read_bytes()).hexdigest()) for name in CelebA.files}
    monkeypatch.setattr(CelebA, "files", sums)
    return tmp_path / "data"


@pytest.mark.parametrize("packed", [False, True])
def test_splits_and_batches(packed: bool, data: Path, tmp_path: Path) -> None:
    folder = data / "celeba"
    if packed:
        shutil.rmtree(folder / "img_align_celeba")
    else:
        (folder / "img_align_celeba.zip").unlink()
    before = sorted(p.name for p in data.rglob("*"))
    module = CelebA(data, cache_dir=tmp_path / "cache", batch_size=4)
    assert module.num_train == 8
    assert {name: len(split) for name, split in module.splits.items()} == {"train": 8, "val": 2, "test": 2}
    batch = next(iter(module.train_dataloader()))
    assert batch["image"].shape == (4, 3, 64, 64)
    assert batch["attributes"].shape == (4, 40)
    assert set(batch["attributes"].unique().tolist()) == {0.0, 1.0}
    test = next(iter(module.test_dataloader()))
    assert test["attributes"][0].tolist() == [float((10 + k) % 3 == 0) for k in range(40)]
    levels = (test["image"] + 1) * 127.5
    assert (levels[0, :, 4:] - 200).abs().max() < 4
    assert (levels[1, :, 4:] - 220).abs().max() < 4
    assert (levels[:, :, 1:].amax(1) - levels[:, :, 1:].amin(1)).max() < 8, "no red: the band is cut off"
    assert len(module.class_names["attributes"]) == 40
    assert sorted(p.name for p in data.rglob("*")) == before, "nothing is written to data_dir"
    assert [p.suffix for p in sorted((tmp_path / "cache" / "celeba").iterdir())] == [".npy", ".lock"]


@pytest.mark.parametrize("crop", [108, 177, 1])
def test_a_smaller_square_is_cut_out_of_the_middle(crop: int, data: Path, tmp_path: Path) -> None:
    rows, columns = np.indices((218, 178))
    pixels = np.stack([rows, columns, (rows + columns) // 2], 2).astype(np.uint8)
    picture = Image.fromarray(pixels)
    picture.save(data / "celeba" / "img_align_celeba" / "000001.jpg", quality=100, subsampling=0)
    found = {}
    for side in (178, crop):
        module = CelebA(data, cache_dir=tmp_path / "cache", image_size=16, crop=side)
        assert module.name == ("celeba16" if side == 178 else f"celeba16-crop{crop}")
        found[side] = module.split("train").images(torch.tensor([0]))[0].numpy().astype(int)
    top, left = 20 + (178 - crop) // 2, (178 - crop) // 2
    for side, (y, x) in {178: (20, 0), crop: (top, left)}.items():
        box = (x, y, x + side, y + side)
        expected = np.asarray(picture.crop(box).resize((16, 16), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
        assert abs(found[side] - expected).max() <= 3, "but for the losses of JPEG"
    assert len(list((tmp_path / "cache" / "celeba").glob("*.npy"))) == 2, "a file for each"


def test_a_square_that_is_not_in_the_picture() -> None:
    with pytest.raises(ValueError, match=r"^crop must lie in 1\.\.178, not 179$"):
        CelebA(crop=179)


def test_pictures_are_decoded_once(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"cache_dir": tmp_path / "cache", "image_size": 16}
    first = CelebA(data, **options).split("train").batch(torch.arange(8))["image"]
    monkeypatch.setattr(CelebA, "_decode", lambda *_: pytest.fail("decoded again"))
    again = CelebA(data, **options).split("train").batch(torch.arange(8))["image"]
    assert torch.equal(first, again)


def test_bad_files_are_named(data: Path, tmp_path: Path) -> None:
    folder, cache = data / "celeba", tmp_path / "cache"
    picture = folder / "img_align_celeba" / "000003.jpg"
    picture.write_bytes(picture.read_bytes()[:400])
    with pytest.raises(ValueError, match=r"img_align_celeba: 000003\.jpg is missing or cannot be read .*fetch it"):
        CelebA(data, cache_dir=cache).split("train")
    assert not list(cache.rglob("*.npy"))

    shutil.rmtree(folder / "img_align_celeba")
    with (folder / "img_align_celeba.zip").open("ab") as file:
        file.write(b"x")
    with pytest.raises(ValueError, match=r"img_align_celeba\.zip is not the published file"):
        CelebA(data, cache_dir=cache).split("train")
    assert CelebA(data, cache_dir=cache, verify=False).num_train == 8

    with (folder / "list_attr_celeba.txt").open("a") as file:
        file.write("000013.jpg 1 1 1\n")
    with pytest.raises(ValueError, match=r"list_attr_celeba\.txt is not the published file"):
        CelebA(data, cache_dir=cache).split("train")
    with pytest.raises(ValueError, match=r"^the lists in .*celeba are damaged or do not fit together"):
        CelebA(data, cache_dir=cache, verify=False).split("train")


def test_a_missing_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_OFFLINE", "1")
    wanted = r"put list_attr_celeba\.txt, list_eval_partition\.txt, img_align_celeba\.zip there"
    with pytest.raises(FileNotFoundError, match=rf"^CelebA is not in .*/typo/celeba .*{wanted}"):
        CelebA(tmp_path / "typo").split("train")
