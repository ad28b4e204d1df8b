"""Images with attributes: emoji and their true pairs, CelebA, folders with a table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from zoo.datamodules import Attributes
from zoo.datamodules.base import ImageSet
from zoo.datamodules.celeba import CelebA


@pytest.fixture(scope="module")
def vendors(cache: Path) -> Attributes:
    return Attributes(cache_dir=cache, image_size=8, vendors=["twemoji", "fluent"], batch_size=16, seed=0)


@pytest.fixture(scope="module")
def tones(cache: Path) -> Attributes:
    names = ["vendor", "skin_tone"]
    return Attributes(cache_dir=cache, image_size=8, vendors=["twemoji", "fluent"], attributes=names, flip=False)


def everything(module: Attributes, split: str) -> dict[str, torch.Tensor]:
    images = module.split(split)
    return images.batch(torch.arange(len(images)))


# Emoji ---------------------------------------------------------------------------------------------------------------


def test_vendor_is_one_hot(vendors: Attributes) -> None:
    batch = everything(vendors, "test")
    assert vendors.class_names["attributes"] == ["twemoji", "fluent"]
    assert batch["attributes"].dtype == torch.float32
    assert torch.equal(batch["attributes"].argmax(1), batch["vendor"])
    assert torch.equal(batch["attributes"].sum(1), torch.ones(len(batch["image"])))
    assert torch.equal(batch["label"], batch["vendor"])
    assert vendors.class_names["label"] == ["twemoji", "fluent"]


def test_pairs_are_the_same_emoji_in_each_domain(vendors: Attributes) -> None:
    batch = everything(vendors, "test")
    assert vendors.domain_names == ["twemoji", "fluent"]
    assert vendors.domains is not None
    for d in range(2):
        partners = vendors.split("test").batch(batch["pairs"][:, d])
        assert torch.equal(partners["emoji"], batch["emoji"])
        assert torch.equal(partners["attributes"], vendors.domains[d].expand(len(batch["image"]), -1))
    own = batch["pairs"].gather(1, batch["vendor"][:, None]).flatten()
    assert torch.equal(own, torch.arange(len(own)))


def test_no_emoji_of_the_test_split_is_trained_on(vendors: Attributes) -> None:
    splits = [set(everything(vendors, split)["emoji"].tolist()) for split in ("train", "val", "test")]
    assert splits[0].isdisjoint(splits[1] | splits[2])
    assert splits[1].isdisjoint(splits[2])


def test_vendor_and_skin_tone(tones: Attributes) -> None:
    assert tones.class_names["attributes"] == [
        *("twemoji", "fluent", "no_skin_tone"),
        *("light", "medium-light", "medium", "medium-dark", "dark"),
    ]
    assert tones.name == "emoji8-twemoji+fluent-vendor+skin_tone"
    assert len(tones.domain_names) == 12
    assert tones.domain_names[7] == "fluent light"
    assert tones.domains is not None
    assert tones.domains[7].nonzero().flatten().tolist() == [1, 3]
    batch = everything(tones, "test")
    assert torch.equal(batch["attributes"][:, 2:].argmax(1), batch["skin_tone"])
    counted = 0
    for d in range(12):
        there = batch["pairs"][:, d] >= 0
        counted += int(there.sum())
        partners = tones.split("test").batch(batch["pairs"][there, d])
        assert torch.equal(partners["attributes"], tones.domains[d].expand(int(there.sum()), -1))
        mine = [c for c, t in zip(batch["caption"], there.tolist(), strict=True) if t]
        assert [c.split(":")[0] for c in partners["caption"]] == [c.split(":")[0] for c in mine]
    assert counted > 0.95 * batch["pairs"].numel()
    assert not any("cat face" in caption for caption in batch["caption"]), "only what is drawn in several tones"


def test_skin_tone_alone_has_partners_of_the_own_vendor(cache: Path) -> None:
    module = Attributes(cache_dir=cache, image_size=8, vendors=["twemoji", "fluent"], attributes=["skin_tone"])
    batch = everything(module, "test")
    assert module.domain_names[0] == "no_skin_tone"
    partners = module.split("test").batch(batch["pairs"][:, 5].clamp(min=0))
    there = batch["pairs"][:, 5] >= 0
    assert torch.equal(partners["vendor"][there], batch["vendor"][there])
    assert set(partners["skin_tone"][there].tolist()) == {5}
    assert module.class_names["label"] == module.class_names["skin_tone"]


def test_fields_without_pairs(cache: Path) -> None:
    module = Attributes(cache_dir=cache, image_size=8, vendors=["twemoji"], attributes=["gender", "vendor"])
    batch = everything(module, "val")
    assert module.class_names["attributes"] == ["no_gender", "woman", "man", "twemoji"]
    assert module.domains is None
    assert batch["pairs"].shape == (len(batch["image"]), 0)
    assert torch.equal(batch["attributes"][:, :3].argmax(1), batch["gender"])


def test_mirroring_is_of_training_and_a_function_of_seed_epoch_and_image(vendors: Attributes) -> None:
    train = vendors.split("train")
    index = torch.arange(40)
    plain = train.batch(index)["image"]
    first = train.batch(index, augment=True, seed=0, epoch=0)["image"]
    assert torch.equal(first, train.batch(index, augment=True, seed=0, epoch=0)["image"])
    assert torch.equal(first[10:], train.batch(index[10:], augment=True, seed=0, epoch=0)["image"])
    other = train.batch(index, augment=True, seed=0, epoch=1)["image"]
    assert not torch.equal(first, other)
    turned = [torch.equal(a, b.flip(2)) and not torch.equal(a, b) for a, b in zip(first, plain, strict=True)]
    same = [torch.equal(a, b) for a, b in zip(first, plain, strict=True)]
    assert all(a or b for a, b in zip(turned, same, strict=True))
    assert 5 < sum(turned) < 35
    assert vendors.split("test").augment is None
    batch = next(iter(vendors.train_dataloader()))
    assert {"image", "attributes", "label", "pairs"} <= batch.keys()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source": "emojis"}, "unknown source 'emojis': did you mean 'emoji'"),
        ({"attributes": ["vendors"]}, "no field 'vendors': did you mean 'vendor'"),
        ({"attributes": []}, "at least one"),
        ({"table": "labels.csv"}, "table is for source='folder'; the source is 'emoji'"),
        ({"source": "celeba", "vendors": ["noto"]}, "vendors is for source='emoji'"),
        ({"source": "celeba", "fit_to_frame": True}, "fit_to_frame is for source='emoji'"),
        ({"source": "folder"}, "needs data_dir"),
    ],
)
def test_bad_arguments_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Attributes(**options)  # type: ignore[arg-type]


# CelebA --------------------------------------------------------------------------------------------------------------


def test_five_attributes_of_celeba(monkeypatch: pytest.MonkeyPatch) -> None:
    heads = ["Bald", "Young", "Male", "Brown_Hair", "Blond_Hair", "Black_Hair"]
    values = (torch.arange(24).view(4, 6) % 3 == 0).float()

    def open_(self: CelebA) -> dict[str, ImageSet]:
        self.class_names = {"attributes": heads}
        return {s: ImageSet([np.zeros((4, 3, 8, 8), np.uint8)], {"attributes": values}) for s in ("train", "test")}

    monkeypatch.setattr(CelebA, "open", open_)
    monkeypatch.setattr(CelebA, "prepare_data", lambda self: None)
    module = Attributes(source="celeba", image_size=8)
    assert module.class_names["attributes"] == ["Black_Hair", "Blond_Hair", "Brown_Hair", "Male", "Young"]
    assert torch.equal(everything(module, "test")["attributes"], values[:, [5, 4, 3, 2, 1]])
    assert module.name == "celeba8"
    with pytest.raises(ValueError, match="CelebA has no attribute 'Mail': did you mean 'Male'"):
        Attributes(source="celeba", image_size=8, attributes=["Mail"]).split("test")


# Folders -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """20 grey pictures in two folders."""
    for i in range(20):
        place = tmp_path / "faces" / ("a" if i % 2 else "b")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), 10 * i, np.uint8)).save(place / f"{i:02}.png")
    return tmp_path / "faces"


def table(folder: Path, *, rows: range = range(20), value: str = "") -> Path:
    path = folder / "labels.csv"
    lines = [f"{i:02}.png,{i % 2},{value or (1 if i > 9 else -1)}" for i in rows]
    path.write_text("\n".join(["file,odd,bright", *lines]) + "\n")
    return path


def test_a_folder_with_a_table(folder: Path, cache: Path) -> None:
    module = Attributes(folder, source="folder", table=table(folder), image_size=8, cache_dir=cache)
    batch = everything(module, "train")
    assert module.class_names["attributes"] == ["odd", "bright"]
    number = ((batch["image"][:, 0, 0, 0] + 1) * 12.75).round()
    assert torch.equal(batch["attributes"], torch.stack([number % 2, (number > 9).float()], 1))
    one = Attributes(folder, source="folder", table=table(folder), attributes=["bright"], image_size=8, cache_dir=cache)
    assert torch.equal(everything(one, "train")["attributes"], batch["attributes"][:, 1:])


def test_a_folder_of_classes(folder: Path, cache: Path) -> None:
    module = Attributes(folder, source="folder", image_size=8, cache_dir=cache)
    batch = everything(module, "train")
    assert module.class_names["attributes"] == module.class_names["label"] == ["a", "b"]
    assert torch.equal(batch["attributes"].argmax(1), batch["label"])


def test_bad_tables_are_named(folder: Path, cache: Path) -> None:
    def open_with(path: Path) -> None:
        Attributes(folder, source="folder", table=path, image_size=8, cache_dir=cache).split("train")

    with pytest.raises(FileNotFoundError, match="there is no table"):
        open_with(folder / "other.csv")
    with pytest.raises(ValueError, match=r"no row for a/19\.png \(and 0 more pictures\)"):
        open_with(table(folder, rows=range(19)))
    with pytest.raises(ValueError, match=r"row 2 \(00\.png\) must have 2 values 0 or 1"):
        open_with(table(folder, value="yes"))
    (folder / "labels.csv").write_text("file\n")
    with pytest.raises(ValueError, match="must have a head"):
        open_with(folder / "labels.csv")


def test_each_image_is_asked_for_in_every_other_domain(vendors: Attributes) -> None:
    images = vendors.split("test")
    num = len(images)
    asked = []
    for rank in range(2):
        for task in vendors.translation_batches(num, 100, rank=rank, world_size=2):
            assert (task.origin != task.domain).all()
            assert torch.equal(task.source, vendors.domains[task.origin])
            assert torch.equal(task.target, vendors.domains[task.domain])
            assert task.paired.all(), "each emoji is drawn by all vendors"
            assert task.true.shape == task.image.shape
            asked += [(task.domain, int(origin)) for origin in task.origin]
    assert sorted(asked) == [(0, 1)] * (num // 2) + [(1, 0)] * (num // 2)
    emoji = images.batch(torch.arange(num))
    task = next(vendors.translation_batches(num, num))
    row = (emoji["image"] == task.image[3]).flatten(1).all(1).nonzero()[0, 0]
    assert torch.equal(images.batch(emoji["pairs"][row, task.domain][None])["image"][0], task.true[3])
    with pytest.raises(ValueError, match="has no domains"):
        next(Attributes(attributes=["gender"], image_size=16).translation_batches(1, 1))
