"""SIGTERM, SIGINT and Slurm's SIGUSR1: the run saves at the end of the batch and leaves, on all ranks together.

A handler only sets a flag, for whatever it called might wait for a rank that is elsewhere. Once a batch the ranks take
the largest flag of all, on the host and over gloo, so that nobody waits for a GPU; the answer is read one batch later,
when it is there. All ranks then save at the same boundary between two batches and leave with the usual exit code.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, Protocol, cast, runtime_checkable

import torch
import torch.distributed as dist
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.trainer.connectors.signal_connector import _SignalConnector
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch.utils.data import DataLoader

__all__ = ["SavesWhenStopped", "StopSignals", "Stopped", "rank_timeout", "shield_loaders", "shield_worker"]

ORPHAN_SECONDS = 30.0  # that a rank has to save and to leave when its launcher is gone


class Stopped(SystemExit):
    """A signal ended the run after it was saved; the exit code is 128 + the number of the signal.

    Attributes:
        signum: the signal.
        step: steps of the run.
        path: the checkpoint, None if the Trainer keeps none.
    """

    def __init__(self, signum: int, step: int, path: Path | None) -> None:
        super().__init__(128 + signum)
        self.signum, self.step, self.path = signum, step, path

    def __str__(self) -> str:
        kept = f"saved to {self.path}" if self.path else "nothing was saved (no checkpoint callback)"
        return f"stopped by {signal.Signals(self.signum).name} at step {self.step}, {kept}"


@runtime_checkable
class SavesWhenStopped(Protocol):
    """A callback that keeps the checkpoint from which its run goes on."""

    def save_now(self, trainer: Trainer) -> Path:
        """Save the run, unless this step is saved already."""
        ...


def rank_timeout() -> timedelta:
    """How long ranks wait for each other before the run fails: `ZOO_RANK_TIMEOUT` in seconds, else half an hour.

    Raises:
        ValueError: the variable is no number above 0.
    """
    text = os.environ.get("ZOO_RANK_TIMEOUT") or "1800"
    try:
        seconds = float(text)
        if not 0 < seconds < 1e9:
            raise ValueError
    except ValueError:
        raise ValueError(f"ZOO_RANK_TIMEOUT must be a number of seconds above 0, not {text!r}") from None
    return timedelta(seconds=seconds)


class StopSignals(_SignalConnector):
    """Lightning's handling of signals in a fit, with flags and an agreement once a batch."""

    def __init__(self, trainer: Trainer) -> None:
        super().__init__(cast(Any, trainer))
        self._pid = os.getpid()
        self._asked, self._first = 0, 0.0
        self._group: Any = None
        self._pending: tuple[Any, torch.Tensor] | None = None
        self._left = threading.Event()

    def register_signal_handlers(self) -> None:
        """Install the handlers, and the side channel of the ranks."""
        if self.trainer.state.fn != TrainerFn.FITTING:
            super().register_signal_handlers()
            return
        self.received_sigterm = False
        self._pid, self._asked, self._pending = os.getpid(), 0, None
        self._original_handlers = self._get_current_signal_handlers()
        for signum in (signal.SIGINT, signal.SIGTERM):
            self._register_signal(signum, self._ask)
        if (requeue := self._requeue_signal()) is not None and not self._has_already_handler(requeue):
            self._register_signal(requeue, self._ask)
        self._group = None
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            self._group = dist.new_group(backend="gloo", timeout=rank_timeout())
        if os.name == "posix" and ("TORCHELASTIC_RUN_ID" in os.environ or self.trainer.local_rank > 0):
            self._left.clear()
            threading.Thread(target=self._watch, args=(os.getppid(),), name="launcher-watch", daemon=True).start()

    def teardown(self) -> None:
        """Give back the handlers that were there before."""
        self._left.set()
        if self._pending is not None and not self.trainer.interrupted:
            with suppress(RuntimeError):  # a rank that left at once has all it needs
                self._pending[0].wait()
        self._pending = self._group = None
        super().teardown()

    def _requeue_signal(self) -> signal.Signals | None:
        environment = self.trainer._accelerator_connector.cluster_environment
        if isinstance(environment, SLURMEnvironment) and environment.auto_requeue:
            return environment.requeue_signal
        return None

    def _ask(self, signum: int, frame: FrameType | None) -> None:
        """The handler: note the signal; a second Ctrl-C, later than launchers repeat the first, stops at once."""
        if os.getpid() != self._pid:  # inherited by a process that was forked, such as a loader's worker
            if signum == signal.SIGTERM:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                os.kill(os.getpid(), signal.SIGTERM)
            return
        now = time.monotonic()
        if not self._asked:
            self._first = now
            if signum == signal.SIGINT and self.trainer.is_global_zero:
                os.write(2, b"\nstopping after this batch; Ctrl-C again stops at once, without saving\n")
        elif signum == signal.SIGINT and now - self._first > 2:
            raise KeyboardInterrupt
        self._asked = max(self._asked, self._weight(signum))

    def _weight(self, signum: int) -> int:
        """Signals in the order in which one of several counts: a requeue comes first."""
        return {signal.SIGINT: 1, signal.SIGTERM: 2}.get(signal.Signals(signum), 3)

    def _watch(self, launcher: int) -> None:
        """Stop when the launcher is gone, and leave soon whatever happens: nobody else would end this process."""
        while os.getppid() == launcher:
            if self._left.wait(1):
                return
        os.kill(os.getpid(), signal.SIGTERM)
        if not self._left.wait(ORPHAN_SECONDS):
            os._exit(128 + signal.SIGTERM)

    def stop_if_asked(self) -> None:
        """Save and leave if a rank was asked to stop; all ranks call this between the same two batches.

        Raises:
            Stopped: after the run was saved.
        """
        if asked := self._agreed():
            self._stop({1: signal.SIGINT, 2: signal.SIGTERM}.get(asked) or self._requeue_signal() or signal.SIGTERM)

    def _agreed(self) -> int:
        """The weightiest signal of all ranks, as it was a batch ago; without ranks as it is now."""
        if self._group is None:
            return self._asked
        if self._pending is not None:
            work, flag = self._pending
            work.wait()
            if asked := int(flag):
                return asked
        flag = torch.tensor([self._asked])
        self._pending = (dist.all_reduce(flag, dist.ReduceOp.MAX, self._group, async_op=True), flag)
        return 0

    def _stop(self, signum: signal.Signals) -> None:
        trainer = cast(Any, self.trainer)
        requeue = signum == self._requeue_signal()
        own = next((callback for callback in trainer.callbacks if isinstance(callback, SavesWhenStopped)), None)
        path = own.save_now(trainer) if own else self._path(requeue=requeue)
        if own is None and path is not None:
            trainer.save_checkpoint(path)
        stopped = Stopped(signum, trainer.global_step, path)
        rank_zero_info(str(stopped))
        if requeue and trainer.is_global_zero:
            _requeue()
        if processes := getattr(trainer.strategy.launcher, "procs", None):
            processes.clear()  # else Lightning would kill this process because those have left with an exit code
        raise stopped

    def _path(self, *, requeue: bool) -> Path | None:
        """Where a Trainer looks when it goes on: `ckpt_path="last"`, or by itself after a requeue."""
        trainer = cast(Any, self.trainer)
        if requeue:
            return Path(trainer._checkpoint_connector.hpc_save_path(trainer.default_root_dir))
        keepers = [callback for callback in trainer.callbacks if isinstance(callback, ModelCheckpoint)]
        for keeper in sorted(keepers, key=lambda callback: not callback.save_last):
            if keeper.dirpath is not None:
                return Path(keeper.dirpath, keeper.CHECKPOINT_NAME_LAST + keeper.FILE_EXTENSION)
        return None


