"""Boundaries between batches: the places where a run can be saved and goes on as if nothing had happened.

Lightning's callbacks save at the end of a batch: before its values are logged, before the validation and the end of the
epoch that may follow. A run that is killed between the two and resumed never does what followed. At a boundary all of
it is done: the loops here call `on_boundary` of every callback that has it, look whether somebody asked the run to
stop, and go on from a checkpoint of a boundary with the next batch. After the last batch there is no boundary: the work
at the end of training comes first, and a run that is killed in it does the last steps again.
"""

from __future__ import annotations

from typing import Any, cast

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loops.fetchers import _DataFetcher
from lightning.pytorch.loops.fit_loop import _FitLoop
from lightning.pytorch.loops.progress import _ProcessedTracker
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop

from zoo.engine.lean_loop import LeanEpochLoop

__all__ = ["BoundaryCallback", "install_boundaries", "note_position", "resume_at_boundary"]


class BoundaryCallback(Callback):
    """A callback with a hook between batches."""

    def on_boundary(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Called when a batch and all that follows from it is done, unless it was the last one."""


class BoundaryEpochLoop(LeanEpochLoop):
    """Lightning's loop over the batches of an epoch, with boundaries."""

    resumes: bool = False  # a checkpoint of a boundary was loaded

    def reset(self) -> None:
        """Go on with the next batch: neither the end of the batch before nor its validation is due again."""
        resumes, self.resumes = self.resumes, False
        fresh = resumes and self.batch_progress.current.ready == 0  # the checkpoint lies between two epochs
        if fresh:
            self.restarting = False
        super().reset()
        if resumes:
            self.restarting = False

    def on_advance_end(self, data_fetcher: _DataFetcher) -> None:
        """A boundary, unless the end of the epoch follows."""
        super().on_advance_end(data_fetcher)
        if not self.done:
            _boundary(self.trainer)

    def _broadcast_sigterm_tensor(self) -> None:
        """Nothing: Lightning makes every rank wait for the device here; ours agree in `StopSignals`."""


class BoundaryFitLoop(_FitLoop):
    """Lightning's loop over epochs, with a boundary between two epochs."""

    at_boundary: bool = False
    callbacks: tuple[BoundaryCallback, ...] = ()

    def on_run_start(self) -> None:
        """Find the callbacks that have the hook."""
        self.callbacks = tuple(c for c in self.trainer.callbacks if isinstance(c, BoundaryCallback))  # type: ignore[attr-defined]
        super().on_run_start()

    def on_advance_end(self) -> None:
        """A boundary, unless training ends."""
        super().on_advance_end()
        steps, epochs = self.trainer.max_steps, self.max_epochs
        ends = 0 <= steps <= self.epoch_loop.global_step
        processed = cast(_ProcessedTracker, self.epoch_progress.current).processed
        ends |= epochs is not None and 0 <= epochs <= processed
        if not (ends or (self.trainer.should_stop and self._can_stop_early)):
            _boundary(self.trainer)


def _boundary(trainer: Trainer) -> None:
    loop = cast(BoundaryFitLoop, trainer.fit_loop)
    loop.at_boundary = True
    try:
        for callback in loop.callbacks:
            callback.on_boundary(trainer, trainer.lightning_module)
        cast(Any, trainer)._signal_connector.stop_if_asked()
    finally:
        loop.at_boundary = False


def install_boundaries(trainer: Trainer) -> None:
    """Give a Trainer loops with boundaries.

    Args:
        trainer: a Trainer before its fit.
    """
    for loop, ours in ((trainer.fit_loop, BoundaryFitLoop), (trainer.fit_loop.epoch_loop, BoundaryEpochLoop)):
        if type(loop) in (_FitLoop, _TrainingEpochLoop):
            # Others hold references to these two, so they stay the same objects.
            cast(Any, loop).__class__ = ours


def note_position(trainer: Trainer, checkpoint: dict[str, Any]) -> bool:
    """Whether a checkpoint is of a boundary; its loops are then made to go on with the next batch.

    At the end of training, too, everything is done: a checkpoint from there serves a run that is made longer.

    Args:
        trainer: the Trainer that saves.
        checkpoint: what it is about to save.
    """
    loop = trainer.fit_loop
    epoch, batches = cast(_ProcessedTracker, loop.epoch_progress.current), loop.epoch_loop.batch_progress
    ended = epoch.ready == epoch.started == epoch.processed == epoch.completed > 0
    if not (ended or getattr(loop, "at_boundary", False)) or "loops" not in checkpoint:
        return False
    saved = checkpoint["loops"]["fit_loop"]
    if ended and not batches.is_last_batch and batches.current.ready < trainer.num_training_batches:
        # Training ended within an epoch, which the run can still finish.
        for counts in saved["epoch_progress"].values():
            counts["processed"] -= 1
            counts["completed"] -= 1
    elif ended:
        saved["epoch_loop.batch_progress"]["current"] = dict.fromkeys(("ready", "completed", "started", "processed"), 0)
        saved["epoch_loop.batch_progress"]["is_last_batch"] = False
    return True


def resume_at_boundary(trainer: Trainer) -> None:
    """Say that the checkpoint from which a Trainer goes on is of a boundary.

    Args:
        trainer: the Trainer.
    """
    cast(Any, trainer.fit_loop.epoch_loop).resumes = True
