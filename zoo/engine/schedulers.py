"""Learning-rate schedulers under manual optimization, where Lightning steps none."""

from __future__ import annotations

from typing import Any, Literal, cast

from lightning.pytorch import LightningModule, Trainer

__all__ = ["step_schedulers"]


def step_schedulers(trainer: Trainer, model: LightningModule, interval: Literal["step", "epoch"], count: int) -> None:
    """Step what `configure_optimizers` returned as schedulers, as Lightning does under automatic optimization.

    Args:
        trainer: the Trainer.
        model: its model.
        interval: what has just ended.
        count: how many of these have ended.

    Raises:
        ValueError: a scheduler waits for a value that nothing has logged.
    """
    for config in trainer.lr_scheduler_configs:
        if config.interval != interval or count % config.frequency:
            continue
        value: Any = None
        if config.reduce_on_plateau:
            value = trainer.callback_metrics.get(cast(str, config.monitor))
            if value is None and config.strict:
                known = ", ".join(sorted(trainer.callback_metrics)) or "nothing"
                raise ValueError(f"a scheduler waits for {config.monitor!r}, but what is logged is {known}")
            if value is None:
                continue
        model.lr_scheduler_step(config.scheduler, value)
