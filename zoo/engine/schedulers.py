"""Learning-rate schedulers under manual optimization, where Lightning steps none."""

from __future__ import annotations

from typing import Literal

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch.optim.lr_scheduler import ReduceLROnPlateau

__all__ = ["step_schedulers", "warn_of_plateaus"]


def step_schedulers(trainer: Trainer, model: LightningModule, interval: Literal["step", "epoch"], count: int) -> None:
    """Step what `configure_optimizers` returned as schedulers, as Lightning does under automatic optimization.

    Args:
        trainer: the Trainer.
        model: its model.
        interval: what has just ended.
        count: how many of these have ended.
    """
    for config in trainer.lr_scheduler_configs:
        due = config.interval == interval and count % config.frequency == 0
        if due and not isinstance(config.scheduler, ReduceLROnPlateau):
            model.lr_scheduler_step(config.scheduler, None)


def warn_of_plateaus(trainer: Trainer) -> None:
    """Say that nobody steps a scheduler that waits for a value: Lightning drops the name of the value.

    Args:
        trainer: a Trainer at the start of a fit.
    """
    if any(isinstance(config.scheduler, ReduceLROnPlateau) for config in trainer.lr_scheduler_configs):
        rank_zero_warn(
            "with several optimizers nothing steps ReduceLROnPlateau: call lr_schedulers().step(value) in "
            "on_validation_epoch_end"
        )
