"""Patches of images: boxes, crops, masks, draws, the other images, ranks and resume."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from torch import Tensor
from torch.nn import functional as F

from tests.numerics import assert_near
from tests.ranks import on_ranks
from zoo.datamodules import Emoji, Patches, Unpaired
from zoo.datamodules.base import ImageDataModule, ImageSet
from zoo.datamodules.base.draws import mirrored
from zoo.datamodules.base.image_set import Batch
from zoo.datamodules.base.patch_set import PatchSet, crops, masks
from zoo.datamodules.patches import EdgeDensity, candidates


class Noise(ImageDataModule):
    """Blurred noise; the first pixel tells the image."""

    def __init__(self, count: int = 13, size: int = 16, flip: bool = False) -> None:
        super().__init__(image_size=size)
        self.count, self.flip = count, flip

    def prepare_data(self) -> None:
        pass

    def open(self) -> dict[str, ImageSet]:
        images = np.random.default_rng(0).integers(0, 256, (self.count, 3, self.image_size, self.image_size), np.uint8)
        images[:, 0, 0, 0] = np.arange(self.count)
        fields: Any = {"label": torch.arange(self.count), "caption": [str(i) for i in range(self.count)]}
        rows = torch.arange(self.count)
        train = ImageSet([images], fields, rows, mirrored if self.flip else None)
        return {"train": train, "val": ImageSet([images], fields, rows[:0]), "test": ImageSet([images], fields, rows)}


def quarters(image: Tensor) -> Tensor:
    """Four boxes: the quarters of an image."""
    half, whole = image.size(1) // 2, image.size(1)
    corners = [(0, 0, half, half), (0, half, half, whole), (half, 0, whole, half), (half, half, whole, whole)]
    return torch.tensor(corners)


def stream(module: Patches, count: int, size: int = 4) -> list[Batch]:
    batches = module.stream()
    return [batches[range(k, k + size)] for k in range(0, count, size)]


def numbers(images: Tensor) -> list[int]:
    return ((images[:, 0, 0, 0] + 1) * 127.5).round().long().tolist()  # type: ignore[no-any-return]


# Boxes ----------------------------------------------------------------------------------------------------------------


def test_boxes_lie_where_the_edges_are() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.ones(2, 3, 64, 64)
    images[0, :, 8:24, 40:56] = torch.rand(3, 16, 16, generator=generator)  # a square of noise on white
    images[1, :, 44:60, 4:20] = torch.rand(3, 16, 16, generator=generator)
    boxes = EdgeDensity(3).batch(images)
    assert boxes.shape == (2, 3, 4)
    assert boxes.dtype == torch.int64
    for (top, left, bottom, right), best in zip(((8, 40, 24, 56), (44, 4, 60, 20)), boxes[:, 0].tolist(), strict=True):
        assert best[0] <= top
        assert best[1] <= left
        assert best[2] >= bottom
        assert best[3] >= right
        assert best[2] - best[0] <= 24, "no larger than need be"


def test_scores_by_hand() -> None:
    image = torch.rand(1, 1, 32, 32, dtype=torch.float64)
    sampler = EdgeDensity(crossing=3.0, exponent=1.2)
    boxes, _ = candidates(sampler.sides, sampler.overlap, 32, 32)
    found = sampler._score(image, boxes)[0]
    x = image[0, 0].numpy()
    down, across = np.zeros((32, 32)), np.zeros((32, 32))
    down[:-1], across[:, :-1] = np.diff(x, axis=0), np.diff(x, axis=1)
    edges = np.sqrt(down**2 + across**2)
    for i in range(0, len(boxes), 37):
        top, left, bottom, right = boxes[i].tolist()
        whole = edges[top:bottom, left:right].sum()
        inside = edges[top + 1 : bottom - 1, left + 1 : right - 1].sum()
        score = (inside - 3 * (whole - inside)) / (2 * (bottom - top + right - left)) ** 1.2
        assert found[i].item() == pytest.approx(score, abs=1e-9)


@pytest.mark.parametrize("size", [8, 28, 64])
def test_candidates_have_the_sides_and_the_shape_of_patches(size: int) -> None:
    boxes, overlaps = candidates((0.25, 0.375, 0.5), 0.2, size, size)
    sides = boxes[:, 2:] - boxes[:, :2]
    assert boxes.min() == 0
    assert boxes.max() == size
    assert set(sides.flatten().tolist()) == {max(3, round(share * size)) for share in (0.25, 0.375, 0.5)}
    assert (sides.amax(1) <= 2 * sides.amin(1)).all()
    assert len(boxes.unique(dim=0)) == len(boxes)
    assert overlaps.diagonal().all()
    assert torch.equal(overlaps, overlaps.T)


def test_boxes_of_an_image_hardly_overlap_and_do_not_depend_on_its_neighbors() -> None:
    images = torch.rand(5, 3, 64, 64) * 2 - 1
    sampler = EdgeDensity(4)
    boxes = sampler.batch(images)
    for i in range(5):
        assert torch.equal(sampler(images[i]), boxes[i])
        for a in range(4):
            for b in range(a):
                first, second = (masks(boxes[i, None, k : k + 1], 64, 64).bool() for k in (a, b))
                assert (first & second).sum() / (first | second).sum() <= 0.2


def test_where_all_boxes_overlap_the_best_of_the_rest_are_taken() -> None:
    boxes = EdgeDensity(6, sides=(0.9, 1.0)).batch(torch.rand(2, 1, 16, 16))
    assert all(len(x.unique(dim=0)) == 6 for x in boxes)
    with pytest.raises(ValueError, match=r"images of \(16, 16\) have 1 boxes, not 2"):
        EdgeDensity(2, sides=(1.0,)).batch(torch.rand(2, 1, 16, 16))


# Crops and masks ------------------------------------------------------------------------------------------------------


def test_crops_are_the_boxes_resized() -> None:
    images = torch.rand(2, 3, 16, 16) * 2 - 1
    boxes = torch.tensor([[[0, 0, 4, 4], [2, 3, 10, 9]], [[5, 5, 9, 9], [0, 0, 16, 16]]])
    found = crops(images, boxes, 16)
    assert found.shape == (2, 2, 3, 16, 16)
    for i in range(2):
        for k, (top, left, bottom, right) in enumerate(boxes[i].tolist()):
            cut = images[i : i + 1, :, top:bottom, left:right]
            expected = F.interpolate(cut, (16, 16), mode="bicubic", antialias=True).clamp(-1, 1)[0]
            assert_near(found[i, k], expected)
    assert_near(found[1, 1], images[1])


def test_masks_are_one_inside_any_box() -> None:
    boxes = torch.tensor([[[0, 1, 2, 3], [1, 2, 4, 4]]])
    expected = torch.zeros(1, 1, 5, 5)
    expected[..., 0:2, 1:3] = 1
    expected[..., 1:4, 2:4] = 1
    assert torch.equal(masks(boxes, 5, 5), expected)


# The DataModule -------------------------------------------------------------------------------------------------------


def test_batches_hold_what_the_source_holds_and_patches() -> None:
    module = Patches(source=Noise(), batch_size=4, num_patches=2)
    assert module.name == "noise16-patches2"
    assert module.num_train == 13
    batch = next(iter(module.train_dataloader()))
    shapes = {name: tuple(x.shape) for name, x in batch.items() if isinstance(x, Tensor)}
    assert shapes == {
        "image": (4, 3, 16, 16),
        "label": (4,),
        "patches": (4, 2, 3, 16, 16),
        "boxes": (4, 2, 4),
        "mask": (4, 1, 16, 16),
        "other": (4, 3, 16, 16),
    }
    assert batch["caption"] == [str(i) for i in batch["label"].tolist()]
    assert numbers(batch["image"]) == batch["label"].tolist()
    assert torch.equal(batch["patches"], crops(batch["image"], batch["boxes"], 16))
    assert torch.equal(batch["mask"], masks(batch["boxes"], 16, 16))
    assert torch.equal(batch["boxes"], EdgeDensity(2).batch(batch["image"]))
    (tested,) = Patches(source=Noise(), batch_size=13).test_dataloader()
    assert "other" not in tested
    assert numbers(tested["image"]) == list(range(13))
    assert len(module.split("val")) == 0
    assert module.split("val").batch(torch.arange(0))["patches"].shape == (0, 2, 3, 16, 16)


def test_any_function_of_an_image_can_sample_patches() -> None:
    module = Patches(source=Noise(), num_patches=4, patch_sampler=quarters)
    assert module.name == "noise16-patches4-quarters"
    (_, batch), *_ = module.reference_batches(5, 5)
    assert (batch["mask"] == 1).all()
    assert torch.equal(batch["boxes"][3], quarters(batch["image"][3]))
    assert Patches(source=Noise(), patch_sampler=EdgeDensity(sides=(0.5,))).name == "noise16-patches3-sides=(0.5,)"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_sampler_and_source_can_be_given_in_a_file() -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Patches, "data")
    sampler = {"class_path": "zoo.datamodules.patches.EdgeDensity", "init_args": {"num_boxes": 4, "sides": [0.5]}}
    source = {"class_path": "zoo.datamodules.Emoji", "init_args": {"image_size": 8, "vendors": ["noto"]}}
    for given, name in (
        ({"patch_sampler": sampler}, "emoji64-patches3-sides=(0.5,)"),
        ({"patch_sampler": "zoo.datamodules.base.patch_set.masks"}, "emoji64-patches3-masks"),
        ({"source": source}, "emoji8-noto-patches3"),
        ({"source": "CelebA", "data_dir": "x", "source_arguments": {"flip": True}}, "celeba64-patches3"),
    ):
        module = parser.instantiate_classes(parser.parse_object({"data": given})).data
        assert module.name == name
    assert module.images.flip
    assert module.images.folder == Path("x/celeba")


def test_patches_are_drawn_anew_in_each_epoch_and_evaluation_takes_the_best() -> None:
    module = Patches(source=Noise(100), num_patches=1, proposals=4, patch_sampler=quarters, seed=1)
    first, second = (module.stream()[range(start, start + 100)] for start in (0, 100))
    order, again = first["label"].argsort(), second["label"].argsort()
    a, b = first["boxes"][order, 0], second["boxes"][again, 0]
    assert not torch.equal(a, b)
    for drawn in (a, b):
        counts = drawn.unique(dim=0, return_counts=True)[1]
        assert len(counts) == 4
        assert counts.min() > 10
    (_, batch), *_ = module.reference_batches(10, 10)
    assert (batch["boxes"] == quarters(batch["image"][0])[:1]).all()


def test_patches_fit_the_image_as_it_is_augmented() -> None:
    module = Patches(source=Noise(40, flip=True), seed=2)
    batch = module.stream()[range(40)]
    plain = module.split("train").batch(batch["label"])
    flipped = [not torch.equal(x, y) for x, y in zip(batch["image"], plain["image"], strict=True)]
    assert 8 < sum(flipped) < 32
    assert torch.equal(batch["patches"], crops(batch["image"], batch["boxes"], 16))


def test_the_other_image_is_another_one_outside_the_batch_and_each_comes_once() -> None:
    for count in (12, 13):
        module = Patches(source=Noise(count), seed=3)
        for epoch in range(3):
            # Batches of half an epoch at most, which do not reach into the next one.
            batches = [module.stream()[range(k, k + 4)] for k in range(epoch * count, epoch * count + 12, 4)]
            others = [numbers(batch["other"]) for batch in batches]
            for batch, other in zip(batches, others, strict=True):
                assert not {*batch["label"].tolist()} & {*other}
            assert len({i for other in others for i in other}) == 12
    pairs = [(a, b) for x in stream(module, 52) for a, b in zip(x["label"].tolist(), numbers(x["other"]), strict=True)]
    assert len(set(pairs)) > 30, "another partner in each epoch"
    assert all(a != b for a, b in pairs)


def test_the_stream_does_not_depend_on_how_it_is_cut() -> None:
    module = Patches(source=Noise(flip=True), num_patches=2, proposals=3)
    whole, parts = stream(module, 30, 30)[0], stream(module, 30, 5)
    for name in ("image", "patches", "boxes", "mask", "other"):
        assert torch.equal(whole[name], torch.cat([batch[name] for batch in parts])), name
    copied = pickle.loads(pickle.dumps(module.stream()))[range(3, 9)]
    assert torch.equal(copied["patches"], whole["patches"][3:9])
    assert torch.equal(copied["other"], whole["other"][3:9])


def test_emoji_by_name_are_held_out_by_emoji(cache: Path) -> None:
    module = Patches(source_arguments={"vendors": ["noto"], "holdout": "combinations"}, cache_dir=cache, image_size=8)
    emoji = Emoji(vendors=["noto"], holdout="combinations", cache_dir=cache, image_size=8)
    assert module.name == "emoji8-noto-holdout-patches3"
    assert module.license == "Apache-2.0"
    assert module.class_names["vendor"] == ["noto"]
    assert isinstance(module.split("combinations"), PatchSet)
    splits = ("train", "val", "test", "combinations")
    assert [len(module.split(name)) for name in splits] == [len(emoji.split(name)) for name in splits]
    (_, a), (_, b) = (next(iter(each.reference_batches(7, 7, split="test"))) for each in (module, emoji))
    assert torch.equal(a["image"], b["image"])
    assert a["caption"] == b["caption"]
    train, test = ({*module.split(name).batch(torch.arange(50))["emoji"].tolist()} for name in ("train", "test"))
    assert not train & test


class Recorder(L.LightningModule):
    """Notes what it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: list[tuple[list[int], list[int], list[Any]]] = []

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        self.seen.append((batch["label"].tolist(), numbers(batch["other"]), batch["boxes"].tolist()))
        loss: Tensor = self.weight * batch["image"].mean()
        return loss

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.1)


