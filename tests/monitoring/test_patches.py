"""Measures of images made of patches, over ranks as well, and the sheet that shows them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from tests.monitoring.fakes import GAN, Coder, Images, PatchedImages, pixels, trainer
from tests.ranks import on_ranks
from zoo.callbacks import Measure, PatchSheet
from zoo.callbacks.measures import MEASURES, Evaluation
from zoo.callbacks.metrics import MaskIoU, NearestPatch

HEAD = 25  # two lines of names


class Assembler(nn.Module):
    """Knows the images by their first patch, and gives them back moved by a pixel, with `error` added."""

    def __init__(self, data: Any, error: float = 0.0) -> None:
        super().__init__()
        self.data, self.error = data, error
        self.weight = nn.Parameter(torch.zeros(()))

    def assemble(self, patches: Tensor, *, seed: int | None = None, first: int = 0) -> tuple[Tensor, Tensor]:
        torch.rand(3)  # careless
        known = self.data.batch(torch.arange(len(self.data.image)))
        number = torch.cdist(patches[:, 0].flatten(1), known["patches"][:, 0].flatten(1)).argmin(1)
        image = known["image"][number].roll((1, -1), (2, 3))
        return image + self.error, 0.2 + 0.6 * known["mask"][number]


def fake_data() -> PatchedImages:
    data = PatchedImages(20)
    data.image = data.image.clamp(-0.8, 0.8)
    data.boxes = torch.tensor([[2, 2, 5, 5], [4, 3, 6, 7]]) + torch.arange(20)[:, None, None] % 2
    return data


def test_perfect_masks_and_patches_wherever_they_lie() -> None:
    state = torch.get_rng_state()
    data = fake_data()
    found = MEASURES["mask_iou"](Assembler(data), data)
    assert found.value == 1
    assert found.protocol == "mask_iou[test=noise8-patches2-test-20, weights=raw]"
    found = MEASURES["patch_error"](Assembler(data), data)
    assert found.value == pytest.approx(0, abs=1e-7)
    assert MEASURES["patch_error"](Assembler(data, 0.1), data, num_samples=6).value == pytest.approx(0.05, rel=0.01)
    assert torch.equal(state, torch.get_rng_state())


def test_patches_of_another_image_are_the_control() -> None:
    data = fake_data()
    found = MEASURES["patch_error"](Assembler(data), data, shuffled=True)
    assert found.value > 0.15
    assert found.protocol == "patch_error_shuffled[test=noise8-patches2-test-20, weights=raw]"
    assert found.metric == "patch_error_shuffled", "a column of its own"
    # Images with odd and with even numbers follow each other: their boxes differ by a pixel.
    inside = masks_of(data.boxes[:2])
    union, both = inside.any(0).sum().item(), inside.all(0).sum().item()
    found = MEASURES["mask_iou"](Assembler(data), data, shuffled=True)
    assert found.value == pytest.approx(both / union)
    with pytest.raises(ValueError, match="mask_iou: shuffled needs two images at least, not 1"):
        MEASURES["mask_iou"](Assembler(data), data, shuffled=True, num_samples=1)


def masks_of(boxes: Tensor) -> Tensor:
    """(N, 8, 8) bool."""
    out = torch.zeros(len(boxes), 8, 8, dtype=torch.bool)
    for mask, places in zip(out, boxes.tolist(), strict=True):
        for top, left, bottom, right in places:
            mask[top:bottom, left:right] = True
    return out


def test_no_image_is_left_alone_in_its_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 7 images in chunks of 6 the last would be its own partner."""
    monkeypatch.setattr(Evaluation, "chunk", 6)
    data = fake_data()
    assert MEASURES["patch_error"](Assembler(data), data, shuffled=True, num_samples=7).value > 0.15


def test_iou_by_hand() -> None:
    metric = MaskIoU()
    true = torch.zeros(3, 1, 4, 4)
    true[0, 0, :2] = 1  # 8
    true[1, 0, 0, 0] = 1
    found = torch.zeros(3, 1, 4, 4)
    found[0, 0, 1:] = 0.6  # 12, of which 4 are right
    metric.update(found, true)
    metric.update(found[:0], true[:0])
    assert metric.compute()["value"].item() == pytest.approx((4 / 16 + 0 + 1) / 3)
    assert metric.compute()["value"].dtype == torch.float64


