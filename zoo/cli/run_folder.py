"""Run folders: `runs/<name>/` with config.yaml, checkpoints/, samples/ and metrics.csv, resumed by the same command."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from zoo.cli.run_lock import LOCK, RunLock
from zoo.engine.files import write_atomically
from zoo.nn.options import OptionGroup
from zoo.nn.progressive_gan_growth import Growth
from zoo.nn.schedules import Decay
from zoo.pretrained.cards import default_arguments
from zoo.pretrained.migrations import current_names

__all__ = ["RunFolder", "global_rank"]

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
# May also differ for models with a global batch size of their own, whose batches do not depend on the devices.
FREE_WITH_SCHEDULE = ("trainer.devices", "trainer.num_nodes", "trainer.strategy")


# Options that are groups of their own: some fields given, or all, is the same.
GROUPS: dict[str, type[OptionGroup]] = {"decay": Decay, "growth": Growth}


def global_rank() -> int:
    """Rank of this process as its launcher has set it, before any process group exists; 0 on the first process only."""
    for name in ("RANK", "SLURM_PROCID"):
        if os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    # Lightning's own launcher numbers the processes of each node, and the nodes.
    return int(os.environ.get("LOCAL_RANK") or 0) + int(
        os.environ.get("NODE_RANK") or os.environ.get("GROUP_RANK") or 0
    )


def _leaves(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(tree, Mapping) and tree:
        for key in sorted(tree, key=str):
            yield from _leaves(tree[key], f"{prefix}{key}.")
    elif isinstance(tree, list) and tree:
        for i, value in enumerate(tree):
            yield from _leaves(value, f"{prefix}{i}.")
    else:
        yield prefix.removesuffix("."), tree


def completed(tree: Any) -> Any:
    """A configuration in which each class has all its arguments, those that are not given with their defaults.

    Options that a constructor passes on to its base class are no part of a configuration unless they are given;
    configurations of earlier versions list them all.

    Args:
        tree: a configuration, or a part of one.
    """
    if isinstance(tree, list):
        return [completed(value) for value in tree]
    if not isinstance(tree, dict):
        return tree
    result = {key: completed(value) for key, value in tree.items()}
    if isinstance(path := result.get("class_path"), str) and path.startswith("zoo."):
        given = default_arguments(path) | (result.get("init_args") or {})
        for name, group in GROUPS.items():
            if isinstance(given.get(name), dict):
                given[name] = dataclasses.asdict(group(**given[name]))
        result["init_args"] = given
    return result


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
            if not self._checkpoints() and not self.path.joinpath("metrics.csv").exists():
                return None  # it failed before its first step: there is nothing to go on with, and nothing to lose
            old = current_names(yaml.safe_load(self.config.read_text()))
            free = FREE + FREE_WITH_SCHEDULE if scheduled else FREE
            if difference := first_difference(completed(old), completed(config), free):
                key, before, after = difference
                raise ValueError(
                    f"{self.path} holds a run with {key}: {before!r}, this command has {after!r}; "
                    "repeat the earlier command to resume it, or take --fresh or another --name"
                )
            checkpoint = next(iter(self._checkpoints()), None)
            if checkpoint != self.last and global_rank() == 0:
                then = f"it goes on from {checkpoint}" if checkpoint else "it starts at step 0"
                print(f"{self.last} is missing although the run has begun: {then}")
            return checkpoint
        # Another rank may be writing the configuration at this moment: see `write_atomically`.
        passing = (LOCK, f".{self.config.name}.tmp")
        if self.path.exists() and any(path.name not in passing for path in self.path.iterdir()):
            if self.config.exists():  # it was just written
                return self.check(config, scheduled=scheduled)
            raise ValueError(f"{self.path} is not empty and holds no run (no config.yaml): take another --name")
        return None

    def _checkpoints(self) -> list[Path]:
        """The checkpoints that are there, the latest first."""
        return [path for path in (self.last, self.previous) if path.exists()]

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

    def finished(self, checkpoint: Path, max_steps: int, max_epochs: int | None) -> int | None:
        """Steps of a run that has reached the end that is asked for and done what comes at the end, else None.

        Args:
            checkpoint: its last checkpoint.
            max_steps: steps that are asked for, -1 for any number.
            max_epochs: epochs that are asked for, -1 for any number.
        """
        from zoo.engine.checkpoint import AtomicCheckpointIO

        saved = AtomicCheckpointIO().load_checkpoint(checkpoint)
        steps = int(saved["global_step"])
        epochs = int(saved["loops"]["fit_loop"]["epoch_progress"]["current"]["completed"])
        done = (max_steps > 0 and steps >= max_steps) or (max_epochs not in (None, -1) and epochs >= max_epochs)
        return steps if done and saved.get("finished", True) else None

    def clean(self) -> None:
        """Remove what a kill left half written."""
        for folder in (self.path, self.path / "samples", self.last.parent):
            for path in folder.glob(".*.tmp"):
                path.unlink(missing_ok=True)
