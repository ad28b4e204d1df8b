"""Running the runs of a plan: each a process of `zoo fit`, several at a time, whatever becomes of the others."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tqdm import tqdm

from zoo.bench.plan import Plan, Run
from zoo.bench.rows import last_line
from zoo.cli.run_lock import RunLock

__all__ = ["Outcome", "Runner", "shard_of"]

POLL = 0.5
"""Seconds between two looks at the processes."""

BUSY = 5.0
"""Seconds before a run is tried again that another process trains."""


@dataclass
class Outcome:
    """What became of the runs, by name.

    Attributes:
        done: finished now.
        skipped: finished before.
        failed: with the last line of their output.
    """

    done: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


def shard_of(runs: Sequence[Run], shard: str | None) -> list[Run]:
    """The runs of one of several workers.

    Args:
        runs: all runs.
        shard: "I/N", the worker's number from 0 and their number; None takes all.

    Raises:
        ValueError: the shard is none.
    """
    if shard is None:
        return list(runs)
    match = re.fullmatch(r"(\d+)/(\d+)", shard)
    if not match or not int(match[1]) < int(match[2]):
        raise ValueError(f"--shard is I/N with I from 0 to N - 1, such as 0/2 and 1/2, not {shard!r}")
    return list(runs)[int(match[1]) :: int(match[2])]


@dataclass
class Worker:
    """A process that trains a run.

    Attributes:
        run: the run.
        process: the process.
        slot: number of its place among those that run at a time.
        since: when it began.
        claim: what keeps other workers off the run.
    """

    run: Run
    process: subprocess.Popen[bytes]
    slot: int
    since: float
    claim: RunLock


class Runner:
    """Trains runs of a plan that are not finished, each in a process of `zoo fit`.

    A run that another process trains is waited for, and taken over if that one dies.

    Args:
        plan: the plan, which is written.
        runs: its runs that this worker takes.
        jobs: number of runs at a time.
        fresh: names of runs that start anew.
        wandb: log to Weights & Biases, all runs in the group of the suite.
    """

    def __init__(
        self,
        plan: Plan,
        runs: Sequence[Run],
        *,
        jobs: int = 1,
        fresh: Sequence[str] = (),
        wandb: bool = False,
    ) -> None:
        self.plan, self.jobs, self.fresh, self.wandb = plan, jobs, fresh, wandb
        self.outcome = Outcome()
        self.waiting, self.workers = list(runs), list[Worker]()
        self._not_before: dict[str, float] = {}  # when a run that another process trains is tried again
        self._seconds: list[float] = []  # that finished runs took

    def run(self) -> Outcome:
        """Train all runs.

        Raises:
            KeyboardInterrupt: the user interrupts: the runs stop at their next step and go on with the same command.
        """
        name, total = self.plan.suite.name, len(self.waiting)
        bar = tqdm(total=total, desc=name, unit="run", disable=None, bar_format=BAR)
        with bar, _stopping(self.workers):
            while self.waiting or self.workers:
                for worker in [w for w in self.workers if w.process.poll() is not None]:
                    self._end(worker)
                for slot in {*range(self.jobs)} - {w.slot for w in self.workers}:
                    self._begin(slot)
                self._show(bar)
                if self.waiting or self.workers:
                    time.sleep(POLL)
        return self.outcome

    def _begin(self, slot: int) -> None:
        """Start the next run that is not finished and that nobody else trains, if there is one."""
        now = time.monotonic()
        for run in [r for r in self.waiting if self._not_before.get(r.name, now) <= now]:
            claim = _claim(self.plan, run)
            if claim is None:
                self._not_before[run.name] = now + BUSY
                continue
            self.waiting.remove(run)
            is_fresh = run.name in self.fresh
            if is_fresh or not run.is_finished:
                process = _started(self.plan, run, slot, self.jobs, is_fresh, self.wandb)
                self.workers.append(Worker(run, process, slot, now, claim))
                return
            self.outcome.skipped.append(run.name)
            claim.release()

    def _end(self, worker: Worker) -> None:
        """Note what became of a run."""
        self.workers.remove(worker)
        worker.claim.release()
        name = worker.run.name
        if not worker.process.returncode:
            self.outcome.done.append(name)
            self._seconds.append(time.monotonic() - worker.since)
            tqdm.write(f"{name}: finished after {self._seconds[-1]:.0f} s, measurements and all")
        elif _is_busy(worker):
            self.waiting.append(worker.run)
            self._not_before[name] = time.monotonic() + BUSY
        else:
            self.outcome.failed[name] = last_line(worker.run.log).removeprefix("zoo: error: ") or "it printed nothing"
            tqdm.write(f"{name}: failed: {self.outcome.failed[name]} ({worker.run.log})")

    def _show(self, bar: Any) -> None:
        """Move the bar on: a run takes as long as those before it, or else the budget's minutes."""
        found, over = self.outcome, 0.0
        expected = 60 * self.plan.suite.budget.get("minutes", float("inf"))
        if self._seconds:
            expected = sum(self._seconds) / len(self._seconds)
        for worker in self.workers:
            over += min(0.99, (time.monotonic() - worker.since) / expected)
        bar.n = len(found.done) + len(found.skipped) + len(found.failed) + over
        bar.initial = len(found.skipped)  # took no time, so the time left does not count on them
        bar.set_postfix_str(", ".join(worker.run.name for worker in self.workers), refresh=False)
        bar.refresh()


