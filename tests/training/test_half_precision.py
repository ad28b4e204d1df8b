"""fp16, whose loss is scaled: on a CPU with torch's scaler for CPUs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision

from tests.contract import Data, ModelContract, trainer
from tests.models import test_aae, test_gan, test_infogan


def half(scale: float) -> MixedPrecision:
    """The precision with a scale at the start."""
    return MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=scale))


@pytest.mark.parametrize("case", [test_aae.TestAAE, test_gan.TestGAN])
def test_steps_that_are_skipped_leave_no_trace(case: type[ModelContract]) -> None:
    """At the first scale all gradients are infinite; the momentum begins with the first step that is done."""
    model = case().tiny()
    plugin = half(2.0**60)
    batches = [case().batch(4, seed=i) for i in range(30)]
    run = trainer(plugins=[plugin])
    run.fit(model, datamodule=Data(batches))
    # Else the scaler reads for each optimizer and step whether its gradients are finite, and the host waits for a GPU.
    assert all(getattr(optimizer, "_step_supports_amp_scaling", False) for optimizer in run.optimizers)
    assert plugin.scaler is not None
    assert plugin.scaler.get_scale() < 2.0**50
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())


def test_all_optimizers_of_a_simultaneous_step_see_the_same_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    case, plugin = test_infogan.TestInfoGANSimultaneous(), half(2.0**60)
    scales: list[float] = []
    assert plugin.scaler is not None
    step = plugin.scaler.step

    def seen(optimizer: Any, *args: Any, **kwargs: Any) -> Any:
        scales.append(plugin.scaler.get_scale())  # type: ignore[union-attr]
        return step(optimizer, *args, **kwargs)

    monkeypatch.setattr(plugin.scaler, "step", seen)
    trainer(plugins=[plugin]).fit(case.tiny(), datamodule=Data([case.batch(4, seed=i) for i in range(3)]))
    assert scales == [2.0**60, 2.0**60, 2.0**59, 2.0**59, 2.0**58, 2.0**58]
