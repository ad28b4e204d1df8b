"""The end of a training by what it has taken: images, or minutes."""

from __future__ import annotations

from time import perf_counter
from typing import Any, cast

import torch
from lightning.pytorch import LightningModule, Trainer

from zoo.base import GenerativeModel
from zoo.base.batches import image_of
from zoo.callbacks.base.measuring import MeasuringCallback
from zoo.engine.boundary import BoundaryCallback
from zoo.engine.ranges import CheckedOptions

__all__ = ["Budget"]


class Budget(CheckedOptions, BoundaryCallback):
    """Ends training once it has taken so many images or minutes, however often it was interrupted and resumed.

    Minutes are those of training alone: neither measurements and pictures nor the start of a command count. Along the
    way callbacks with `at_looks` measure at equal shares of the budget; their rows in the log say how much was taken.
    Rates that fall until the end of the run follow the share that is spent. Several ranks end at the same step: rank
    zero's clock is asked every 25 steps.

    It stands before all callbacks whose time does not count.

    Args:
        minutes: of training; None sets no end.
        images: seen by the model, of all ranks together; None sets no end.
        looks: number of measurements along the way.

    Attributes:
        seconds: of training so far.
        seen: images so far.

    Raises:
        ValueError: neither minutes nor images, or a number is too small.
    """

    asked_every = 25

    def __init__(self, *, minutes: float | None = None, images: int | None = None, looks: int = 0) -> None:
        super().__init__()
        if minutes is None and images is None:
            raise ValueError("a budget needs minutes, images or both")
        self.minutes, self.images, self.looks = minutes, images, looks
        self.seconds, self.seen = 0.0, 0
        self._since: float | None = None
        self._looked = 0  # looks that are done

    @property
    def share(self) -> float:
        """Share of the budget that is spent; 1 and more ends training."""
        shares = [self.seconds / (60 * self.minutes)] if self.minutes else []
        return max([*shares, self.seen / self.images] if self.images else shares)

    def state_dict(self) -> dict[str, Any]:
        """What was taken so far."""
        return {"seconds": self.seconds, "images": self.seen}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up what earlier commands took."""
        self.seconds, self.seen = state_dict["seconds"], state_dict["images"]
        self._looked = self._due()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A fit of its own has all of the budget."""
        if trainer.global_step == 0:
            self.seconds, self.seen, self._looked = 0.0, 0, 0
        self._since = None
        self._tell(pl_module, self.share)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """The command's first batch begins here."""
        if self._since is None:
            self._since = perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the batch; measure if a look is due, and end training if the budget is spent."""
        self.seconds += perf_counter() - cast(float, self._since)
        self.seen += len(image_of(batch)) * trainer.world_size
        if trainer.world_size > 1 and self.minutes:
            if trainer.global_step % self.asked_every:
                return
            self.seconds = trainer.strategy.broadcast(self.seconds)
        self._tell(pl_module, self.share)
        if self.share >= 1:
            trainer.should_stop = True
        elif self._due() > self._looked:
            self._looked = self._due()
            self._look(trainer, pl_module)

    def on_boundary(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The next batch begins."""
        self._since = perf_counter()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log what was taken, beside the values of the end."""
        self._log(trainer)
        self._tell(pl_module, None)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """The model may be trained another time without a budget."""
        self._tell(pl_module, None)

    def _due(self) -> int:
        """Looks that are due by now."""
        return min(self.looks, int(self.share * (self.looks + 1)))

    def _tell(self, model: LightningModule, share: float | None) -> None:
        """Tell the model which share of the run is done."""
        if isinstance(model, GenerativeModel):
            model.run_share = share

    def _look(self, trainer: Trainer, model: LightningModule) -> None:
        self._log(trainer)
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, MeasuringCallback) and callback.at_looks:
                callback.measure_now(trainer, model)

    def _log(self, trainer: Trainer) -> None:
        values = {"budget_seconds": self.seconds, "budget_images": float(self.seen)}
        trainer.callback_metrics.update({name: torch.tensor(value) for name, value in values.items()})
        if trainer.is_global_zero:
            for logger in trainer.loggers:
                logger.log_metrics(values, step=trainer.global_step)
