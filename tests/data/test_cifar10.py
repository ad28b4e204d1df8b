"""CIFAR-10 from files of its layout, in a folder and in the archive."""

from __future__ import annotations

import hashlib
import os
import pickle
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from zoo.datamodules import CIFAR10


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Five training files of 10 images and a test file of 10; the sums are set."""
    folder = tmp_path / "data" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    rng, sums = np.random.default_rng(0), {}
    for k, name in enumerate(CIFAR10.files):
        content = {
            "data": rng.integers(0, 256, (10, 3072), dtype=np.uint8),
            "labels": [k] * 10,
            "filenames": ["x"] * 10,
        }
        data = pickle.dumps(content, protocol=2)
        (folder / name).write_bytes(data)
        sums[name] = hashlib.md5(data).hexdigest()
    monkeypatch.setattr(CIFAR10, "files", sums)
    return tmp_path / "data"


def test_splits_and_batches(data: Path) -> None:
    module = CIFAR10(data, batch_size=7)
    assert module.num_train == 45
    assert {name: len(split) for name, split in module.splits.items()} == {"train": 45, "val": 5, "test": 10}
    batch = next(iter(module.train_dataloader()))
    assert batch["image"].shape == (7, 3, 32, 32)
    assert batch["image"].abs().max() <= 1
    held = next(iter(module.val_dataloader()))
    assert held["label"].tolist() == [4] * 5, "the last ones of the training files"
    first = pickle.loads((data / "cifar-10-batches-py" / "data_batch_1").read_bytes())["data"][3].reshape(3, 32, 32)
    image = module.split("train").batch(torch.tensor([3]))["image"][0]
    assert torch.equal(((image + 1) * 127.5).round().byte(), torch.from_numpy(first))
    assert module.class_names["label"][0] == "airplane"
    assert next(iter(CIFAR10(data, image_size=64, batch_size=7).train_dataloader()))["image"].shape == (7, 3, 64, 64)


@pytest.mark.parametrize(("share", "held"), [(0, 0), (0.1, 5), (0.29, 14), (0.5, 25)])
def test_the_share_of_validation(data: Path, share: float, held: int) -> None:
    module = CIFAR10(data, batch_size=10, val_share=share)
    assert (module.num_train, len(module.split("val")), len(module.split("test"))) == (50 - held, held, 10)
    assert sum(len(batch["image"]) for batch in module.val_dataloader()) == held
    labels = module.split("train").batch(torch.arange(50 - held))["label"]
    assert labels.tolist() == [i // 10 for i in range(50 - held)]


def test_the_archive_is_read_in_place(data: Path) -> None:
    folder = data / "cifar-10-batches-py"
    whole = CIFAR10(data).split("train").batch(torch.arange(45))
    with tarfile.open(data / "cifar-10-python.tar.gz", "w:gz") as archive:
        archive.add(folder, folder.name)
    shutil.rmtree(folder)
    packed = CIFAR10(data).split("train").batch(torch.arange(45))
    assert torch.equal(packed["image"], whole["image"])
    assert [p.name for p in data.iterdir()] == ["cifar-10-python.tar.gz"]
    archive_path = data / "cifar-10-python.tar.gz"
    archive_path.write_bytes(archive_path.read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"cifar-10-python\.tar\.gz is damaged .*: fetch it again$"):
        CIFAR10(data).split("train")


def test_mirroring_is_drawn_per_epoch_and_image(data: Path) -> None:
    plain = CIFAR10(data).split("train").batch(torch.arange(45))["image"]
    split = CIFAR10(data, flip=True).split("train")
    shares = []
    for epoch in range(100):
        image = split.batch(torch.arange(45), seed=1, epoch=epoch, augment=True)["image"]
        turned = (image == plain.flip(3)).flatten(1).all(1)
        assert torch.equal(torch.where(turned[:, None, None, None], plain.flip(3), plain), image)
        shares.append(turned.float())
    drawn = torch.stack(shares)
    assert (drawn.mean(0) - 0.5).abs().max() < 5 * 0.5 / 10, "each image, over 100 epochs"
    assert (drawn.mean() - 0.5).abs() < 5 * 0.5 / 4500**0.5
    assert len({tuple(row) for row in drawn.tolist()}) == 100
    some = torch.tensor([40, 3, 17])
    alone = split.batch(some, seed=1, epoch=9, augment=True)["image"]
    assert torch.equal(alone, split.batch(torch.arange(45), seed=1, epoch=9, augment=True)["image"][some])
    assert torch.equal(split.batch(torch.arange(45))["image"], plain), "not in evaluation"


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_bad_files_are_named_and_run_nothing(data: Path) -> None:
    path = data / "cifar-10-batches-py" / "data_batch_3"
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    with pytest.raises(ValueError, match=r"data_batch_3 is not the published file .*: fetch it again, or set verify"):
        CIFAR10(data).split("train")
    with pytest.raises(ValueError, match=r"data_batch_3 is damaged or no CIFAR-10 file .*: fetch it again$"):
        CIFAR10(data, verify=False).split("train")
    path.write_bytes(pickle.dumps({"data": Bomb(data / "it-ran")}))
    with pytest.raises(ValueError, match=r"it asks for \w+\.mkdir, which no CIFAR file needs"):
        CIFAR10(data, verify=False).split("train")
    assert not (data / "it-ran").exists()
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"data_batch_3 is missing: put data_batch_1, .* there$"):
        CIFAR10(data).split("train")


def test_a_missing_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_OFFLINE", "1")
    with pytest.raises(FileNotFoundError, match=r"^CIFAR10 is not in .*: put cifar-10-python\.tar\.gz there"):
        CIFAR10(tmp_path / "typo").split("train")
