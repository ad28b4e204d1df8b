"""Counting, checkpoints and the stop on losses that are not finite."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from lightning.pytorch.callbacks import ModelCheckpoint

from tests.contract import Data, trainer
from zoo.dcgan import DCGAN
from zoo.engine import finite
from zoo.engine.checkpoint import AtomicCheckpointIO


def batches(n: int) -> list[dict[str, Any]]:
    return [{"image": 2 * torch.rand(4, 3, 8, 8) - 1} for _ in range(n)]


def tiny(**options: Any) -> DCGAN:
    return DCGAN(8, base_channels=4, latent_dim=5, **options)


def test_a_checkpoint_is_written_beside_its_place_and_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"step": 1}, target)
    replaced = []
    replace = os.replace

    def watch(source: Path, destination: Path) -> None:
        assert torch.load(source, weights_only=True) == {"step": 2}, "renamed before it was complete"
        assert torch.load(destination, weights_only=True) == {"step": 1}, "the earlier one was touched"
        replaced.append(Path(source).parent)
        replace(source, destination)

    monkeypatch.setattr(os, "replace", watch)
    AtomicCheckpointIO().save_checkpoint({"step": 2}, target)
    assert replaced == [tmp_path]
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_full_disk_keeps_the_earlier_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"step": 1}, target)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"cannot write the checkpoint .*No space left.*the earlier one is unchanged"):
        AtomicCheckpointIO().save_checkpoint({"step": 2}, target)
    assert torch.load(target, weights_only=True) == {"step": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_truncated_checkpoint_is_named(tmp_path: Path) -> None:
    target = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"weights": torch.rand(1000)}, target)
    target.write_bytes(target.read_bytes()[:2000])
    with pytest.raises(ValueError, match=r"last\.ckpt is damaged"):
        AtomicCheckpointIO().load_checkpoint(target)


class Harmful:
    """What a hostile pickle would call."""

    def __reduce__(self) -> Any:
        return os.system, ("false",)


def test_checkpoints_are_read_without_pickle(tmp_path: Path) -> None:
    torch.save({"weights": Harmful()}, tmp_path / "evil.ckpt")
    with pytest.raises(ValueError, match="holds more than tensors and plain types"):
        AtomicCheckpointIO().load_checkpoint(tmp_path / "evil.ckpt")


def test_a_plain_trainer_writes_atomically(tmp_path: Path) -> None:
    run = trainer(enable_checkpointing=True, callbacks=[ModelCheckpoint(dirpath=tmp_path, save_last=True)])
    run.fit(tiny(), datamodule=Data(batches(2)))
    assert type(run.strategy.checkpoint_io) is AtomicCheckpointIO
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert saved["global_step"] == 2
    assert saved["zoo"]["seed"] == 0


def test_checkpoints_follow_batches_not_optimizer_steps(tmp_path: Path) -> None:
    keep = ModelCheckpoint(dirpath=tmp_path, every_n_train_steps=3, save_top_k=-1, filename="{step}")
    trainer(enable_checkpointing=True, callbacks=[keep]).fit(tiny(), datamodule=Data(batches(7)))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step=3.ckpt", "step=6.ckpt"]


@pytest.mark.parametrize("phase", ["discriminator", "generator"])
def test_a_loss_that_is_not_finite_stops_the_run(phase: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny()
    loss = getattr(model, f"{phase}_loss")

    def broken(batch: Any, shared: Any) -> Any:
        terms = loss(batch, shared)
        return {k: v * float("nan") for k, v in terms.items()} if model.batch_index == 3 else terms

    monkeypatch.setattr(model, f"{phase}_loss", broken)
    keep = ModelCheckpoint(dirpath=tmp_path, every_n_train_steps=1, save_last=True)
    with pytest.raises(FloatingPointError, match=rf"phase '{phase}' is not finite at batch 3.*last good .*last\.ckpt"):
        trainer(enable_checkpointing=True, callbacks=[keep]).fit(model, datamodule=Data(batches(6)))
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert saved["global_step"] == 3
    assert all(torch.isfinite(v).all() for v in saved["state_dict"].values())


def test_weights_that_are_not_finite_never_replace_a_checkpoint(tmp_path: Path) -> None:
    class Poisoned(DCGAN):
        def on_phase_stepped(self, phase: str) -> None:
            if self.batch_index == 2:
                self.generator.layers[0].conv.weight.data[0] = float("inf")

    keep = ModelCheckpoint(dirpath=tmp_path, every_n_train_steps=1, save_last=True)
    with pytest.raises(FloatingPointError, match="weights of 'generator' are not finite at step 3"):
        trainer(enable_checkpointing=True, callbacks=[keep]).fit(
            Poisoned(8, base_channels=4), datamodule=Data(batches(6))
        )
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 2


def test_deferred_check_names_the_first_bad_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    """On devices other than the CPU nothing is read at once; here the same bookkeeping, with two folds on the way."""
    model = tiny()
    monkeypatch.setattr(finite, "world_size", lambda: 2)  # then losses are kept
    monkeypatch.setattr(dist, "all_reduce", lambda *_: None)
    monkeypatch.setattr(model.finite, "keeps", 4)
    for model.batch_index in range(9):
        for phase in ("discriminator", "generator"):
            bad = (model.batch_index, phase) in ((7, "generator"), (8, "discriminator"))
            model.check_finite(phase, torch.tensor(float("nan") if bad else 1.0))
        if model.batch_index == 6:
            model.raise_if_not_finite()
    with pytest.raises(FloatingPointError, match="phase 'generator' is not finite at batch 7"):
        model.raise_if_not_finite()


def test_seed_of_a_resumed_run_is_the_checkpoint_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PL_GLOBAL_SEED", "11")
    run = trainer()
    run.fit(tiny(), datamodule=Data(batches(1)))
    run.save_checkpoint(tmp_path / "a.ckpt")
    monkeypatch.setenv("PL_GLOBAL_SEED", "12")
    model = tiny()
    trainer(max_epochs=2).fit(model, datamodule=Data(batches(2)), ckpt_path=tmp_path / "a.ckpt")
    assert model.seed == 11


def test_images_of_another_size_are_refused_in_one_line() -> None:
    wrong = [{"image": 2 * torch.rand(4, 3, 16, 16) - 1}]
    with pytest.raises(ValueError, match=r"the data's images are 3x16x16, the model's 3x8x8: set image_size"):
        trainer().fit(tiny(), datamodule=Data(wrong))


def test_a_fit_forgets_the_losses_of_the_one_before() -> None:
    model = tiny()
    model.finite._losses.append((2 * 7 + 1, torch.tensor(float("nan"))))
    trainer().fit(model, datamodule=Data(batches(1)))
    model.raise_if_not_finite()


def test_a_loss_after_the_last_logging_step_is_looked_at() -> None:
    class Late(DCGAN):
        def check_finite(self, phase: str, loss: torch.Tensor) -> None:
            self.finite._losses.append((0, torch.tensor(float("nan"))))  # as on a GPU: kept, and read later

    with pytest.raises(FloatingPointError, match="phase 'discriminator' is not finite at batch 0"):
        trainer(log_every_n_steps=50).fit(Late(8, base_channels=4), datamodule=Data(batches(2)))
