"""A step without idle hooks is Lightning's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.loops.optimization.automatic import _AutomaticOptimization

from tests.contract import Data, ModelContract, state_of, trainer
from tests.models import test_dcgan, test_infogan, test_vae
from zoo.engine import loop
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
    lean = isinstance(step, LeanStep) and step._is_plain
    found = state_of(model), Idle.losses, fit.callback_metrics, saved["loops"], saved["global_step"]
    return lean, {"found": found}


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_the_same_weights_losses_and_counters(precision: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lean, found = run(tmp_path, Idle(), precision=precision)
    assert lean
    monkeypatch.setattr(loop, "LeanStep", type("Never", (_AutomaticOptimization,), {"look": lambda self: None}))
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
