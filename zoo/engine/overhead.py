"""What Lightning and torch do in every step and small models need not wait for."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.profilers import PassThroughProfiler

__all__ = ["LeanModule", "NoProfiler", "skip_idle_checks"]


class LeanModule(LightningModule):
    """A LightningModule whose `_current_fx_name`, which Lightning sets many times a step, is a plain attribute.

    nn.Module's bookkeeping makes an assignment ten times as dear.

    Attributes:
        has_logged: whether a value was logged that callbacks were not told yet.
    """

    has_logged = True

    def log(self, *args: Any, **kwargs: Any) -> None:
        """Log a value, as in Lightning."""
        self.has_logged = True
        super().log(*args, **kwargs)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("_current_fx_name", "has_logged"):
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)


class NoProfiler(PassThroughProfiler):
    """The Trainer's default profiler, which does nothing, without a new generator at each of thirty hooks a step."""

    _nothing = nullcontext()

    def profile(self, action_name: str) -> AbstractContextManager[Any]:  # type: ignore[override]
        """A context that does nothing."""
        return self._nothing


def skip_idle_checks(trainer: Trainer, model: LightningModule) -> None:
    """Leave out what costs tiny models a tenth of their step.

    Args:
        trainer: a Trainer at the start of a fit.
        model: its model.
    """
    if type(trainer.profiler) is PassThroughProfiler:  # type: ignore[attr-defined]
        trainer.profiler = NoProfiler()  # type: ignore[attr-defined]
    if model.device.type == "cpu":
        # In each step they look whether a CUDA graph is being captured, for which Lightning makes them load NVML.
        for optimizer in trainer.optimizers:
            optimizer._accelerator_graph_capture_health_check = _nothing  # type: ignore[method-assign]


def _nothing() -> None:
    """In place of a check that has nothing to find on a CPU."""
