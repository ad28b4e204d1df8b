"""A step without idle hooks is Lightning's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loops.optimization.automatic import _AutomaticOptimization
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop

from tests.contract import Data, ModelContract, state_of, trainer
from tests.models import test_dcgan, test_infogan, test_vae
from zoo.engine import loop
from zoo.engine.lean_loop import LeanEpochLoop
from zoo.engine.lean_step import LeanStep
from zoo.vae import VAE


class Idle(Callback):
    """Uses hooks around the step only."""

    losses: list[float] = []  # noqa: RUF012

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *_: Any) -> None:
        self.losses.append(float(outputs["loss"]))


class Looking(Idle):
    """Uses a hook inside the step."""

    def on_after_backward(self, trainer: Any, pl_module: Any) -> None: ...


class Clipping(VAE):
    """Overrides a hook inside the step."""

    def on_before_optimizer_step(self, optimizer: Any) -> None: ...


def run(folder: Path, callback: Callback, **options: Any) -> tuple[Any, dict[str, Any]]:
    """Weights after a fit, the losses, and the checkpoint's counters."""
    Idle.losses = []
    case = test_vae.TestVAE()
    torch.manual_seed(0)
    model = case.tiny()
    fit = trainer(callbacks=[callback], logger=False, log_every_n_steps=2, **options)
    fit.fit(model, datamodule=Data([case.batch(4, seed=i) for i in range(5)]))
    fit.save_checkpoint(folder / "a.ckpt")
    saved = torch.load(folder / "a.ckpt", weights_only=True)
    step = fit.fit_loop.epoch_loop.automatic_optimization
    lean = isinstance(step, LeanStep) and step._is_plain and cast(Any, fit.fit_loop.epoch_loop)._is_lean
    found = state_of(model), Idle.losses, fit.callback_metrics, saved["loops"], saved["global_step"]
    return lean, {"found": found}


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_the_same_weights_losses_and_counters(precision: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lean, found = run(tmp_path, Idle(), precision=precision)
    assert lean
    monkeypatch.setattr(loop, "LeanStep", type("Never", (_AutomaticOptimization,), {"look": lambda self: None}))
    monkeypatch.setattr(LeanEpochLoop, "on_run_start", _TrainingEpochLoop.on_run_start)
    lean, expected = run(tmp_path, Idle(), precision=precision)
    assert not lean
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("callback", "options"),
    [(Looking(), {}), (Idle(), {"gradient_clip_val": 1.0}), (Idle(), {"accumulate_grad_batches": 2})],
    ids=["callback", "clipping", "accumulation"],
)
def test_hooks_in_use_take_lightnings_way(callback: Callback, options: Any, tmp_path: Path) -> None:
    assert not run(tmp_path, callback, **options)[0]


def test_a_model_with_a_hook_takes_lightnings_way() -> None:
    case = test_vae.TestVAE()
    fit = trainer()
    model = case.tiny()
    model.__class__ = Clipping
    fit.fit(model, datamodule=Data([case.batch(4)]))
    assert not fit.fit_loop.epoch_loop.automatic_optimization._is_plain  # type: ignore[attr-defined]


class Counting(Callback):
    """Uses hooks inside the step of an adversarial model."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        self.calls.append("step")

    def on_after_backward(self, trainer: Any, pl_module: Any) -> None:
        self.calls.append("backward")


@pytest.mark.parametrize("case", [test_dcgan.TestDCGAN, test_infogan.TestInfoGANSimultaneous])
def test_adversarial_models_train_the_same_without_idle_hooks(case: type[ModelContract]) -> None:
    ends, counting = [], Counting()
    for callbacks in ([], [counting]):
        torch.manual_seed(0)
        model = case().tiny()
        fit = trainer(callbacks=callbacks)
        fit.fit(model, datamodule=Data([case().batch(4, seed=i) for i in range(3)]))
        assert model._hooks_are_idle is not bool(callbacks)  # type: ignore[attr-defined]
        assert fit.global_step == 3
        ends.append(state_of(model))
    torch.testing.assert_close(*ends, rtol=0, atol=0)
    assert counting.calls.count("step") == counting.calls.count("backward") == 6


class Logging(Callback):
    """Logs in every batch, at both ends of it, and notes what other callbacks are told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        pl_module.log("start", float(batch_idx))

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        pl_module.log("end", float(batch_idx), on_step=True, on_epoch=True)
        if batch_idx == 1 and trainer.current_epoch == 0:
            trainer.callbacks.append(self.late)
        self.told.append((batch_idx, dict(trainer.callback_metrics), trainer.global_step))

    late = Idle()


class Skipping(VAE):
    """Ends each epoch before its fourth batch, has a schedule and a hook before the transfer, and logs."""

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> Any:
        super().on_train_batch_start(batch, batch_idx)
        self.log("batch", float(batch_idx), on_epoch=True)
        return -1 if batch_idx == 3 else None

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return {name: value.flip(0) if torch.is_tensor(value) else value for name, value in batch.items()}

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), 1e-3)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)]


@pytest.mark.parametrize("kind", ["vae", "skipping", "dcgan"])
def test_a_lean_loop_logs_counts_and_tells_as_lightnings(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case: Any = test_dcgan.TestDCGAN() if kind == "dcgan" else test_vae.TestVAE()
    ends: list[Any] = []
    logs: list[str] = []
    for lean in (True, False):
        if not lean:
            monkeypatch.setattr(LeanEpochLoop, "on_run_start", _TrainingEpochLoop.on_run_start)
        torch.manual_seed(0)
        model, logging, Idle.losses = case.tiny(), Logging(), []
        if kind == "skipping":
            model.__class__ = Skipping
        logger = CSVLogger(tmp_path, name=str(lean), flush_logs_every_n_steps=1)
        fit = trainer(callbacks=[logging], logger=logger, log_every_n_steps=2, max_epochs=3)
        monkeypatch.setattr(Idle, "on_train_batch_end", lambda self, *a: self.losses.append(a[-1]))
        fit.fit(model, datamodule=Data([case.batch(4, seed=i) for i in range(5)]))
        loop = cast(Any, fit.fit_loop.epoch_loop)
        assert loop._is_lean is lean
        rows = Path(logger.log_dir, "metrics.csv").read_text()
        seen = Idle.losses[-3:]  # by the callback that came late
        ends.append((state_of(model), logging.told, seen, fit.callback_metrics, fit.fit_loop.state_dict()))
        logs.append(rows)
    assert logs[0] == logs[1]
    torch.testing.assert_close(*ends, rtol=0, atol=0)


def test_a_model_clips_the_same_without_idle_hooks() -> None:
    case, ends = test_dcgan.TestDCGAN(), []
    for callbacks in ([], [Counting()]):
        torch.manual_seed(0)
        model = case.tiny()
        model.gradient_clip = 1e-3
        trainer(callbacks=callbacks).fit(model, datamodule=Data([case.batch(4, seed=i) for i in range(3)]))
        ends.append(state_of(model))
    torch.testing.assert_close(*ends, rtol=0, atol=0)
    model.gradient_clip = None
    trainer().fit(model, datamodule=Data([case.batch(4, seed=i) for i in range(3)]))
    assert not torch.equal(state_of(model)["generator.layers.0.conv.weight"], ends[0]["generator.layers.0.conv.weight"])
