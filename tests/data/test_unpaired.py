"""Two domains without pairs: sources, orders, augmentation, ranks and resume."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.ranks import on_ranks
from zoo.datamodules import Emoji, Unpaired
from zoo.datamodules.base import ImageSet
from zoo.datamodules.base.draws import cropped, cropped_and_mirrored
from zoo.datamodules.base.image_set import Batch
from zoo.datamodules.base.pictures import square
from zoo.datamodules.unpaired import Pairs


def save(path: Path, value: int, size: tuple[int, int] = (12, 12)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, 0, 0)).save(path)


def values(images: Tensor) -> list[int]:
    return ((images[:, 0, 0, 0] + 1) * 127.5).round().long().tolist()  # type: ignore[no-any-return]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """13 and 7 training images, 3 and 4 test images; all values tell the image."""
    folder = tmp_path / "horse2zebra"
    for name, first, count in (("trainA", 0, 13), ("trainB", 100, 7), ("testA", 50, 3), ("testB", 150, 4)):
        for i in range(count):
            save(folder / name / f"{i:02}.png", first + i)
    return folder


def options(tmp_path: Path, **more: Any) -> dict[str, Any]:
    return {"cache_dir": tmp_path / "cache", "image_size": 8, "batch_size": 2, "val_share": 0.0, **more}


def stream(module: Unpaired, count: int, size: int = 2, start: int = 0) -> list[Batch]:
    batches = module.stream()
    return [batches[range(k, k + size)] for k in range(start, start + count, size)]


def seen(batches: list[Batch], domain: str) -> list[int]:
    return [value for batch in batches for value in values(batch[f"image_{domain}"])]


# Sources --------------------------------------------------------------------------------------------------------------


def test_a_tree_of_two_domains(tree: Path, tmp_path: Path) -> None:
    module = Unpaired(tree, **options(tmp_path))
    assert module.name == "horse2zebra8"
    assert module.load_size == 9
    assert module.num_train == 13
    batch = next(iter(module.train_dataloader()))
    assert {name: tuple(x.shape) for name, x in batch.items()} == {"image_a": (2, 3, 8, 8), "image_b": (2, 3, 8, 8)}
    assert len(module.train_dataloader()) == 6
    tested = list(module.test_dataloader())
    assert seen(tested, "a") == [50, 51, 52]
    assert seen(tested, "b") == [150, 151, 152], "none twice"
    assert len(module.split("val")) == 0
    assert len(Unpaired(tree, **options(tmp_path, val_share=0.2)).split("val")) == 1


def test_gray_pictures(tree: Path, tmp_path: Path) -> None:
    module = Unpaired(tree, **options(tmp_path, image_channels=1))
    assert module.name == "horse2zebra8-grey"
    assert next(iter(module.train_dataloader()))["image_b"].shape == (2, 1, 8, 8)


def test_two_folders(tree: Path, tmp_path: Path) -> None:
    module = Unpaired(tree / "trainA", tree / "trainB", **options(tmp_path, val_share=0.1, test_share=0.3))
    assert module.name == "trainA2trainB8"
    assert module.class_names == {"domain": ["trainA", "trainB"]}
    assert module.num_train == 13 - 1 - 4
    assert set(seen(stream(module, 40), "a")) <= set(range(13))
    assert set(seen(stream(module, 40), "b")) <= set(range(100, 107))


def test_halves_of_pictures_are_unpaired_in_training_and_pairs_in_evaluation(tmp_path: Path) -> None:
    for split, count in (("train", 10), ("val", 3), ("test", 4)):
        for i in range(count):
            picture = Image.new("RGB", (24, 12), (i, 0, 0))
            picture.paste((100 + i, 0, 0), (12, 0, 24, 12))
            path = tmp_path / "facades" / split / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.save(path)
    module = Unpaired(tmp_path / "facades", side_by_side=True, **options(tmp_path))
    assert module.name == "facades8"
    for split, count in (("val", 3), ("test", 4)):
        tested = list(module.evaluation_loader(split))
        assert seen(tested, "a") == list(range(count))
        assert seen(tested, "b") == list(range(100, 100 + count))
    batches = stream(module, 10)
    a, b = seen(batches, "a"), seen(batches, "b")
    assert sorted(a) == list(range(10))
    assert sorted(b) == list(range(100, 110))
    assert [x - 100 for x in b] != a


def test_a_half_of_a_picture(tmp_path: Path) -> None:
    picture = Image.new("RGB", (30, 10), (255, 0, 0))
    picture.paste((0, 0, 255), (15, 0, 30, 10))
    picture.save(tmp_path / "x.png")
    assert (square(tmp_path / "x.png", 8, half=0)[0] == 255).all()
    assert (square(tmp_path / "x.png", 8, half=1)[2] == 255).all()


def test_emoji_of_two_vendors(cache: Path) -> None:
    module = Unpaired(cache_dir=cache, image_size=8, load_size=8, batch_size=4)
    assert module.name == "openmoji2noto8"
    assert module.license == "Apache-2.0 AND CC-BY-SA-4.0"
    emoji = Emoji(cache_dir=cache, image_size=8, vendors=["openmoji", "noto"])
    for split in ("train", "val", "test"):
        both = emoji.split(split)
        n = len(both) // 2
        assert len(module.split(split)) == n
        index = torch.arange(n)[::37]
        batch = module.split(split).batch(index)
        assert torch.equal(batch["image_a"], both.batch(index)["image"])
        assert torch.equal(batch["image_b"], both.batch(n + index)["image"]), "true pairs"
    # In training they are not.
    batches = stream(Unpaired(cache_dir=cache, image_size=8, load_size=8, flip=False), 400, 40)
    train = emoji.split("train")
    known = train.batch(torch.arange(len(train)))["image"].flatten(1)
    n = len(known) // 2
    a, b = (torch.cat([batch[f"image_{domain}"] for batch in batches]).flatten(1) for domain in ("a", "b"))
    partners = [torch.equal(x, y) for x, y in zip(b, known[n:][torch.cdist(a, known[:n]).argmin(1)], strict=True)]
    assert sum(partners) < 10


def test_emoji_are_fitted_to_the_frame_if_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def render(self: Emoji, vendor: str, out: np.ndarray[Any, Any]) -> None:
        out[:] = 200 if self.fit_to_frame else 100

    monkeypatch.setattr(Emoji, "_render", render)
    for fit, value, name in ((False, 100, "openmoji2noto8"), (True, 200, "openmoji2noto8-fit")):
        module = Unpaired(cache_dir=tmp_path, image_size=8, fit_to_frame=fit)
        assert module.name == name
        assert {*seen(stream(module, 4), "a"), *seen(stream(module, 4), "b")} == {value}


# Orders ---------------------------------------------------------------------------------------------------------------


def test_each_domain_has_its_own_order_and_each_image_comes_once_per_round(tree: Path, tmp_path: Path) -> None:
    module = Unpaired(tree, **options(tmp_path, seed=1))
    batches = stream(module, 7 * 13 * 2, 13)
    a, b = seen(batches, "a"), seen(batches, "b")
    for start in range(0, len(a), 13):
        assert sorted(a[start : start + 13]) == list(range(13))
    for start in range(0, len(b), 7):
        assert sorted(b[start : start + 7]) == list(range(100, 107))
    assert len(set(zip(a, b, strict=True))) > 50, "another partner each time"
    assert seen(stream(Unpaired(tree, **options(tmp_path, seed=1)), 26), "b") == b[:26]
    assert seen(stream(Unpaired(tree, **options(tmp_path, seed=2)), 26), "b") != b[:26]


def test_the_stream_does_not_depend_on_how_it_is_cut(tree: Path, tmp_path: Path) -> None:
    for i in range(13):  # pictures of which one sees where they were cut
        noise = np.random.default_rng(i).integers(0, 256, (12, 12, 3), np.uint8)
        Image.fromarray(noise).save(tree / "trainA" / f"{i:02}.png")
    module = Unpaired(tree, **options(tmp_path, load_size=12))
    whole, parts = stream(module, 30, 30)[0], stream(module, 30, 5)
    for name in ("image_a", "image_b"):
        assert torch.equal(whole[name], torch.cat([batch[name] for batch in parts]))
    assert torch.equal(pickle.loads(pickle.dumps(module.stream()))[range(3, 9)]["image_a"], whole["image_a"][3:9])
    assert whole["image_a"].flatten(1).unique(dim=0).size(0) > 20, "augmented anew in each round"


class Recorder(L.LightningModule):
    """Notes which images it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: list[tuple[list[int], list[int]]] = []

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        self.seen.append((values(batch["image_a"]), values(batch["image_b"])))
        loss: Tensor = self.weight * batch["image_a"].mean()
        return loss

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.1)


