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
from pathlib import Path
from typing import Any

from tqdm import tqdm

from zoo.bench.plan import Plan, Run

__all__ = ["Outcome", "run_all", "shard_of"]

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
    """

    run: Run
    process: subprocess.Popen[bytes]
    slot: int
    since: float


def run_all(
    plan: Plan,
    runs: Sequence[Run],
    *,
    jobs: int = 1,
    fresh: Sequence[str] = (),
    wandb: bool = False,
    quiet: bool = False,
) -> Outcome:
    """Train what is not finished. A run that another process trains is waited for, and taken over if that one dies.

    Args:
        plan: the plan, which is written.
        runs: its runs that this worker takes.
        jobs: number of runs at a time.
        fresh: names of runs that start anew.
        wandb: log to Weights & Biases, all runs in the group of the suite.
        quiet: show no progress bar.

    Raises:
        KeyboardInterrupt: the user interrupts: the runs stop at their next step and go on with the same command.
    """
    outcome, waiting, workers = Outcome(), list(runs), list[Worker]()
    ready_at: dict[str, float] = {}
    seconds: list[float] = []
    bar = tqdm(total=len(waiting), desc=plan.suite.name, unit="run", disable=quiet, bar_format=BAR)
    with bar, _stopping(workers):
        while waiting or workers:
            for worker in [w for w in workers if w.process.poll() is not None]:
                workers.remove(worker)
                if _is_busy(worker):
                    waiting.append(worker.run)
                    ready_at[worker.run.name] = time.monotonic() + BUSY
                elif worker.process.returncode:
                    outcome.failed[worker.run.name] = _last_line(worker.run.log)
                    tqdm.write(f"{worker.run.name} failed: {outcome.failed[worker.run.name]} ({worker.run.log})")
                else:
                    outcome.done.append(worker.run.name)
                    seconds.append(time.monotonic() - worker.since)
            free = [slot for slot in range(jobs) if slot not in {w.slot for w in workers}]
            for slot in free:
                run = next((r for r in waiting if ready_at.get(r.name, 0.0) <= time.monotonic()), None)
                if run is None:
                    break
                waiting.remove(run)
                if run.name not in fresh and run.is_finished:
                    outcome.skipped.append(run.name)
                    continue
                workers.append(
                    Worker(run, _started(plan, run, slot, jobs, run.name in fresh, wandb), slot, time.monotonic())
                )
            _show(bar, outcome, workers, _expected(plan, seconds))
            if waiting or workers:
                time.sleep(POLL)
    return outcome


# Inside --------------------------------------------------------------------------------------------------------------

BAR = "{desc}: {n:.1f}/{total} runs |{bar}| {elapsed}<{remaining} {postfix}"


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
    return worker.process.returncode == 2 and f"trains in {worker.run.folder}" in _last_line(worker.run.log)


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1].removeprefix("zoo: error: ") if lines else "it printed nothing"


def _expected(plan: Plan, seconds: Sequence[float]) -> float:
    """Seconds that a run may take: as long as those before it, or else the budget's minutes."""
    if seconds:
        return sum(seconds) / len(seconds)
    return 60 * plan.suite.budget.get("minutes", float("inf"))


def _show(bar: Any, outcome: Outcome, workers: Sequence[Worker], expected: float) -> None:
    over = len(outcome.done) + len(outcome.skipped) + len(outcome.failed)
    shares = [min(0.99, (time.monotonic() - worker.since) / expected) for worker in workers]
    bar.n = over + sum(shares)
    bar.set_postfix_str(", ".join(worker.run.name for worker in workers), refresh=False)
    bar.refresh()


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
