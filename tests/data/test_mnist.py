"""MNIST and Fashion-MNIST from files of their layout."""

from __future__ import annotations

import gzip
import hashlib
import shutil
import struct
import urllib.error
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from zoo.datamodules import MNIST, FashionMNIST
from zoo.datamodules.mnist import read_idx


def idx(array: np.ndarray[Any, Any]) -> bytes:
    return struct.pack(f">BBBB{array.ndim}i", 0, 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def write(folder: Path) -> Path:
    """60 training and 10 test images in `folder`, in four files as published."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for part, n in (("train", 60), ("t10k", 10)):
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(rng.integers(0, 256, (n, 28, 28)))))
        (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(np.arange(n) % 10)))
    return folder


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    raw = write(tmp_path / "data" / "MNIST" / "raw")
    shutil.copytree(raw, tmp_path / "data" / "FashionMNIST" / "raw")
    sums = {p.name: hashlib.md5(gzip.decompress(p.read_bytes())).hexdigest() for p in sorted(raw.iterdir())}
    monkeypatch.setattr(MNIST, "files", sums)
    monkeypatch.setattr(FashionMNIST, "files", sums)
    return tmp_path / "data"


def images(module: MNIST, split: str) -> Tensor:
    return torch.cat([batch["image"] for batch in module.evaluation_loader(split)])


@pytest.mark.parametrize("kind", [MNIST, FashionMNIST])
def test_splits_and_batches(kind: type[MNIST], data: Path) -> None:
    module = kind(data, batch_size=8)
    assert module.num_train == 50
    assert {name: len(split) for name, split in module.splits.items()} == {"train": 50, "val": 10, "test": 10}
    batch = next(iter(module.train_dataloader()))
    assert set(batch) == {"image", "label"}
    assert batch["image"].shape == (8, 1, 28, 28)
    assert batch["label"].dtype == torch.int64
    assert len(module.class_names["label"]) == 10
    assert module.name == f"{kind.__name__.lower()}28"
    pixels = read_idx(data / kind.__name__ / "raw" / "train-images-idx3-ubyte.gz")
    levels = ((images(module, "val") + 1) * 127.5).round().byte()
    assert torch.equal(levels, torch.from_numpy(pixels[50:, None])), "the last ones of the training file"
    assert {p.name for p in (data / kind.__name__ / "raw").iterdir()} == set(kind.files), "nothing is unpacked there"


def test_32_pads_with_black_and_other_sizes_are_resized(data: Path) -> None:
    plain, padded, large = (images(MNIST(data, image_size=size), "test") for size in (28, 32, 56))
    assert torch.equal(padded[:, :, 2:-2, 2:-2], plain)
    assert padded[:, :, :2].eq(-1).all(), "black"
    assert large.shape == (10, 1, 56, 56)
    assert (large.mean() - plain.mean()).abs() < 0.01


def test_dynamic_binarization_is_drawn_anew_per_epoch_and_once_for_evaluation(data: Path) -> None:
    module = MNIST(data, batch_size=50, binarize="dynamic")
    gray = MNIST(data).split("train").batch(torch.arange(50))["image"]
    epochs = [module.split("train").batch(torch.arange(50), seed=1, epoch=e, augment=True)["image"] for e in range(200)]
    for binary in epochs:
        assert set(binary.unique().tolist()) == {-1.0, 1.0}
    assert not torch.equal(epochs[0], epochs[1])
    # The mean over draws is the grey value: 5 standard deviations of a mean of 200 coins, and of all 39,200 pixels.
    error = torch.stack(epochs).mean(0) - gray
    assert error.abs().max() < 2 * 0.5 / 200**0.5 * 5
    assert error.mean().abs() < 2 * 0.5 / (200 * error.numel()) ** 0.5 * 5
    for split in ("val", "test"):
        draws = [
            images(MNIST(data, binarize="dynamic", seed=seed, batch_size=size), split)
            for seed, size in ((0, 4), (7, 10))
        ]
        assert torch.equal(*draws), "neither seed nor batch size matters"
    first = next(iter(module.train_dataloader()))["image"]
    assert torch.equal(first, next(iter(MNIST(data, batch_size=50, binarize="dynamic").train_dataloader()))["image"])
    reference = [
        next(m.reference_batches(10, 10))[1]["image"] for m in (module, MNIST(data, binarize="dynamic", seed=3))
    ]
    assert torch.equal(*reference)
    assert module.name == "mnist28-dynamic"


def test_fixed_binarization_reads_the_published_files(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).integers(0, 2, (6, 784))
    for name, part in (("train", rows[:4]), ("valid", rows[4:5]), ("test", rows[5:])):
        np.savetxt(tmp_path / f"binarized_mnist_{name}.amat", part, fmt="%d")
    module = MNIST(tmp_path, binarize="fixed", batch_size=2)
    assert torch.equal(images(module, "train").flatten(1) > 0, torch.from_numpy(rows[:4] > 0))
    assert set(next(iter(module.train_dataloader()))) == {"image"}
    (tmp_path / "binarized_mnist_test.amat").unlink()
    with pytest.raises(FileNotFoundError, match=r"binarized_mnist_test\.amat is missing: binarize='fixed' reads Laro"):
        MNIST(tmp_path, binarize="fixed").split("train")
    (tmp_path / "binarized_mnist_train.amat").write_text("0 1 0\n1 2 0\n")
    with pytest.raises(ValueError, match=r"binarized_mnist_train\.amat does not hold rows of 784 zeros and ones: "):
        MNIST(tmp_path, binarize="fixed").split("train")


def test_bad_files_are_named(data: Path) -> None:
    path = data / "MNIST" / "raw" / "t10k-images-idx3-ubyte.gz"
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(
        ValueError, match=r"t10k-images-idx3-ubyte\.gz is truncated or no gzip file .*: fetch it again$"
    ):
        MNIST(data).split("train")
    path.write_bytes(gzip.compress(gzip.decompress(whole)[:-1] + b"\0"))
    with pytest.raises(ValueError, match=r"is not the published file .*: fetch it again, or set verify=False$"):
        MNIST(data).split("train")
    assert MNIST(data, verify=False).num_train == 50
    path.write_bytes(gzip.compress(gzip.decompress(whole)[:-5]))
    with pytest.raises(ValueError, match=r"is truncated \(7835 of 7840 values\): fetch it again$"):
        MNIST(data, verify=False).split("train")


def test_a_missing_folder_is_downloaded_or_explained(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision import datasets
    from torchvision.datasets import utils

    def download_url(url: str, root: str, filename: str, md5: str) -> None:
        assert (filename, md5) in datasets.MNIST.resources
        shutil.copy(data / "MNIST" / "raw" / filename, root)

    monkeypatch.setattr(utils, "download_url", download_url)
    assert MNIST(tmp_path / "new").num_train == 50

    def fail(*_: Any) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(utils, "download_url", fail)
    with pytest.raises(FileNotFoundError) as caught:
        MNIST(tmp_path / "typo").split("train")
    raw = tmp_path / "typo" / "MNIST" / "raw"
    assert str(caught.value).startswith(
        f"MNIST is not in {raw} and could not be downloaded (<urlopen error no network>)"
    )
    assert str(caught.value).endswith(f"put {', '.join(MNIST.files)} there, or set data_dir to where the data lie")


def test_mistaken_options(data: Path) -> None:
    with pytest.raises(ValueError, match=r"^unknown binarize 'dynamics': "):
        MNIST(data, binarize="dynamics")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^binarize='fixed' exists for MNIST at 28 pixels only$"):
        FashionMNIST(data, binarize="fixed")
