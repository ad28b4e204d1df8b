"""Lightning's step without the hooks that nobody uses.

On small models these take as long as the networks. What a step does, and in which order, is as in Lightning: loss,
gradients set to none, backward, optimizer. Whatever a model, a callback, a precision or a strategy adds to this takes
Lightning's own way.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loops.optimization.automatic import _AutomaticOptimization
from lightning.pytorch.plugins import MixedPrecision, Precision
from lightning.pytorch.profilers import PassThroughProfiler
from lightning.pytorch.strategies import SingleDeviceStrategy
from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature
from torch import Tensor
from torch.optim import Optimizer

from zoo.engine.lean_loop import overrides
from zoo.engine.overhead import NoProfiler

__all__ = ["LeanStep", "hooks_are_idle", "know_arguments"]

MODEL_HOOKS = ("optimizer_step", "optimizer_zero_grad", "backward", "configure_gradient_clipping")
HOOKS = ("on_before_zero_grad", "on_before_backward", "on_after_backward", "on_before_optimizer_step")


class LeanStep(_AutomaticOptimization):
    """Automatic optimization that leaves out idle hooks."""

    _is_plain = False

    def look(self) -> None:
        """See at the start of a fit whether all hooks are idle."""
        self._is_plain = self.trainer.accumulate_grad_batches == 1 and hooks_are_idle(
            self.trainer, self.trainer.lightning_module
        )

    def run(self, optimizer: Optimizer, batch_idx: int, kwargs: OrderedDict[str, Any]) -> dict[str, Any]:
        """The step of one batch."""
        if not self._is_plain:
            return super().run(optimizer, batch_idx, kwargs)
        progress, model = self.optim_progress.optimizer, self.trainer.lightning_module
        progress.step.increment_ready()
        model._current_fx_name = "training_step"
        if (captured := getattr(model, "captured", None)) is not None:
            loss = model.captured_step(captured, next(iter(kwargs.values())), optimizer)  # type: ignore[operator]
            model._current_fx_name = None
            progress.zero_grad.increment_ready()
            progress.zero_grad.increment_started()
            progress.zero_grad.increment_completed()
            progress.step.increment_completed()
            return {"loss": loss}
        loss = self.trainer.strategy.training_step(*kwargs.values())
        model._current_fx_name = None
        assert isinstance(loss, Tensor)
        progress.zero_grad.increment_ready()
        progress.zero_grad.increment_started()
        optimizer.zero_grad()
        progress.zero_grad.increment_completed()
        loss.backward()
        optimizer.step()
        progress.step.increment_completed()
        return {"loss": loss.detach()}


def hooks_are_idle(trainer: Trainer, model: LightningModule, *own: str) -> bool:
    """Whether nothing is done in a step but the step.

    Args:
        trainer: a Trainer with its callbacks.
        model: its model.
        own: hooks of the model that the caller answers for.
    """
    kind, precision, strategy = type(model), trainer.precision_plugin, type(trainer.strategy)
    return (
        strategy is SingleDeviceStrategy
        and (type(precision) is Precision or (type(precision) is MixedPrecision and precision.scaler is None))
        and not trainer.gradient_clip_val
        and type(trainer.profiler) in (NoProfiler, PassThroughProfiler)  # type: ignore[attr-defined]
        and all(getattr(kind, n) is getattr(LightningModule, n) for n in (*MODEL_HOOKS, *HOOKS) if n not in own)
        and not any(overrides(callback, name) for callback in trainer.callbacks for name in HOOKS)  # type: ignore[attr-defined]
    )


def know_arguments(trainer: Trainer) -> None:
    """Let the loop know what `training_step` takes, whose signature Lightning reads anew in each step.

    Args:
        trainer: a Trainer at the start of a fit.
    """
    if is_param_in_hook_signature(trainer.lightning_module.training_step, "batch_idx", min_args=2):
        trainer.fit_loop.epoch_loop._build_kwargs = _arguments  # type: ignore[method-assign]


def _arguments(kwargs: OrderedDict[str, Any], batch: Any, batch_idx: int) -> OrderedDict[str, Any]:
    kwargs["batch"], kwargs["batch_idx"] = batch, batch_idx
    return kwargs