# Inside --------------------------------------------------------------------------------------------------------------

BAR = "{desc}: {n:.1f}/{total} runs |{bar}| {elapsed}<{remaining} {postfix}"


def _claim(plan: Plan, run: Run) -> RunLock | None:
    """What keeps other workers off a run while its process starts; None if another one has it.

    The process has a lock of its own, which outlives this one if this process is killed.
    """
    try:
        return RunLock(plan.folder / ".claims" / run.name)
    except ValueError:
        return None


def _started(plan: Plan, run: Run, slot: int, jobs: int, fresh: bool, wandb: bool) -> subprocess.Popen[bytes]:
    """The process of a run."""
    runs_dir = plan.folder.parents[1]
    command = [sys.executable, "-m", "zoo", "fit", "--config", str(run.config), "--seed_everything", str(run.seed)]
    command += ["--runs_dir", str(runs_dir), "--name", str(run.folder.relative_to(runs_dir))]
    command += (["--fresh"] if fresh else []) + (["--wandb"] if wandb else [])
    environment = dict(os.environ)
    if jobs > 1:
        environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // jobs)))
        if gpus := _gpus():
            environment["CUDA_VISIBLE_DEVICES"] = gpus[slot % len(gpus)]
    environment.setdefault("WANDB_RUN_GROUP", plan.suite.name)
    environment.setdefault("WANDB_TAGS", f"{plan.suite.name},{run.entry}")
    with open(run.log, "ab") as log:
        return subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=environment
        )


def _gpus() -> list[str]:
    """The GPUs that processes can be given, as `CUDA_VISIBLE_DEVICES` names them."""
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",") if named else [str(i) for i in range(torch.cuda.device_count())]


def _is_busy(worker: Worker) -> bool:
    """Whether a process ended because another one trains the run."""
    return worker.process.returncode == 2 and f"trains in {worker.run.folder}" in last_line(worker.run.log)


@contextmanager
def _stopping(workers: list[Worker]) -> Iterator[None]:
    """Whatever ends this process in an orderly way ends those that it started: they save, and go on another time."""

    def stop(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop) if _is_main_thread() else None
    try:
        yield
    finally:
        for worker in workers:
            if worker.process.poll() is None:
                worker.process.terminate()
        for worker in workers:
            worker.process.wait()
        if before is not None:
            signal.signal(signal.SIGTERM, before)


def _is_main_thread() -> bool:
    import threading

    return threading.current_thread() is threading.main_thread()
