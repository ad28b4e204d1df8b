"""DataModules print what they are without reading or rendering anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from zoo import datamodules
from zoo.datamodules.base import ImageDataModule


def made(name: str, folder: Path) -> Any:
    kind = getattr(datamodules, name)
    options: dict[str, Any] = {}
    if name == "Patches":
        return kind(source=datamodules.Shapes(cache_dir=folder))
    if name in ("MNIST", "FashionMNIST", "CIFAR10", "CelebA", "ImageFolder", "Unpaired"):
        options |= {"data_dir": folder}
    return kind(cache_dir=folder, **options)


@pytest.mark.parametrize(
    "name",
    [
        n
        for n in datamodules.__all__
        if isinstance(kind := getattr(datamodules, n), type) and issubclass(kind, ImageDataModule)
    ],
)
def test_nothing_is_read(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = made(name, tmp_path)
    for method in ("open", "prepare_data", "split", "train_dataloader"):
        monkeypatch.setattr(data, method, lambda *_: pytest.fail("it was opened"))
    for text in (repr(data), str(data)):
        assert text.startswith(f"{name}({data.name}: images ")
        assert "splits not opened yet" in text
        assert f"license: {data.license}" in text
    assert not [*tmp_path.iterdir()]


def test_an_open_one_tells_its_splits(tmp_path: Path) -> None:
    data = datamodules.Shapes(cache_dir=tmp_path, image_size=16)
    data.split("train")
    assert "train 3" in repr(data) or "train 2" in repr(data)
