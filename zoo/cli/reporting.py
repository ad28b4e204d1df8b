"""What a run writes and shows while it trains."""

from __future__ import annotations

import csv
import io
import math
import time
from argparse import Namespace
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ProgressBar, Timer
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only
from tqdm import tqdm

from zoo.cli.summary import RunSummary
from zoo.engine.background import WRITER
from zoo.engine.boundary import BoundaryCallback
from zoo.engine.files import write_atomically

__all__ = ["Allowance", "MetricsFile", "RunCheckpoint", "StepBar"]


class RunCheckpoint(Checkpoint, BoundaryCallback):
    """Keeps `checkpoints/last.ckpt`, every n steps and at the end of training, and the one before as `previous.ckpt`.

    A checkpoint is taken at a boundary between batches, when all that belongs to its step is logged and validated, and
    written while training goes on; the next one, the end and every stop wait for it.
    Where the number of steps is not chosen, it is 250, which a GPU does in a second: so none is written within half a
    minute of the one before, and one process writes one after ten minutes at the latest.

    Args:
        folder: the run's folder.
        every_n_train_steps: steps between two checkpoints; None leaves it to steps and time.
        summary: what measures the training, from the end of one batch's callbacks to the end of the next batch.
        config: the configuration, which loggers get when training starts.

    Attributes:
        last_model_path: the latest checkpoint that is there, "" before the first.
        saved_step: its step.
        has_begun: whether training has.
    """

    default_steps, least_seconds, most_seconds = 250, 30.0, 600.0

    def __init__(
        self, folder: Path, every_n_train_steps: int | None, summary: RunSummary, config: dict[str, Any]
    ) -> None:
        super().__init__()
        self._saved_at = time.monotonic()
        self.path = folder / "checkpoints" / "last.ckpt"
        self.every_n_train_steps = every_n_train_steps
        self.last_model_path = ""
        self.saved_step = self._taken_step = 0
        self.finished = self.has_begun = False
        self._summary, self._config = summary, config

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell the log of metrics where the run goes on; a run shorter than the logging interval logs its last step."""
        self.saved_step = self._taken_step = trainer.global_step
        self.finished, self.has_begun = False, True
        self._saved_at = time.monotonic()
        self.last_model_path = str(self.path) if self.saved_step else ""
        steps = trainer.max_steps if trainer.max_steps > 0 else trainer.estimated_stepping_batches
        interval: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        trainer.log_every_n_steps = int(min(interval, steps))  # type: ignore[attr-defined]
        for logger in trainer.loggers:
            logger.log_hyperparams(self._config)
            if isinstance(logger, MetricsFile):
                logger.resume(trainer.global_step)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """What other callbacks did is no training."""
        self._summary.go_on()

    def on_boundary(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save if it is time."""
        if self._is_due(trainer):
            self._save(trainer, beside=True)
        self._summary.go_on()

    def _is_due(self, trainer: Trainer) -> bool:
        if self.every_n_train_steps is not None:
            return trainer.global_step % self.every_n_train_steps == 0
        seconds = time.monotonic() - self._saved_at
        if trainer.global_step % self.default_steps == 0:
            return bool(trainer.strategy.broadcast(seconds >= self.least_seconds))  # all ranks by one clock
        return trainer.world_size == 1 and seconds >= self.most_seconds

    def save_now(self, trainer: Trainer) -> Path:
        """Save the run, unless this step is saved already."""
        WRITER.wait()
        if self._taken_step != trainer.global_step:
            self._save(trainer)
        return self.path

    def _save(self, trainer: Trainer, *, beside: bool = False) -> None:
        """Save the run, beside training or before anything else happens."""
        step = trainer.global_step

        def saved() -> None:
            self.last_model_path, self.saved_step = str(self.path), step

        options: dict[str, Any] = {"keep": "previous.ckpt"}
        trainer.save_checkpoint(self.path, False, options | {"then": saved} if beside else options)
        if not beside:
            saved()
        self._taken_step, self._saved_at = step, time.monotonic()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the last step, and what other callbacks measured at the end: now the run is finished."""
        if trainer.is_global_zero:
            self._summary.write(trainer, pl_module)
        self.finished = True
        self._save(trainer)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Note whether the work at the end of training is done."""
        checkpoint["finished"] = self.finished


class Allowance(Timer):
    """Ends training after a time (`--trainer.max_time`), which each command has anew."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Leave what earlier commands took."""