def _requeue() -> None:
    """Put the Slurm job back into the queue."""
    job = os.environ.get("SLURM_JOB_ID", "")
    if array := os.environ.get("SLURM_ARRAY_JOB_ID"):
        job = f"{array}_{os.environ.get('SLURM_ARRAY_TASK_ID', '')}"
    if not re.fullmatch("[0-9_-]+", job):
        rank_zero_warn(f"SLURM_JOB_ID={job!r} is no number of a job: it was not put back into the queue")
        return
    try:
        result = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, check=False)
        failure = result.stderr.strip() or f"exit code {result.returncode}" if result.returncode else ""
    except OSError as error:
        failure = str(error)
    if failure:
        rank_zero_warn(f"job {job} was not put back into the queue: scontrol says {failure}")


_terms = 0


def _on_term_in_worker(signum: int, frame: FrameType | None) -> None:
    global _terms
    _terms += 1
    if _terms > 1:
        os._exit(0)


def shield_worker(worker: int) -> None:
    """Let a loader's worker live through a signal to the whole group: its rank needs batches until it has saved.

    The first SIGTERM is ignored; the worker ends with its rank, or at the second one.

    Args:
        worker: number of the worker, as loaders pass it.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if hasattr(signal, "SIGUSR1"):
            signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, _on_term_in_worker)


def shield_loaders(trainer: Trainer) -> None:
    """Shield the workers of every DataLoader that a Trainer is given.

    Args:
        trainer: a Trainer before its fit.
    """
    process = trainer.strategy.process_dataloader
    if getattr(process, "func", None) is not _shielded:
        trainer.strategy.process_dataloader = partial(_shielded, process)  # type: ignore[method-assign]


def _shielded(process: Callable[[object], object], loader: object) -> object:
    if isinstance(loader, DataLoader) and not isinstance(loader.worker_init_fn, _Shielded):
        loader.worker_init_fn = _Shielded(loader.worker_init_fn)
    return process(loader)


class _Shielded:
    """A loader's `worker_init_fn` after `shield_worker`; a class, so that it can be sent to a process."""

    def __init__(self, inner: Callable[[int], None] | None) -> None:
        self.inner = inner

    def __call__(self, worker: int) -> None:
        shield_worker(worker)
        if self.inner is not None:
            self.inner(worker)
