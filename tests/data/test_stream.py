"""The training stream: keyed order, ranks, exact resume; evaluation without padding."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from datamodules.base import Batch, ImageDataModule, ImageSet
from tests.ranks import on_ranks


def shaken(image: Tensor, seed: int, epoch: int, index: Tensor) -> Tensor:
    return image + (seed * 100 + epoch) * 1000 + index[:, None, None, None]


class Numbered(ImageDataModule):
    """Image i is filled with the value i and has the label i."""

    def __init__(self, n: int = 22, augmented: bool = False, **options: Any) -> None:
        super().__init__(**{"image_size": 8, "batch_size": 4, **options})
        self.n, self.augmented = n, augmented

    def open(self) -> dict[str, ImageSet]:
        images = np.arange(self.n, dtype=np.uint8)[:, None, None, None] * np.ones((1, 1, 8, 8), np.uint8)
        fields: dict[str, Tensor | list[str]] = {
            "label": torch.arange(self.n),
            "caption": [f"number {i}" for i in range(self.n)],
        }
        train = ImageSet([images], fields, augment=shaken if self.augmented else None)
        rest = ImageSet([images], fields, torch.arange(7, 18))
        return {"train": train, "val": rest, "test": rest}


class Recorder(L.LightningModule):
    """Notes the labels that it sees, and in which epoch; `stop` raises at that batch of the run."""

    def __init__(self, stop: int | None = None) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: list[list[int]] = []
        self.epochs: list[int] = []
        self.evaluated: list[int] = []
        self.stop = stop

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        if self.trainer.fit_loop.epoch_loop.total_batch_idx == self.stop:
            raise KeyError("stopped")
        self.seen.append(batch["label"].tolist())
        self.epochs.append(self.current_epoch)
        return self.weight * batch["image"].mean()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.evaluated += batch["label"].tolist()

    test_step = predict_step = validation_step

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.1)


def trainer(**options: Any) -> L.Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    return L.Trainer(**{**quiet, "enable_checkpointing": False, "num_sanity_val_steps": 0, **options})


def labels(batches: Iterator[Batch]) -> list[list[int]]:
    return [batch["label"].tolist() for batch in batches]


def straight(steps: int, **options: Any) -> list[list[int]]:
    model = Recorder()
    trainer(max_steps=steps).fit(model, Numbered(**options))
    return model.seen


def test_an_epoch_holds_no_image_twice_and_the_next_one_goes_on() -> None:
    flat = [i for batch in straight(11) for i in batch]
    assert len(flat) == 44
    assert sorted(flat[:22]) == sorted(flat[22:]) == list(range(22))
    assert flat[:22] != flat[22:]


def test_order_depends_on_the_seed_and_the_images_seen_only(monkeypatch: pytest.MonkeyPatch) -> None:
    order = sum(straight(10), [])
    assert sum(straight(8, batch_size=5), []) == order
    assert sum(straight(10, seed=0), []) == order
    assert sum(straight(10, seed=1), []) != order
    monkeypatch.setenv("PL_GLOBAL_SEED", "1")
    assert sum(straight(10), []) == sum(straight(10, seed=1), [])


def test_loader_processes_change_nothing() -> None:
    assert straight(12, num_workers=2) == straight(12)


def test_batches_are_whole_and_in_range() -> None:
    module = Numbered()
    batches = list(module.train_dataloader())
    assert len(batches) == len(module.train_dataloader()) == 5
    for batch in batches:
        assert batch["image"].shape == (4, 1, 8, 8)
        assert batch["image"].dtype == torch.float32
        assert torch.equal(((batch["image"][:, 0, 0, 0] + 1) * 127.5).round().long(), batch["label"])
        assert batch["caption"] == [f"number {i}" for i in batch["label"].tolist()]


def test_levels_survive_the_conversion() -> None:
    levels = np.arange(256, dtype=np.uint8)[:, None, None, None]
    image = ImageSet([levels]).batch(torch.arange(256))["image"]
    assert image.min() == -1
    assert image.max() == 1
    assert torch.equal(((image + 1) / 2 * 255).round().byte().flatten(), torch.arange(256).byte())


def test_augmentation_is_a_function_of_seed_epoch_and_image() -> None:
    module = Numbered(augmented=True, seed=3)
    values = torch.cat([b["image"][:, 0, 0, 0] for b in [*module.train_dataloader(), *module.train_dataloader()]])
    order = torch.cat([b["label"] for b in Numbered(seed=3).train_dataloader()])
    assert torch.equal(values[:20].long(), ((300 * 1000) + order + order / 127.5 - 1).long())
    assert (values[22:] > 301_000 - 2).all(), "the second epoch has its own augmentation"
    reference = next(module.reference_batches(22, 22))[1]
    assert reference["image"].abs().max() <= 1, "references are not augmented"


def test_without_a_trainer_passes_go_on_where_the_last_one_ended() -> None:
    module = Numbered()
    assert labels(iter(module.train_dataloader())) + labels(iter(module.train_dataloader())) == straight(10)


# Resume --------------------------------------------------------------------------------------------------------------


class SaveInValidation(L.Callback):
    def __init__(self, path: Path) -> None:
        self.path = path

    def on_validation_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.fit_loop.epoch_loop.total_batch_idx == 6:
            trainer.save_checkpoint(self.path)


class SaveAtBatch(L.Callback):
    def __init__(self, path: Path, batch: int) -> None:
        self.path, self.batch = path, batch

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.fit_loop.epoch_loop.total_batch_idx == self.batch:
            trainer.save_checkpoint(self.path)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("limit", [{"max_steps": 13}, {"max_epochs": 3}], ids=["steps", "epochs"])
@pytest.mark.parametrize(
    ("saved", "options"),
    [
        (0, {}),
        (2, {}),
        (3, {}),
        (4, {}),  # the last batch of the first epoch
        (5, {}),
        (9, {}),
        (6, {"val_check_interval": 2}),  # batch 1 of the second epoch: its validation has not begun
        (9, {"limit_val_batches": 0}),
        (7, {"limit_train_batches": 4}),  # epochs cut short: the stream goes on without a gap
    ],
)
def test_resume_is_exact(
    saved: int, options: dict[str, Any], limit: dict[str, int], workers: int, tmp_path: Path
) -> None:
    whole, first, second = Recorder(), Recorder(), Recorder()
    trainer(**limit, **options).fit(whole, Numbered())
    path = tmp_path / "x.ckpt"
    trainer(**limit, **options, callbacks=[SaveAtBatch(path, saved)]).fit(first, Numbered(num_workers=workers))
    assert first.seen == whole.seen
    trainer(**limit, **options).fit(second, Numbered(num_workers=workers), ckpt_path=path)
    assert second.seen == whole.seen[saved + 1 :]
    assert second.epochs == whole.epochs[saved + 1 :]
