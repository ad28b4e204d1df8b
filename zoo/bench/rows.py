"""Runs of a suite, or any runs, as a leaderboard needs them: read from their folders, whether finished or not."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from zoo.engine.files import nearest

__all__ = ["Collection", "Point", "Run", "find_suite", "last_line", "read_runs", "read_suite"]

FAILED = re.compile(r"zoo: error: |Killed|Segmentation fault|[\w.]*(Error|Exception|Interrupt)\b")
"""How the last line of a command that failed begins."""


@dataclass(frozen=True)
class Point:
    """A value measured while a run trained, or at its end.

    Attributes:
        metric: name of the value.
        protocol: how it was made.
        step: training step.
        seconds: of training until then.
        images: trained on until then.
        value: the value.
        is_clocked: the run kept seconds and images along the way; else both follow from the run's average.
    """

    metric: str
    protocol: str
    step: int
    seconds: float | None
    images: float | None
    value: float
    is_clocked: bool


@dataclass(frozen=True)
class Run:
    """A run of an entry with a seed.

    Attributes:
        entry: name of the entry.
        seed: its seed, where known.
        folder: its folder.
        state: "finished", "unfinished", "failed" or "not begun".
        message: the last line of the log of one that is not finished.
        facts: the content of `run.json`; empty unless it is finished.
        history: the values of its metrics.csv, in the order of steps.
        picture: the grid of samples of the last step.
    """

    entry: str
    seed: int | None
    folder: Path
    state: str
    message: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    history: Sequence[Point] = ()
    picture: Path | None = None

    @property
    def name(self) -> str:
        """Entry and seed."""
        return self.entry if self.seed is None else f"{self.entry}, seed {self.seed}"


@dataclass(frozen=True)
class Collection:
    """Runs that a leaderboard is made of.

    Attributes:
        title: its name.
        description: what it is, in a sentence.
        budget: what each run was given, such as {"minutes": 10}.
        notes: a text by entry, in the order of the entries; empty where there is nothing to say.
        runs: all runs, whether finished or not.
        measures: paths of measures of the user's own.
    """

    title: str
    description: str
    budget: Mapping[str, float]
    notes: Mapping[str, str]
    runs: Sequence[Run]
    measures: Sequence[str] = ()

    @property
    def pictured(self) -> dict[str, Run]:
        """Of each entry the first run with a grid of samples, where there is one."""
        return {run.entry: run for run in reversed(self.runs) if run.picture is not None}


def find_suite(name: str, runs_dir: Path) -> Path:
    """The folder of a suite's runs.

    Args:
        name: its name below `bench` of `runs_dir`, or a path.
        runs_dir: folder of all runs.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    home = runs_dir / "bench"
    for path in (home / name, Path(name).expanduser()):
        if path.is_dir():
            return path
    known = sorted(path.name for path in home.iterdir() if path.is_dir()) if home.is_dir() else []
    if not known:
        raise FileNotFoundError(f"there are no runs of a suite {name!r}, nor any in {home}: `zoo bench run` makes them")
    # Another budget is a part of the name, such as emoji32-1minutes.
    alike = [other for other in known if other.startswith(name)]
    raise FileNotFoundError(f"there are no runs of a suite {name!r} in {home}: {nearest(name, alike or known)}")


def read_suite(folder: Path) -> Collection:
    """The runs of a suite's folder, those that it misses among them.

    Without `suite.yaml` the folders in it are read as `read_runs` does.

    Args:
        folder: the folder, with `suite.yaml` and a folder `<entry>-<seed>` for each run.

    Raises:
        ValueError: the folder holds no runs, or a file that cannot be read; names it.
    """
    if not (folder / "suite.yaml").is_file():
        paths = sorted(path for path in folder.iterdir() if (path / "config.yaml").is_file())
        if not paths:
            raise ValueError(f"{folder} holds no runs: there is neither suite.yaml nor a folder with config.yaml in it")
        return read_runs(paths, title=folder.name)
    suite = _yaml(folder / "suite.yaml")
    entries = suite.get("entries")
    if not isinstance(entries, dict) or not entries:
        raise ValueError(f"{folder / 'suite.yaml'} names no entries: it should have `entries:` with names")
    notes = {str(name): str(settings.get("note") or "") if settings else "" for name, settings in entries.items()}
    seeds = {name: {int(seed) for seed in suite.get("seeds") or [0]} for name in notes}
    # A command with --only leaves a suite of its entries alone, beside the runs of others.
    known = {*notes, *(path.stem for path in folder.glob("*.yaml") if path.name != "suite.yaml")}
    for path in sorted(folder.iterdir()):
        entry, _, seed = path.name.rpartition("-")
        if path.is_dir() and entry in known and seed.isdigit():
            notes.setdefault(entry, "")
            seeds.setdefault(entry, set()).add(int(seed))
    flops = _json(folder / "flops.json") if (folder / "flops.json").is_file() else {}
    more = {entry: {"flops_per_image": flops[entry]} if entry in flops else {} for entry in notes}
    runs = [
        _run(entry, seed, folder / f"{entry}-{seed}", more[entry]) for entry in notes for seed in sorted(seeds[entry])
    ]
    if all(run.state == "not begun" for run in runs):
        raise ValueError(f"{folder} holds no runs of its suite: `zoo bench run {folder.name}` makes them")
    budget = {str(name): float(number) for name, number in (suite.get("budget") or {}).items()}
    wanted = [m["measure"] if isinstance(m, dict) else m for m in suite.get("measures") or ()]
    own = [name for name in wanted if "." in name]
    return Collection(folder.name, str(suite.get("description") or ""), budget, notes, runs, own)