class StepBar(ProgressBar):
    """One bar over all steps of the run, with the latest terms of the objectives."""

    def __init__(self) -> None:
        super().__init__()
        self._enabled = True
        self._bar: Any = None

    def disable(self) -> None:
        """Called on all ranks but the first."""
        self._enabled = False

    def enable(self) -> None:
        """The opposite of `disable`."""
        self._enabled = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start where the run starts."""
        total = trainer.max_steps if trainer.max_steps > 0 else trainer.estimated_stepping_batches
        self._bar = tqdm(
            total=None if math.isinf(total) else int(total),  # a run that ends by the clock
            initial=trainer.global_step,
            desc="Training",
            unit="step",
            disable=not self._enabled,
            mininterval=0.5,
        )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move on."""
        self._bar.update(trainer.global_step - self._bar.n)
        if trainer._logger_connector.should_update_logs:
            metrics = self.get_metrics(trainer, pl_module)
            self._bar.set_postfix({k: f"{v:.2f}" for k, v in metrics.items() if isinstance(v, float)}, refresh=False)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the last state on the screen."""
        self._bar.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the line to the error message."""
        if self._bar is not None:
            self._bar.close()

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Print above the bar."""
        if self._enabled:
            tqdm.write(" ".join(map(str, args)))


class MetricsFile(Logger):
    """Logs metrics to `metrics.csv` and hyperparameters to `hparams.yaml` of a run folder.

    There is one row per step, whoever logs its values and in which order, and rows are in the order of steps. A resumed
    run appends. The file is rewritten atomically, or a whole row is appended: a kill loses nothing that was there.

    Args:
        folder: the run's folder.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.path = folder / "metrics.csv"
        self._columns: list[str] = []
        self._rows: dict[int, dict[str, str]] | None = None

    @property
    def name(self) -> str:
        """No folder of its own within the run's."""
        return ""

    @property
    def version(self) -> str:
        """No folder of its own within the run's."""
        return ""

    @property
    def save_dir(self) -> str:
        """The run's folder."""
        return str(self.path.parent)

    @cached_property
    def _hparams(self) -> dict[str, Any]:
        """Hyperparameters so far; read when they are first asked for, when an earlier run has moved aside."""
        path = self.path.with_name("hparams.yaml")
        return dict(yaml.safe_load(path.read_text()) or {}) if path.exists() else {}

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Add hyperparameters to `hparams.yaml`."""
        values = vars(params) if isinstance(params, Namespace) else dict(params)
        self._hparams.update({str(key): _plain(value) for key, value in values.items()})
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path.with_name("hparams.yaml"), yaml.safe_dump(self._hparams))

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add a row, or to the row of the same step."""
        step = step or 0
        row = {"step": str(step)} | {key: repr(float(value)) for key, value in metrics.items()}
        # A value stands beside its protocol, where it has one.
        row |= {name: self._hparams[name] for key in metrics if (name := f"{key}_protocol") in self._hparams}
        rows = self._read()
        is_next = all(step > other for other in rows)
        rows[step] = rows.get(step, {}) | row
        if is_next and set(row) <= set(self._columns) and self.path.exists():
            with open(self.path, "a", newline="") as file:
                file.write(_csv(self._columns, [row], header=False))
        else:
            self._write()

    @rank_zero_only
    def resume(self, step: int) -> None:
        """Drop what a killed run logged of later steps, for it will come again."""
        rows = self._read()
        if late := [other for other in rows if other > step]:
            for other in late:
                del rows[other]
            self._write()

    def _read(self) -> dict[int, dict[str, str]]:
        """Rows by step, read when the first one is added."""
        if self._rows is None:
            self._rows = {}
            if self.path.exists():
                # A kill can leave a last row without an end.
                whole = self.path.read_text().rpartition("\n")[0]
                for row in csv.DictReader(io.StringIO(whole)):
                    if (row.get("step") or "").isdigit():
                        self._rows[int(row["step"])] = {k: v for k, v in row.items() if k and v}
        return self._rows

    def _write(self) -> None:
        rows = [row for _, row in sorted(self._read().items())]
        self._columns = list(dict.fromkeys(key for row in rows for key in row)) or ["step"]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path, _csv(self._columns, rows, header=True))


def _csv(columns: list[str], rows: list[dict[str, str]], *, header: bool) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        return value.item()
    return value if isinstance(value, str | int | float | bool | None) else str(value)
