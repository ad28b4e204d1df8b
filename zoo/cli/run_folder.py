"""Run folders: `runs/<name>/` with config.yaml, checkpoints/, samples/ and metrics.csv, resumed by the same command."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from zoo.cli.messages import load_settings
from zoo.cli.run_lock import LOCK, RunLock
from zoo.engine.files import write_atomically
from zoo.pretrained.migrations import current_names

__all__ = ["RunFolder", "global_rank"]


def global_rank() -> int:
    """Rank of this process as its launcher has set it, before any process group exists; 0 on the first process only."""
    for name in ("RANK", "SLURM_PROCID"):
        if os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    # Lightning's own launcher numbers the processes of each node, and the nodes.
    return int(os.environ.get("LOCAL_RANK") or 0) + int(
        os.environ.get("NODE_RANK") or os.environ.get("GROUP_RANK") or 0
    )


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

    @property
    def previous(self) -> Path:
        """The checkpoint before the latest one."""
        return self.last.with_name("previous.ckpt")

    def set_aside(self) -> Path | None:
        """Rename the folder to the first free `<name>.1`, `<name>.2`, ...; None if there is no folder.

        Raises:
            ValueError: another process trains in it.
        """
        if not self.path.exists():
            return None
        RunLock(self.path).release()
        number = 1
        while (target := self.path.with_name(f"{self.path.name}.{number}")).exists():
            number += 1
        self.path.rename(target)
        return target

    def check(self) -> dict[str, Any] | None:
        """Make sure that the folder is a run's, or free; nothing is written.

        Returns:
            The configuration of the run that has begun here; None if none has.

        Raises:
            ValueError: the folder holds something else.
        """
        if self.config.exists():
            if not self._checkpoints() and not self.path.joinpath("metrics.csv").exists():
                return None  # it failed before its first step: there is nothing to go on with, and nothing to lose
            held: dict[str, Any] = current_names(load_settings(self.config))
            return held
        # Another rank may be writing the configuration at this moment: see `write_atomically`.
        passing = (LOCK, f".{self.config.name}.tmp")
        if self.path.exists() and any(path.name not in passing for path in self.path.iterdir()):
            if self.config.exists():  # it was just written
                return self.check()
            raise ValueError(f"{self.path} is not empty and holds no run (no config.yaml): take another --name")
        return None

    def checkpoint(self) -> Path | None:
        """The checkpoint that a run that has begun goes on from; says so if it is not the one that should be there."""
        found = next(iter(self._checkpoints()), None)
        if found != self.last and global_rank() == 0:
            then = f"it goes on from {found}" if found else "it starts at step 0"
            print(f"{self.last} is missing although the run has begun: {then}")
        return found

    def _checkpoints(self) -> list[Path]:
        """The checkpoints that are there, the latest first."""
        return [path for path in (self.last, self.previous) if path.exists()]

    def claim(self, config: dict[str, Any], steps: int | None = None) -> Path | None:
        """Make the folder and write the configuration into it (rank zero only).

        Args:
            config: the resolved configuration.
            steps: steps of the run under the configuration that it had, which is then kept as `config.1.yaml`,
                `config.2.yaml`, ..., the latest with the highest number.

        Returns:
            The file with the earlier configuration, if any.

        Raises:
            OSError: it cannot be written to.
        """
        kept: Path | None = None
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if steps is not None:
                number = 1
                while (self.path / f"config.{number}.yaml").exists():
                    number += 1
                kept = self.path / f"config.{number}.yaml"
                write_atomically(kept, f"# Until step {steps}; then another configuration.\n{self.config.read_text()}")
            write_atomically(self.config, yaml.safe_dump(config, sort_keys=False))
        except OSError as error:
            raise OSError(f"cannot make the run folder {self.path}: {error.strerror or error}") from error
        return kept

    def reclaim(self, kept: Path) -> None:
        """Give the run the configuration back that `claim` has put away."""
        write_atomically(self.config, kept.read_text().partition("\n")[2])
        kept.unlink()

    def finished(
        self, checkpoint: Path, max_steps: int, max_epochs: int | None, budget: Mapping[str, Any] | None = None
    ) -> int | None:
        """Steps of a run that has reached the end that is asked for and done what comes at the end, else None.

        Args:
            checkpoint: its last checkpoint.
            max_steps: steps that are asked for, -1 for any number.
            max_epochs: epochs that are asked for, -1 for any number.
            budget: arguments of the callback `Budget`, if the run has one.
        """
        from zoo.callbacks import Budget
        from zoo.engine.checkpoint import AtomicCheckpointIO

        saved = AtomicCheckpointIO().load_checkpoint(checkpoint)
        steps = int(saved["global_step"])
        epochs = int(saved["loops"]["fit_loop"]["epoch_progress"]["current"]["completed"])
        done = (max_steps > 0 and steps >= max_steps) or (max_epochs not in (None, -1) and epochs >= max_epochs)
        if budget and (taken := saved["callbacks"].get(Budget.__qualname__)):
            spent = Budget(**budget)
            spent.load_state_dict(taken)
            done = done or spent.share >= 1
        return steps if done and saved.get("finished", True) else None

    def clean(self) -> None:
        """Remove what a kill left half written."""
        for folder in (self.path, self.path / "samples", self.last.parent):
            for path in folder.glob(".*.tmp"):
                path.unlink(missing_ok=True)
