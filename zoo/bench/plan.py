"""What a suite comes to on this machine: configurations of all entries, checked before anything is trained."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock

from zoo.base.growing import GrowingGAN
from zoo.bench.flops import flops_per_image, images_for
from zoo.bench.random_batches import random_batch
from zoo.bench.suite import Suite
from zoo.callbacks import Evaluate
from zoo.callbacks.extractors import load_extractor
from zoo.cli.run_folder import RunFolder
from zoo.engine.files import nearest, write_atomically

__all__ = ["Plan", "Run", "checked", "narrowed", "planned"]


@dataclass(frozen=True)
class Run:
    """One training: an entry with a seed.

    Attributes:
        entry: name of the entry.
        seed: its seed.
        folder: its run folder.
        config: its configuration, without the seed.
        budget: arguments of its callback `Budget`.
    """

    entry: str
    seed: int
    folder: Path
    config: Path
    budget: dict[str, Any]

    @property
    def name(self) -> str:
        """Name in messages, and of the folder."""
        return self.folder.name

    @property
    def log(self) -> Path:
        """What its command prints."""
        return self.folder.with_name(f"{self.name}.log")

    @property
    def has_begun(self) -> bool:
        """Whether there is something to lose."""
        return (self.folder / "config.yaml").exists()

    @property
    def is_finished(self) -> bool:
        """Whether the budget is spent, and all is measured and written."""
        folder = RunFolder(self.folder)
        if not folder.last.exists() or not (self.folder / "run.json").exists():
            return False
        return folder.finished(folder.last, -1, -1, self.budget) is not None


@dataclass(frozen=True)
class Plan:
    """All runs of a suite.

    Attributes:
        suite: the suite.
        folder: where its runs are.
        configurations: of `zoo fit`, by entry.
        flops: that training takes for an image, by entry; models that grow have no single number.
        runs: all runs, those of the first seed first.
    """

    suite: Suite
    folder: Path
    configurations: dict[str, dict[str, Any]]
    flops: dict[str, float]
    runs: list[Run]

    def changed(self) -> list[Run]:
        """Runs that have begun under another configuration than they have now."""
        texts = {entry: _text(config) for entry, config in self.configurations.items()}
        other = {run.entry for run in self.runs if run.config.exists() and run.config.read_text() != texts[run.entry]}
        return [run for run in self.runs if run.entry in other and run.has_begun]

    def write(self) -> None:
        """Write the configurations, and the suite with what earlier commands had of it, each file whole."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / ".lock"):
            self._write()

    def _write(self) -> None:
        path, costs = self.folder / "suite.yaml", self.folder / "flops.json"
        suite, flops = self.suite.plain(), self.flops
        if path.exists():
            earlier = yaml.safe_load(path.read_text())
            suite["entries"] = earlier["entries"] | suite["entries"]
            suite["seeds"] = sorted({*earlier["seeds"], *suite["seeds"]})
            flops = json.loads(costs.read_text()) | flops
        write_atomically(costs, json.dumps(flops, indent=1) + "\n")
        write_atomically(path, yaml.safe_dump(suite, sort_keys=False))
        for run in self.runs:
            write_atomically(run.config, _text(self.configurations[run.entry]))


def narrowed(
    suite: Suite,
    *,
    only: list[str] | None = None,
    seeds: list[int] | None = None,
    budget: dict[str, float] | None = None,
) -> Suite:
    """A suite with fewer entries, other seeds or another budget; the budget becomes a part of its name.

    Args:
        suite: the suite.
        only: names of entries.
        seeds: seeds of all entries.
        budget: one of images, minutes and flops.

    Raises:
        ValueError: there is no such entry.
    """
    for name in only or ():
        if name not in suite.entries:
            raise ValueError(f"the suite {suite.name} has no entry {name!r}: {nearest(name, suite.entries)}")
    entries = {name: suite.entries[name] for name in suite.entries if only is None or name in only}
    suite = replace(suite, entries=entries, seeds=seeds or suite.seeds)
    if budget and budget != suite.budget:
        (kind, number), *_ = budget.items()
        suite = replace(suite, budget=budget, name=f"{suite.name}-{number:g}{kind}")
    return suite


def checked(suite: Suite) -> tuple[dict[str, dict[str, Any]], dict[str, float]]:
    """Configurations and FLOPs an image, by entry: each model has been built for the data, whose files are there.

    Args:
        suite: the suite.

    Raises:
        ValueError: an entry cannot be built, and names the entry; there is no such metric or extractor.
        OSError: data are missing.
    """
    _check_metrics(suite)
    found: dict[str, dict[str, Any]] = {}
    costs: dict[str, float] = {}
    for entry in suite.entries:
        kind, arguments = suite.datamodule(entry)
        try:
            data = kind(**arguments)
        except TypeError as error:
            if "data_dir" not in str(error):
                raise
            raise ValueError(f"{kind.__name__} has no data of its own: give --data_dir") from error
        if not found:
            data.prepare_data()
        model_kind, options = suite.model(entry)
        try:
            model = model_kind.for_data(data, **options)  # type: ignore[attr-defined]
        except (TypeError, ValueError) as error:
            raise ValueError(f"entry {entry}: {error}") from error
        batch = random_batch(model, 2, data)
        if not isinstance(model, GrowingGAN):
            costs[entry] = flops_per_image(model, batch)
        flops = suite.budget.get("flops")
        found[entry] = suite.configuration(entry, images_for(flops, model, batch) if flops else None)
    return found, costs


def planned(suite: Suite, runs_dir: Path) -> Plan:
    """The runs of a suite.

    Args:
        suite: the suite.
        runs_dir: folder of all runs.

    Raises:
        ValueError: an entry cannot be built.
        OSError: data are missing.
    """
    folder = runs_dir / "bench" / suite.name
    configurations, flops = checked(suite)
    runs = [
        Run(
            entry,
            seed,
            folder / f"{entry}-{seed}",
            folder / f"{entry}.yaml",
            configurations[entry]["trainer"]["callbacks"][0]["init_args"],
        )
        for seed in suite.seeds
        for entry in suite.entries
    ]
    return Plan(suite, folder, configurations, flops, runs)


# Inside --------------------------------------------------------------------------------------------------------------


def _check_metrics(suite: Suite) -> None:
    """Refuse settings that the callback `Evaluate` would refuse in each run."""
    along = {name: value for name, value in suite.curve.items() if name != "looks"}
    for key, settings in (("evaluate", suite.evaluate), ("curve", suite.evaluate | along)):
        try:
            extractor = Evaluate(**settings).arguments["extractor"]
            if isinstance(extractor, str):  # a module by its class path is built in each run
                load_extractor(extractor)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{key}: {error}") from error


def _text(config: dict[str, Any]) -> str:
    text: str = yaml.safe_dump(config, sort_keys=False)
    return text