def read_runs(folders: Sequence[Path], title: str = "Runs") -> Collection:
    """Any runs; those whose configurations differ in the seed alone are one entry.

    Args:
        folders: the runs' folders.
        title: name of the leaderboard.

    Raises:
        FileNotFoundError: a folder is missing.
        ValueError: a folder is no run's, or holds a file that cannot be read; names it.
    """
    groups: list[tuple[dict[str, Any], dict[Any, Path]]] = []
    for folder in folders:
        if not folder.is_dir():
            raise FileNotFoundError(f"there is no run folder {folder}")
        if not (folder / "config.yaml").is_file():
            raise ValueError(f"{folder} is no run folder: it has no config.yaml")
        settings = _flat(_yaml(folder / "config.yaml"))
        seed = settings.pop("seed_everything", None)
        group = next((runs for other, runs in groups if other == settings and seed not in runs), None)
        if group is None:
            groups.append((settings, group := {}))
        group[seed] = folder
    names = _names(groups)
    runs = [
        _run(name, seed if isinstance(seed, int) else None, folder)
        for name, (_, group) in zip(names, groups, strict=True)
        for seed, folder in group.items()
    ]
    return Collection(title, "", {}, dict.fromkeys(names, ""), runs)


def _names(groups: Sequence[tuple[dict[str, Any], dict[Any, Path]]]) -> list[str]:
    """A name for each group: the folder of a single run, else the architecture and what sets it apart from others."""
    names: list[str] = []
    for settings, group in groups:
        folder = next(iter(group.values()))
        name = folder.resolve().name
        if len(group) > 1:
            kind = settings.get("model.class_path")
            alike = [other for other, _ in groups if other.get("model.class_path") == kind]
            differing = [k for k in sorted({k for o in alike for k in o}) if len({repr(o.get(k)) for o in alike}) > 1]
            words = [f"{key.rpartition('.')[2]}={settings.get(key)}" for key in differing]
            name = " ".join([str(kind).rpartition(".")[2], *words])
        names.append(name if name not in names else str(folder))
    return names


def _run(entry: str, seed: int | None, folder: Path, more: Mapping[str, Any] = {}) -> Run:
    """A run as its folder shows it, with more facts than those of its run.json."""
    if not (folder / "run.json").is_file():
        message = last_line(folder.with_name(f"{folder.name}.log"))
        state = "failed" if FAILED.match(message) else "unfinished" if folder.is_dir() else "not begun"
        return Run(entry, seed, folder, state, message)
    try:
        facts = {**more, **json.loads((folder / "run.json").read_text(encoding="utf-8"))}
        facts.setdefault("values", {})  # runs from before values were kept
        values = {(key.partition(" ")[0], v["protocol"]): float(v["value"]) for key, v in facts["values"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise ValueError(
            f"{folder / 'run.json'} cannot be read ({type(error).__name__}: {error}): remove it, and the same command "
            "of the run writes it again"
        ) from error
    history = _history(folder / "metrics.csv", facts)
    steps, seconds, images = facts.get("steps") or 0, facts.get("training_seconds"), facts.get("images")
    told = {metric for metric, _ in values}  # of the last step by run.json, which knows each value's own protocol
    history = [point for point in history if point.step < steps or point.metric not in told]
    history += [Point(*pair, steps, seconds, images, value, True) for pair, value in values.items()]
    grids = sorted((folder / "samples").glob("step-*.png"))
    return Run(entry, seed, folder, "finished", "", facts, history, grids[-1] if grids else None)


def _history(path: Path, facts: Mapping[str, Any]) -> list[Point]:
    """Values with a protocol that a run measured along the way."""
    if not path.is_file():
        return []
    # A kill can leave a last row without an end.
    rows = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8").rpartition("\n")[0]))
    metrics = [name for name in rows.fieldnames or () if f"{name}_protocol" in (rows.fieldnames or ())]
    steps = facts.get("steps") or 0
    pairs = (("budget_seconds", "training_seconds"), ("budget_images", "images"))
    points = []
    for row in rows:
        step = int(row["step"]) if (row.get("step") or "").isdigit() else None
        for metric in metrics:
            if step is None or not row[metric] or not row[f"{metric}_protocol"]:
                continue
            is_clocked = bool(row.get("budget_seconds"))
            seconds, images = (
                float(row[own]) if row.get(own) else facts[whole] * step / steps if facts.get(whole) and steps else None
                for own, whole in pairs
            )
            protocol = row[f"{metric}_protocol"]
            points.append(Point(metric, protocol, step, seconds, images, float(row[metric]), is_clocked))
    return points


def last_line(log: Path) -> str:
    """The last words of a log, without what a terminal would hide."""
    if not log.is_file():
        return ""
    with open(log, "rb") as file:
        file.seek(max(0, log.stat().st_size - 65_536))
        text = file.read().decode(errors="replace")
    lines = re.sub(r"\x1b\[[\d;]*[A-Za-z]|[\x00-\x08\x0b\x0c\x0e-\x1f]", "", text).replace("\r", "\n").split("\n")
    return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "")


def _json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} cannot be read: {error}; `zoo bench run` writes it again") from error


def _yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {getattr(error, 'problem', None) or 'this is no YAML'}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no settings")
    return content


def _flat(tree: Any, name: str = "") -> dict[str, Any]:
    """Settings by dotted name."""
    if not isinstance(tree, dict):
        return {name: tree}
    return {k: v for key, value in tree.items() for k, v in _flat(value, f"{name}.{key}".lstrip(".")).items()}
