"""What differs when a run goes on under another configuration: what may, and what its networks cannot take."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from zoo.nn.options import OptionGroup
from zoo.nn.progressive_gan_growth import Growth
from zoo.nn.schedules import Decay
from zoo.pretrained.cards import default_arguments

__all__ = ["Change", "completed", "describe", "differences", "refuse_mismatch", "refuse_other_run"]

# What may differ without a word when a run is resumed, because it cannot change the result.
FREE = (
    "trainer.enable_progress_bar",
    "trainer.enable_model_summary",
    "trainer.profiler",
    "trainer.logger",
    "trainer.default_root_dir",
    "data.init_args.num_workers",
    "data.init_args.cache_dir",
    "data.init_args.license",
)
# Also for models with a global batch size of their own, whose batches do not depend on the devices.
FREE_WITH_SCHEDULE = ("trainer.devices", "trainer.num_nodes", "trainer.strategy")
# Where a run ends: up to its earlier end it is the same run.
ENDS = ("trainer.max_steps", "trainer.max_epochs", "trainer.max_time", "trainer.min_steps", "trainer.min_epochs")
# What makes another run although the weights may fit.
FIXED = {"seed_everything", *(f"model.init_args.{name}" for name in ("image_size", "image_channels", "num_classes"))}
# Options that are groups of their own: some fields given, or all, is the same.
GROUPS: dict[str, type[OptionGroup]] = {"decay": Decay, "growth": Growth}


class Change(NamedTuple):
    """A setting with two values."""

    key: str
    before: Any
    now: Any

    def __str__(self) -> str:
        name = self.key.replace(".init_args.", ".")
        return name if self.key == "trainer.callbacks" else f"{name} {self.before} -> {self.now}"


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


def differences(old: Any, new: Any, *, scheduled: bool = False) -> list[Change]:
    """The settings that differ in two configurations, in alphabetical order, without those that change no result.

    Args:
        old: the configuration of the run.
        new: that of the command.
        scheduled: the model says how many images a step has, so that the number of devices changes no result.
    """
    free = FREE + FREE_WITH_SCHEDULE if scheduled else FREE
    before, now = dict(_leaves(completed(old))), dict(_leaves(completed(new)))
    changes: dict[str, Change] = {}
    for key in sorted(before.keys() | now.keys()):
        change = Change(key, before.get(key, "not set"), now.get(key, "not set"))
        if change.before == change.now or key.startswith(free) or (key == "init" and change.now is None):
            continue
        if key.startswith("trainer.callbacks"):  # a list: one more moves the others
            change = Change("trainer.callbacks", "", "")
        changes[change.key] = change
    return list(changes.values())


def describe(changes: Iterable[Change], *, whole: bool = True) -> str:
    """The line that says how a run goes on.

    Args:
        changes: what differs.
        whole: a schedule of the model ends with the run, so that another end changes what was before it.
    """
    changes = list(changes)
    shown = ", ".join(map(str, changes[:6])) + (f" and {len(changes) - 6} more" if len(changes) > 6 else "")
    same = not whole and all(change.key in ENDS for change in changes)
    return shown if same else f"{shown}: no longer the run that it would be without the change"


def refuse_other_run(folder: Path, changes: Iterable[Change]) -> None:
    """Refuse what would make another run of the one that a folder holds.

    Args:
        folder: the run's folder.
        changes: what differs.

    Raises:
        ValueError: names what cannot change, and the options that lead on.
    """
    for key, before, now in changes:
        if key in ("model", "model.class_path"):
            raise ValueError(
                f"{folder} holds a run of {_short(before)}, this command trains {_short(now)}: "
                "take another --name, or --fresh"
            )
        if key == "init":
            raise ValueError(f"{folder} holds a run that has begun, and --init begins one: take another --name")
        if key in FIXED:
            raise ValueError(
                f"{folder} holds a run with {key.replace('.init_args.', '.')} {before}, this command has {now}, and a "
                f"run keeps it: another --name with --init {folder / 'checkpoints' / 'last.ckpt'} starts from its "
                "weights, --fresh starts anew"
            )


def refuse_mismatch(folder: Path, changes: Iterable[Change], held: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Refuse a checkpoint whose networks are not the model's.

    Args:
        folder: the run's folder.
        changes: what differs.
        held: the checkpoint's state.
        own: the model's.

    Raises:
        ValueError: names what differs, and what leads on.
    """
    wrong = [n for n in own.keys() | held.keys() if n not in own or n not in held or own[n].shape != held[n].shape]
    if not wrong:
        return
    cause = ", ".join(str(change) for change in changes if change.key.startswith("model.")) or "the model's code"
    networks, other = ({name.partition(".")[0] for name in names} for names in (own.keys() & held.keys(), wrong))
    fitting = sorted(networks - other)
    advice = "another --name, or --fresh, starts anew"
    if fitting:
        advice = (
            f"another --name with --init {folder / 'checkpoints' / 'last.ckpt'} --init_strict false starts from the "
            f"weights that fit, of {', '.join(fitting)}"
        )
    raise ValueError(f"the run in {folder} cannot go on with {cause}: {min(wrong)} would differ; {advice}")


def _short(class_path: Any) -> str:
    return str(class_path).rpartition(".")[2]