class Few(Unpaired):
    """Image i of the domains is filled with the value i, or with 100 + i; 13 and 7 of them."""

    def prepare_data(self) -> None:
        pass

    def open(self) -> dict[str, ImageSet]:
        def filled(first: int, count: int) -> ImageSet:
            numbers = np.arange(first, first + count, dtype=np.uint8)
            return ImageSet([numbers[:, None, None, None] * np.ones((1, 3, 8, 8), np.uint8)])

        return {"train": Pairs(filled(0, 13), filled(100, 7)), "test": Pairs(filled(50, 3), filled(150, 4))}


def fitted(steps: int, path: Path | None = None, batch_size: int = 2, **more: Any) -> list[tuple[list[int], list[int]]]:
    quiet = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing"), False)
    run = L.Trainer(**{**quiet, "accelerator": "cpu", "max_steps": steps, "use_distributed_sampler": False, **more})
    model = Recorder()
    module = Few(image_size=8, batch_size=batch_size, num_workers=0)
    run.fit(model, module, ckpt_path=path)
    run.save_checkpoint(Path(more.get("default_root_dir", "."), f"{steps}.ckpt"))
    return model.seen


def test_a_resumed_run_goes_on_at_the_next_images(tmp_path: Path) -> None:
    straight = fitted(11, default_root_dir=tmp_path)
    assert fitted(4, default_root_dir=tmp_path) == straight[:4]
    assert fitted(11, tmp_path / "4.ckpt", default_root_dir=tmp_path) == straight[4:]


