"""Run folders: `runs/<name>/` with config.yaml, checkpoints/, samples/ and metrics.csv, resumed by the same command."""

from __future__ import annotations

import csv
import io
import os
from argparse import Namespace
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, ProgressBar
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only
from tqdm import tqdm

from zoo.migrations import current_names

__all__ = ["MetricsFile", "RunCheckpoint", "RunFolder", "StepBar", "global_rank", "write_atomically"]

# What may differ when a run is resumed, because it cannot change the result.
FREE = (
    "trainer.enable_progress_bar",
    "trainer.enable_model_summary",
    "trainer.profiler",
    "trainer.logger",
    "trainer.default_root_dir",
    "data.init_args.num_workers",
    "data.init_args.cache_dir",
)
# And this too where the batches of a step do not depend on it: in models that say how large they are.
FREE_WITH_SCHEDULE = ("trainer.devices", "trainer.num_nodes", "trainer.strategy")


def global_rank() -> int:
    """Rank of this process as its launcher has set it, before any process group exists; 0 on the first process only."""
    for name in ("RANK", "SLURM_PROCID"):
        if os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    # Lightning's own launcher numbers the processes of each node, and the nodes.
    return int(os.environ.get("LOCAL_RANK") or 0) + int(
        os.environ.get("NODE_RANK") or os.environ.get("GROUP_RANK") or 0
    )


def write_atomically(path: Path, text: str) -> None:
    """Write a text file that is whole or absent.

    Raises:
        OSError: it could not be written; an earlier file is unchanged.
    """
    temporary = _temporary(path)
    try:
        with open(temporary, "w", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OSError(f"cannot write {path}: {error.strerror or error}") from error


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.tmp")


def _leaves(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(tree, Mapping) and tree:
        for key in sorted(tree, key=str):
            yield from _leaves(tree[key], f"{prefix}{key}.")
    elif isinstance(tree, list) and tree:
        for i, value in enumerate(tree):
            yield from _leaves(value, f"{prefix}{i}.")
    else:
        yield prefix.removesuffix("."), tree


def first_difference(old: Any, new: Any, free: tuple[str, ...] = FREE) -> tuple[str, Any, Any] | None:
    """First key, in alphabetical order, whose value differs in two configurations, and both values; `free` may."""
    before, after = dict(_leaves(old)), dict(_leaves(new))
    for key in sorted(before.keys() | after.keys()):
        if before.get(key) != after.get(key) and not key.startswith(free):
            return key, before.get(key, "not set"), after.get(key, "not set")
    return None


class RunFolder:
    """The folder of one run.

    Args:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.yaml"

    @property
    def last(self) -> Path:
        """The latest checkpoint."""
        return self.path / "checkpoints" / "last.ckpt"

    def set_aside(self) -> Path | None:
        """Rename the folder to the first free `<name>.1`, `<name>.2`, ...; None if there is no folder."""
        if not self.path.exists():
            return None
        number = 1
        while (target := self.path.with_name(f"{self.path.name}.{number}")).exists():
            number += 1
        self.path.rename(target)
        return target

    def check(self, config: dict[str, Any], *, scheduled: bool = False) -> Path | None:
        """Make sure that the folder is this configuration's; nothing is written.

        Args:
            config: the resolved configuration.
            scheduled: the model says how many images a step has, so that the number of devices may change.

        Returns:
            The checkpoint to resume from; None starts from scratch.

        Raises:
            ValueError: the folder holds a run with another configuration, or something else.
        """
        if self.config.exists():
            if not self.last.exists() and not self.path.joinpath("metrics.csv").exists():
                return None  # it failed before its first step: there is nothing to go on with, and nothing to lose
            old = current_names(yaml.safe_load(self.config.read_text()))
            free = FREE + FREE_WITH_SCHEDULE if scheduled else FREE
            if difference := first_difference(old, config, free):
                key, before, after = difference
                raise ValueError(
                    f"{self.path} holds a run with {key}: {before!r}, this command has {after!r}; "
                    "repeat the earlier command to resume it, or take --fresh or another --name"
                )
            return self.last if self.last.exists() else None
        # Another rank may be writing the configuration at this moment: see `write_atomically`.
        if self.path.exists() and any(path != _temporary(self.config) for path in self.path.iterdir()):
            if self.config.exists():  # it was just written
                return self.check(config, scheduled=scheduled)
            raise ValueError(f"{self.path} is not empty and holds no run (no config.yaml): take another --name")
        return None

    def claim(self, config: dict[str, Any]) -> None:
        """Make the folder and write the configuration into it (rank zero only).

        Args:
            config: the resolved configuration.

        Raises:
            OSError: it cannot be written to.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            write_atomically(self.config, yaml.safe_dump(config, sort_keys=False))
        except OSError as error:
            raise OSError(f"cannot make the run folder {self.path}: {error.strerror or error}") from error

    def finished(self, max_steps: int, max_epochs: int | None) -> int | None:
        """Steps of the run if its last checkpoint has reached the end that is asked for, else None."""
        from zoo.loop import AtomicCheckpointIO

        checkpoint = AtomicCheckpointIO().load_checkpoint(self.last)
        steps = int(checkpoint["global_step"])
        epochs = int(checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["completed"])
        done = (max_steps > 0 and steps >= max_steps) or (max_epochs not in (None, -1) and epochs >= max_epochs)
        return steps if done else None


class RunCheckpoint(ModelCheckpoint):
    """Keeps `checkpoints/last.ckpt`, every so many steps and at the end of training.

    Args:
        folder: the run's folder.
        every_n_train_steps: steps between two checkpoints.
    """

    def __init__(self, folder: Path, every_n_train_steps: int = 250) -> None:
        super().__init__(
            dirpath=folder / "checkpoints",
            every_n_train_steps=every_n_train_steps,
            save_last=True,
            save_top_k=0,
            enable_version_counter=False,
        )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell the log of metrics where the run goes on."""
        super().on_train_start(trainer, pl_module)
        for logger in trainer.loggers:
            if isinstance(logger, MetricsFile):
                logger.resume(trainer.global_step)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the last step, and what other callbacks measured at the end."""
        super().on_train_end(trainer, pl_module)
        trainer.save_checkpoint(Path(self.dirpath or "", "last.ckpt"), weights_only=False)


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
        total = trainer.max_steps if trainer.max_steps > 0 else int(trainer.estimated_stepping_batches)
        self._bar = tqdm(
            total=total,
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