def fitted(steps: int, path: Path | None = None, batch_size: int = 2, **more: Any) -> list[Any]:
    quiet = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing"), False)
    run = L.Trainer(**{**quiet, "accelerator": "cpu", "max_steps": steps, "use_distributed_sampler": False, **more})
    model = Recorder()
    module = Patches(source=Noise(), num_patches=1, proposals=4, patch_sampler=quarters, batch_size=batch_size)
    run.fit(model, module, ckpt_path=path)
    run.save_checkpoint(Path(more.get("default_root_dir", "."), f"{steps}.ckpt"))
    return model.seen


def test_a_resumed_run_goes_on_at_the_next_images_and_patches(tmp_path: Path) -> None:
    straight = fitted(11, default_root_dir=tmp_path)
    assert fitted(4, default_root_dir=tmp_path) == straight[:4]
    assert fitted(11, tmp_path / "4.ckpt", default_root_dir=tmp_path) == straight[4:]


def on_rank(folder: str) -> list[Any]:
    return fitted(5, batch_size=2, strategy="ddp", devices=2, default_root_dir=folder)


@pytest.mark.slow
def test_ranks_share_what_one_process_sees(tmp_path: Path) -> None:
    one = fitted(5, batch_size=4, default_root_dir=tmp_path)
    ranks = on_ranks(2, on_rank, str(tmp_path))
    assert [tuple(x + y for x, y in zip(*steps, strict=True)) for steps in zip(*ranks, strict=True)] == one


