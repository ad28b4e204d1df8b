"""Every shipped recipe parses as it is and trains for one shrunk batch on files of the data set's layout."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from tests.cli.parts import command
from zoo import recipes


def write_idx(path: Path, values: np.ndarray[Any, Any]) -> None:
    header = bytes([0, 0, 8, values.ndim]) + b"".join(n.to_bytes(4, "big") for n in values.shape)
    path.write_bytes(gzip.compress(header + values.tobytes()))


def fashion_mnist(folder: Path) -> None:
    raw = folder / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for part, count in (("train", 30), ("t10k", 6)):
        write_idx(raw / f"{part}-images-idx3-ubyte.gz", np.zeros((count, 28, 28), np.uint8))
        write_idx(raw / f"{part}-labels-idx1-ubyte.gz", np.zeros(count, np.uint8))


def celeba(folder: Path) -> None:
    home = folder / "celeba"
    (home / "img_align_celeba").mkdir(parents=True)
    names = [f"{i + 1:06}.jpg" for i in range(12)]
    for name in names:
        Image.new("RGB", (178, 218), "grey").save(home / "img_align_celeba" / name)
    heads = " ".join(f"Attribute_{k}" for k in range(40))
    rows = [f"{name} " + " ".join(["-1"] * 40) for name in names]
    (home / "list_attr_celeba.txt").write_text("\n".join(["12", heads, *rows]) + "\n")
    parts = [f"{name} {0 if i < 8 else 1 if i < 10 else 2}" for i, name in enumerate(names)]
    (home / "list_eval_partition.txt").write_text("\n".join(parts) + "\n")


@pytest.mark.slow
@pytest.mark.parametrize("recipe", recipes.list_recipes())
def test_recipe_trains_for_a_batch(recipe: str, tmp_path: Path) -> None:
    config = yaml.safe_load(recipes.find(recipe).read_text())
    shrunk: list[object] = ["--trainer.max_steps", 1, "--data.batch_size", 4, "--data.num_workers", 0]
    data = config["data"]["class_path"].rpartition(".")[2]
    if data in ("FashionMNIST", "CelebA"):
        {"FashionMNIST": fashion_mnist, "CelebA": celeba}[data](tmp_path / "data")
        shrunk += ["--data.data_dir", tmp_path / "data", "--data.verify", "false"]
    shrunk += ["--data.cache_dir", tmp_path / "cache", "--trainer.callbacks", "null"]
    assert command("fit", "--config", recipe, *shrunk) == 0
    assert (tmp_path / "runs" / recipe / "checkpoints" / "last.ckpt").exists()


@pytest.mark.parametrize("recipe", recipes.list_recipes())
def test_recipe_is_flat_and_says_only_what_differs(recipe: str) -> None:
    text = recipes.find(recipe).read_text()
    config = yaml.safe_load(text)
    assert set(config) == {"seed_everything", "model", "data", "trainer"}
    assert "${" not in text
    name = config["model"]["class_path"].rpartition(".")[2].lower()
    data = config["data"]["class_path"].rpartition(".")[2].lower()
    size = config["model"]["init_args"]["image_size"]
    assert recipe.startswith(f"{name}-{data}{size}-")
    assert config["data"]["init_args"]["image_size"] == size
