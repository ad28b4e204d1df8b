"""Callbacks that measure values while a model trains: when, what is kept, and where the values are logged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from tqdm import tqdm

from zoo.callbacks.base.evaluating import Result
from zoo.engine.ranges import CheckedOptions

__all__ = ["MeasuringCallback"]


class MeasuringCallback(CheckedOptions, Callback):
    """Measures at given steps or epochs, at the start and at the end; subclasses define `evaluate`.

    Each value goes to the loggers and, with its protocol, to the terminal; the protocol also goes to the loggers'
    hyperparameters and into metrics.csv. Of several values, the first is the callback's own.

    Args:
        every_n_epochs: epochs between values; None measures at no epoch.
        every_n_steps: training steps between values; None measures at no step.
        at_start: measure the untrained model.
        at_end: measure the trained model.
        at_looks: measure at equal shares of a budget (`zoo.callbacks.Budget(looks=...)`).

    Attributes:
        results: the latest result of each metric.
        histories: all (step, value) of the run of each metric.

    Raises:
        ValueError: a number is too small.
    """

    higher_is_better = False

    def __init__(
        self,
        every_n_epochs: int | None = None,
        every_n_steps: int | None = None,
        *,
        at_start: bool = False,
        at_end: bool = True,
        at_looks: bool = False,
    ) -> None:
        super().__init__()
        self.every_n_epochs = every_n_epochs
        self.every_n_steps = every_n_steps
        self.at_start = at_start
        self.at_end = at_end
        self.at_looks = at_looks
        self.results: dict[str, Result] = {}
        self.histories: dict[str, list[tuple[int, float]]] = {}

    def evaluate(self, trainer: Trainer, model: LightningModule) -> Result | Sequence[Result]:
        """Measure now; called on every rank."""
        raise NotImplementedError(f"{type(self).__name__} does not say what it measures")

    @property
    def last(self) -> Result | None:
        """The latest result, None before the first."""
        return next(iter(self.results.values()), None)

    @property
    def history(self) -> list[tuple[int, float]]:
        """All (step, value) of the run."""
        return next(iter(self.histories.values()), [])

    @property
    def best(self) -> tuple[int, float] | None:
        """Step and value of the best measurement, None before the first."""
        choose = max if self.higher_is_better else min
        return choose(self.history, key=lambda entry: entry[1], default=None)

    @property
    def protocol(self) -> str | None:
        """Protocol of the values, None before the first."""
        return self.last.protocol if self.last else None

    def state_dict(self) -> dict[str, Any]:
        """Last, best and all values of the run; of several metrics under `metrics`."""
        last = None if self.last is None else vars(self.last)
        state = {"last": last, "best": self.best, "history": list(self.history)}
        if len(self.results) > 1:
            state["metrics"] = {
                name: {"last": vars(result), "history": list(self.histories[name])}
                for name, result in self.results.items()
            }
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the values of the run so far."""
        metrics = state_dict.get("metrics")
        if metrics is None:
            last = state_dict["last"]
            metrics = {} if last is None else {last["metric"]: {"last": last, "history": state_dict["history"]}}
        self.results = {name: Result(**kept["last"]) for name, kept in metrics.items()}
        self.histories = {
            name: [(int(step), float(value)) for step, value in kept["history"]] for name, kept in metrics.items()
        }

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the untrained model; a resumed run continues with the last value, as an uninterrupted one would."""
        if trainer.global_step == 0:
            self.results, self.histories = {}, {}  # of an earlier fit
            if self.at_start:
                self.measure_now(trainer, pl_module)
        else:
            for name, result in self.results.items():
                trainer.callback_metrics[name] = torch.tensor(result.value)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Measure if the step or the epoch is due.

        The end of an epoch is its last batch: then the value is there before validation and before any checkpoint,
        written after a step, after validation or after the epoch.
        """
        step = trainer.global_step
        epochs = trainer.current_epoch + 1
        due = bool(self.every_n_steps) and step % cast(int, self.every_n_steps) == 0
        if trainer.is_last_batch and self.every_n_epochs and epochs % self.every_n_epochs == 0:
            due = True
        if self.at_end and (step == trainer.max_steps or (trainer.is_last_batch and epochs == trainer.max_epochs)):
            due = True
        if due:
            self.measure_now(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the trained model, if training ended at another step than planned."""
        if self.at_end:
            self.measure_now(trainer, pl_module)

    def measure_now(self, trainer: Trainer, model: LightningModule) -> None:
        """Measure, unless this step is measured already; every rank must call this."""
        if self.history and self.history[-1][0] == trainer.global_step:
            return
        found = self.evaluate(trainer, model)
        for result in [found] if isinstance(found, Result) else found:
            self._keep(trainer, result)

    def _keep(self, trainer: Trainer, result: Result) -> None:
        step, name = trainer.global_step, result.metric
        self.results[name] = result
        self.histories.setdefault(name, []).append((step, result.value))
        # ModelCheckpoint and schedulers read this dict; `self.log` would reach loggers only at logging steps.
        trainer.callback_metrics[name] = torch.tensor(result.value)
        if not trainer.is_global_zero:
            return
        for logger in trainer.loggers:
            announced = vars(logger).setdefault("announced_protocols", {})  # by any callback
            if result.protocol != announced.get(name):
                # TensorBoard shows only the hyperparameters that it was given last.
                known = dict(logger.hparams) if isinstance(logger, TensorBoardLogger) else {}
                logger.log_hyperparams({**known, f"{name}_protocol": result.protocol})
                announced[name] = result.protocol
            values: dict[str, Any] = {name: result.value, "epoch": trainer.current_epoch}
            if isinstance(logger, CSVLogger):
                values[f"{name}_protocol"] = result.protocol
            logger.log_metrics(values, step=step)
            logger.save()
        tqdm.write(f"step {step}: {name} {result.value:.4g} {result.protocol} ({result.seconds:.0f} s)")