# Bad options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"source": "Emojis"}, "there is no DataModule 'Emojis': did you mean 'Emoji'"),
        ({"source": "Patches"}, "there is no DataModule 'Patches'"),
        ({"source": Noise(), "image_size": 16}, "give image_size to it, not to Patches"),
        ({"source": Noise(), "source_arguments": {"flip": True}}, "give source_arguments to it"),
        ({"num_patches": 0}, "num_patches must be at least 1, not 0"),
        ({"num_patches": 3, "proposals": 2}, "proposals must be at least num_patches 3, not 2"),
    ],
)
def test_bad_options(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Patches(**given)


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        (torch.tensor([[0, 0, 4, 4]]), "patch_sampler gave 1 boxes for an image; 2 are needed"),
        (torch.tensor([[0, 0, 4, 17], [0, 0, 4, 4]]), "a box that reaches out of its image"),
        (torch.tensor([[0, 0, 4, 4], [5, 0, 5, 4]]), "an empty box"),
        (torch.tensor([[0.0, 0, 4, 4]]), r"must give whole numbers \(n, 4\), not torch.float32 \(1, 4\)"),
        (torch.tensor([[0, 0, 4]]), r"not torch.int64 \(1, 3\)"),
    ],
)
def test_bad_boxes(boxes: Tensor, message: str) -> None:
    module = Patches(source=Noise(), num_patches=2, patch_sampler=lambda image: boxes)
    with pytest.raises(ValueError, match=message):
        module.stream()[range(3)]


def test_bad_samplers_and_sources(cache: Path) -> None:
    with pytest.raises(ValueError, match="num_boxes must be at least 1"):
        EdgeDensity(0)
    with pytest.raises(ValueError, match="sides must be shares"):
        EdgeDensity(sides=(0.5, 2.0))
    module = Patches(source=Unpaired(cache_dir=cache, image_size=8, load_size=8))
    with pytest.raises(ValueError, match="patches are cut from `image`, but batches hold image_a, image_b"):
        module.split("train").batch(torch.arange(2))