def test_nearest_patch_by_hand() -> None:
    source = torch.rand(1, 3, 6, 6) * 2 - 1
    image = torch.rand(1, 3, 6, 6) * 2 - 1
    metric = NearestPatch()
    metric.update(image, source, torch.tensor([[[1, 2, 4, 4], [0, 0, 6, 6]]]))
    a, b = (source.double() + 1) / 2, (image.double() + 1) / 2
    patch = a[0, :, 1:4, 2:4]
    least = min((b[0, :, y : y + 3, x : x + 2] - patch).abs().mean().item() for y in range(4) for x in range(5))
    assert metric.compute()["value"].item() == pytest.approx((least + (a - b).abs().mean().item()) / 2)


def values() -> list[float]:
    Evaluation.chunk = 6
    data = fake_data()
    options: list[dict[str, Any]] = [{}, {"shuffled": True}, {"num_samples": 5}]
    model = Assembler(data, 0.2)
    return [MEASURES[name](model, data, **more).value for name in ("mask_iou", "patch_error") for more in options]


def values_on_rank() -> list[float]:
    torch.distributed.init_process_group("gloo")
    return values()


@pytest.mark.slow
def test_ranks_give_one_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Evaluation, "chunk", Evaluation.chunk)  # taken back after the test
    expected = values()
    for found in on_ranks(3, values_on_rank):
        assert found == pytest.approx(expected, rel=1e-10)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="mask_iou needs assemble, which Linear does not have"):
        MEASURES["mask_iou"](nn.Linear(1, 1), fake_data())
    with pytest.raises(TypeError, match="patch_error needs num_patches, which Images does not have"):
        MEASURES["patch_error"](Assembler(fake_data()), Images())
    for callback, data, message in (
        (PatchSheet(), PatchedImages(), "PatchSheet needs assemble, which GAN does not have"),
        (Measure("mask_iou"), PatchedImages(), "mask_iou needs assemble, which GAN does not have"),
    ):
        with pytest.raises(TypeError, match=message):
            trainer(tmp_path, callbacks=[callback]).fit(GAN(), datamodule=data)
    for callback in (PatchSheet(), Measure("patch_error")):
        with pytest.raises(TypeError, match="needs num_patches, which Images does not have"):
            trainer(tmp_path, callbacks=[callback]).fit(Coder(), datamodule=Images())
    with pytest.raises(TypeError, match="PatchSheet needs a DataModule"):
        trainer(tmp_path, callbacks=[PatchSheet()]).fit(Coder(), Images().train_dataloader())
    with pytest.raises(ValueError, match="PatchSheet: num_images must be at least 1, not 0"):
        PatchSheet(num_images=0)


# The sheet ------------------------------------------------------------------------------------------------------------


def tile(picture: np.ndarray[Any, Any], row: int, column: int) -> np.ndarray[Any, Any]:
    top, left = HEAD + 2 + 10 * row, 2 + 10 * column
    return picture[top : top + 8, left : left + 8]


def test_a_row_for_each_image_with_patches_masks_and_images(tmp_path: Path) -> None:
    data = PatchedImages()
    trainer(tmp_path, callbacks=[PatchSheet(6, num_images=5)]).fit(Coder(), datamodule=data)
    paths = sorted((tmp_path / "samples").glob("*"))
    # Lightning counts two steps per batch of this GAN: 8 batches are 16 steps.
    assert [path.name for path in paths] == [f"patches-{step:08d}.png" for step in (6, 12, 16)]
    picture = np.asarray(Image.open(paths[-1]))
    assert picture.shape == (HEAD + 5 * 10 + 2, (2 + 4) * 10 + 2, 3)
    batch = data.batch(torch.arange(5))
    image, mask = Coder().assemble(batch["patches"], seed=0)
    expected = [*batch["patches"].unbind(1), 2 * mask - 1, image, 2 * batch["mask"] - 1, batch["image"]]
    for column, wanted in enumerate(expected):
        for row in range(5):
            assert np.array_equal(tile(picture, row, column), pixels(wanted)[row]), column


def test_a_puzzle_gan_in_float64(tmp_path: Path) -> None:
    from zoo.puzzlegan import PuzzleGAN

    torch.manual_seed(0)
    model = PuzzleGAN(8, base_channels=2, embedding_dim=3, latent_dim=3)
    run = trainer(tmp_path, callbacks=[PatchSheet(num_images=3)], precision="64-true", max_steps=2)
    run.fit(model, datamodule=PatchedImages())
    picture = np.asarray(Image.open(tmp_path / "samples" / "patches-00000002.png"))
    batch = PatchedImages().batch(torch.arange(3))
    image, mask = model.double().assemble(batch["patches"].double(), seed=0)
    for column, wanted in ((2, 2 * mask - 1), (3, image)):
        for row in range(3):
            assert np.array_equal(tile(picture, row, column), pixels(wanted)[row])
