"""The training stream: keyed order, ranks, exact resume; evaluation without padding."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from tests.ranks import on_ranks
from zoo.datamodules.base import Batch, ImageDataModule, ImageSet


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


def flat(parts: Iterable[list[Any]]) -> list[Any]:
    return list(chain.from_iterable(parts))


def straight(steps: int, **options: Any) -> list[list[int]]:
    model = Recorder()
    trainer(max_steps=steps).fit(model, Numbered(**options))
    return model.seen


def test_each_image_comes_once_per_epoch_in_a_new_order() -> None:
    seen = flat(straight(11))
    assert len(seen) == 44
    assert sorted(seen[:22]) == sorted(seen[22:]) == list(range(22))
    assert seen[:22] != seen[22:]


def test_order_depends_on_the_seed_and_the_images_seen_only(monkeypatch: pytest.MonkeyPatch) -> None:
    order = flat(straight(10))
    assert flat(straight(8, batch_size=5)) == order
    assert flat(straight(10, seed=0)) == order
    assert flat(straight(10, seed=1)) != order
    monkeypatch.setenv("PL_GLOBAL_SEED", "1")
    assert flat(straight(10)) == flat(straight(10, seed=1))


def test_loader_processes_change_nothing() -> None:
    assert straight(12, num_workers=2) == straight(12)


def test_fields_of_a_batch_belong_to_its_images() -> None:
    module = Numbered()
    batches = list(module.train_dataloader())
    assert len(batches) == len(module.train_dataloader()) == 5
    for batch in batches:
        assert batch["image"].shape == (4, 1, 8, 8)
        assert batch["image"].dtype == torch.float32
        assert torch.equal(((batch["image"][:, 0, 0, 0] + 1) * 127.5).round().long(), batch["label"])
        assert batch["caption"] == [f"number {i}" for i in batch["label"].tolist()]


def test_all_256_values_survive_the_conversion() -> None:
    values = np.arange(256, dtype=np.uint8)[:, None, None, None]
    image = ImageSet([values]).batch(torch.arange(256))["image"]
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


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
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


@pytest.mark.parametrize("workers", [0, 2])
def test_resume_after_a_save_in_validation_is_exact(workers: int, tmp_path: Path) -> None:
    """The validation in the middle of the second epoch, after batch 6."""
    options: dict[str, Any] = {"max_steps": 13, "val_check_interval": 2}
    whole, first, second = Recorder(), Recorder(), Recorder()
    trainer(**options).fit(whole, Numbered())
    path = tmp_path / "x.ckpt"
    trainer(**options, callbacks=[SaveInValidation(path)]).fit(first, Numbered(num_workers=workers))
    trainer(**options).fit(second, Numbered(num_workers=workers), ckpt_path=path)
    assert first.seen == whole.seen
    assert second.seen == whole.seen[7:]


@pytest.mark.parametrize("options", [{}, {"val_check_interval": 2}])
def test_resume_after_a_save_at_the_end_of_validation_is_exact(options: dict[str, Any], tmp_path: Path) -> None:
    whole, second = Recorder(), Recorder()
    keep = ModelCheckpoint(tmp_path, save_top_k=-1, save_on_train_epoch_end=False, filename="{step}")
    trainer(max_epochs=3, **options, enable_checkpointing=True, callbacks=[keep]).fit(whole, Numbered())
    saved = sorted(tmp_path.iterdir())
    assert len(saved) == {5: 3, 2: 6}[options.get("val_check_interval", 5)]
    for path in saved:
        step = int(path.stem.removeprefix("step="))
        second = Recorder()
        trainer(max_epochs=3, **options).fit(second, Numbered(), ckpt_path=path)
        assert second.seen == whole.seen[step:], path.name


def test_a_batch_whose_step_was_interrupted_is_done_again(tmp_path: Path) -> None:
    class SaveOnException(L.Callback):
        def on_exception(self, trainer: L.Trainer, module: L.LightningModule, exception: BaseException) -> None:
            trainer.save_checkpoint(tmp_path / "x.ckpt")

    with pytest.raises(KeyError):
        trainer(max_steps=13, callbacks=[SaveOnException()]).fit(Recorder(stop=7), Numbered())
    second = Recorder()
    trainer(max_steps=13).fit(second, Numbered(), ckpt_path=tmp_path / "x.ckpt")
    assert second.seen == straight(13)[7:]


def test_a_resumed_run_keeps_its_seed_and_may_change_its_batch_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PL_GLOBAL_SEED", "5")
    path = tmp_path / "x.ckpt"
    trainer(max_steps=2, callbacks=[SaveAtBatch(path, 1)]).fit(Recorder(), Numbered())
    monkeypatch.setenv("PL_GLOBAL_SEED", "6")
    second = Recorder()
    trainer(max_steps=4).fit(second, Numbered(batch_size=2), ckpt_path=path)
    assert flat(second.seen) == flat(straight(3, seed=5))[8:12]


def test_a_module_that_was_resumed_starts_a_new_run_at_the_start(tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    trainer(max_steps=2, callbacks=[SaveAtBatch(path, 1)]).fit(Recorder(), Numbered())
    module = Numbered()
    trainer(max_steps=3).fit(Recorder(), module, ckpt_path=path)
    again = Recorder()
    trainer(max_steps=3).fit(again, module)
    assert again.seen == straight(3)


def test_a_resume_is_not_warned_about(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    path = tmp_path / "x.ckpt"
    trainer(max_steps=2, callbacks=[SaveAtBatch(path, 1)]).fit(Recorder(), Numbered())
    trainer(max_steps=4).fit(Recorder(), Numbered(), ckpt_path=path)
    assert not [w for w in recwarn if "resum" in str(w.message)]


# Evaluation and references -------------------------------------------------------------------------------------------


def test_evaluation_sees_each_image_once_whatever_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in ("0", "1"):
        monkeypatch.setenv("PL_GLOBAL_SEED", seed)
        for run in ("validate", "test", "predict"):
            model = Recorder()
            getattr(trainer(), run)(model, datamodule=Numbered())
            assert model.evaluated == list(range(7, 18)), run


def test_overfitting_repeats_the_same_batches() -> None:
    model = Recorder()
    trainer(max_epochs=3, overfit_batches=2).fit(model, Numbered())
    assert len(model.seen) == 6
    assert model.seen[:2] == model.seen[2:4] == model.seen[4:]


def test_references_are_fixed_and_shared_out_by_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = [(first, b["label"].tolist()) for first, b in Numbered().reference_batches(20, 6)]
    assert [first for first, _ in whole] == [0, 6, 12, 18]
    assert [len(chunk) for _, chunk in whole] == [6, 6, 6, 2]
    assert len({i for _, chunk in whole for i in chunk}) == 20
    monkeypatch.setenv("PL_GLOBAL_SEED", "9")
    for rank in range(3):
        mine = Numbered(seed=4, batch_size=1).reference_batches(20, 6, rank=rank, world_size=3)
        assert [(first, b["label"].tolist()) for first, b in mine] == whole[rank::3]
    fewer = [i for _, b in Numbered().reference_batches(10, 5) for i in b["label"].tolist()]
    assert fewer == [i for _, chunk in whole for i in chunk][:10]


def test_mapped_files_travel_by_name(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((1000, 1, 32, 32), np.uint8))
    images = ImageSet([np.load(tmp_path / "x.npy", mmap_mode="r")])
    sent = pickle.dumps(images)
    assert len(sent) < 2000
    assert pickle.loads(sent).batch(torch.arange(3))["image"].shape == (3, 1, 32, 32)


# Ranks ---------------------------------------------------------------------------------------------------------------


def fit_and_validate(world: int, steps: int, batch_size: int, folder: str) -> tuple[list[list[int]], list[int]]:
    """A plain Trainer, without `use_distributed_sampler=False`."""
    model = Recorder()
    plain = trainer(max_steps=steps, devices=world, strategy="ddp")
    path = Path(folder, "x.ckpt")
    resuming = path.exists()  # asked before the ranks meet: afterwards a rank might find what another has just saved
    plain.fit(model, Numbered(batch_size=batch_size), ckpt_path=path if resuming else None)
    if not resuming:
        plain.save_checkpoint(path)
    model.evaluated.clear()
    plain.validate(model, datamodule=Numbered(batch_size=2), verbose=False)
    return model.seen, model.evaluated


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 3])
def test_ranks_concatenated_equal_one_process(world: int, tmp_path: Path) -> None:
    ranks = on_ranks(world, fit_and_validate, world, 5, 3, str(tmp_path))
    joined = [flat(parts) for parts in zip(*(seen for seen, _ in ranks), strict=True)]
    assert joined == straight(5, batch_size=3 * world)
    assert sorted(flat(evaluated for _, evaluated in ranks)) == list(range(7, 18)), "no padding, nothing lost"

    resumed = on_ranks(world, fit_and_validate, world, 8, 3, str(tmp_path))
    joined = [flat(parts) for parts in zip(*(seen for seen, _ in resumed), strict=True)]
    assert joined == straight(8, batch_size=3 * world)[5:]


# Bad input -----------------------------------------------------------------------------------------------------------


def test_one_line_for_each_mistake() -> None:
    with pytest.raises(
        ValueError, match=r"^batch_size 64 on 1 device\(s\) is larger than the 22 training images of num"
    ):
        Numbered(batch_size=64).train_dataloader()
    with pytest.raises(ValueError, match=r"^image_size must lie in 8\.\.1024, not 4$"):
        Numbered(image_size=4)
    with pytest.raises(ValueError, match=r"^numbered8 has no split 'trian': did you mean 'train'\?$"):
        next(Numbered().reference_batches(4, 4, split="trian"))
    with pytest.raises(ValueError, match=r"^the train split of numbered8 has 22 images, 23 were asked for$"):
        next(Numbered().reference_batches(23, 4))