def on_rank(folder: str) -> list[tuple[list[int], list[int]]]:
    return fitted(5, batch_size=2, strategy="ddp", devices=2, default_root_dir=folder)


@pytest.mark.slow
def test_ranks_share_what_one_process_sees(tmp_path: Path) -> None:
    one = fitted(5, batch_size=4, default_root_dir=tmp_path)
    ranks = on_ranks(2, on_rank, str(tmp_path))
    assert [tuple(x + y for x, y in zip(*steps, strict=True)) for steps in zip(*ranks, strict=True)] == one


# Augmentation ---------------------------------------------------------------------------------------------------------


def test_crops_are_squares_of_the_image_drawn_for_each() -> None:
    x = torch.arange(12 * 12.0).view(1, 1, 12, 12).expand(300, 3, 12, 12)
    index = torch.arange(300)
    y = cropped(x, 0, 0, index, size=8)
    corners = y[:, 0, 0, 0].long()
    assert set((corners // 12).tolist()) == set((corners % 12).tolist()) == set(range(5))
    assert torch.equal(y[7, 1], x[7, 1][corners[7] // 12 :, corners[7] % 12 :][:8, :8])
    assert torch.equal(cropped(x[5:9], 0, 0, index[5:9], size=8), y[5:9])
    assert not torch.equal(cropped(x, 0, 1, index, size=8), y)
    assert not torch.equal(cropped(x, 1, 0, index, size=8), y)


def test_augmentation_mirrors_half() -> None:
    x = torch.arange(8.0).expand(400, 3, 8, 8)
    y = cropped_and_mirrored(x, 0, 0, torch.arange(400), size=8, flip=True)
    assert (y[:, 0, 0, 0] == 7).float().mean().item() == pytest.approx(0.5, abs=0.1)
    assert torch.equal(cropped_and_mirrored(x, 0, 0, torch.arange(400), size=8, flip=False), x)


def test_training_is_augmented_and_references_are_not(tree: Path, tmp_path: Path) -> None:
    ramp = np.tile(np.arange(0, 240, 20, dtype=np.uint8)[None, :, None], (12, 1, 3))
    for i in range(13):
        Image.fromarray(ramp).save(tree / "trainA" / f"{i:02}.png")
    module = Unpaired(tree, **options(tmp_path, load_size=12))
    drawn = torch.cat([batch["image_a"] for batch in stream(module, 40)])
    assert len(set(values(drawn))) > 5
    (_, batch), *_ = module.reference_batches(5, 5)
    assert len(set(values(batch["image_a"]))) == 1
    assert batch["image_a"].shape == (5, 3, 8, 8)


# Bad options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"vendor_a": "appel"}, "unknown vendor 'appel'"),
        ({"vendor_b": "openmoji"}, "vendor_a and vendor_b must differ, both are 'openmoji'"),
        ({"data_dir": "x", "fit_to_frame": True}, "fit_to_frame is for emoji"),
        ({"side_by_side": True}, "side_by_side needs a data_dir"),
        ({"data_dir_b": "x"}, "data_dir_b needs a data_dir"),
        ({"data_dir": "x", "data_dir_b": "y", "side_by_side": True}, "leave data_dir_b out"),
        ({"image_channels": 1}, "emoji have 3 channels: leave image_channels 1 out, or give a data_dir"),
        ({"load_size": 100}, "load_size must be at least image_size 256, not 100"),
    ],
)
def test_bad_options(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Unpaired(**given)


def test_a_folder_without_domains(tmp_path: Path) -> None:
    save(tmp_path / "x" / "0.png", 3)
    with pytest.raises(FileNotFoundError, match=r"no folder .*trainA: data_dir must hold trainA and trainB; or give"):
        Unpaired(tmp_path / "x", **options(tmp_path)).split("train")


def test_both_directions_are_asked_for(tree: Path, tmp_path: Path, cache: Path) -> None:
    emoji = Unpaired(cache_dir=cache, image_size=8, load_size=8)
    assert emoji.domain_names == ["openmoji", "noto"]
    first, second = emoji.translation_batches(5, 5)
    assert (first.source, first.target, first.domain) == ("a", "b", 1)
    assert (second.source, second.target, second.domain) == ("b", "a", 0)
    assert first.origin.tolist() == [0] * 5
    assert first.paired.all()
    assert torch.equal(first.true, second.image)
    assert torch.equal(second.true, first.image)
    folders = Unpaired(tree, cache_dir=tmp_path / "cache", image_size=8)
    for task in folders.translation_batches(1, 1):
        assert not task.paired.any(), "images of folders have nothing to do with each other"
        assert len(task.true) == 0
