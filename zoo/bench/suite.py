"""Suites: what `zoo bench` trains, on which data, for how long, and what it measures.

    description: DCGAN and its successors on emoji
    data: {class_path: Emoji, init_args: {image_size: 32}}
    budget: {minutes: 10}
    seeds: [0, 1, 2]
    evaluate: {extractor: efficientnet-lite0, num_samples: 5000}
    measures: [nll, sampling_speed]
    entries:
      dcgan: dcgan-emoji32-small
      mine: {model: {class_path: my_models.MyGAN}, note: with a larger critic}

An entry is a recipe, or names a `recipe`, a `model` or both, and may have `data` and `trainer` settings and a `note` of
its own. Of a recipe it takes the model and the batch size; size, channels and classes come from the data. Training is
in float32, whatever the recipe says, so that entries and machines with and without bf16 compare; `trainer:
{precision: bf16-mixed}` takes bf16. Measures are taken of those entries that have what the measure needs.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

import zoo
from zoo import datamodules, recipes
from zoo.base.for_data import constructor_options
from zoo.bench.imports import imported
from zoo.callbacks.measures import find_measure
from zoo.engine.files import nearest
from zoo.engine.ranges import Range

__all__ = ["BUDGETS", "Suite", "read_suite"]

BUDGETS = {"images": Range(1, whole=True), "minutes": Range(0, above=True), "flops": Range(1)}
"""Kinds of budgets, with their ranges."""

KEYS = ("description", "data", "budget", "seeds", "evaluate", "curve", "measures", "entries")
ENTRY_KEYS = ("recipe", "model", "data", "trainer", "note")


@dataclass(frozen=True)
class Suite:
    """A suite.

    Attributes:
        name: its name, which is that of its folder of runs.
        description: what it compares, in a line.
        data: class path and arguments of the DataModule.
        budget: one of images, minutes and flops, with its number.
        seeds: seeds of the runs of each entry.
        evaluate: arguments of the callback `Evaluate`.
        curve: arguments of a cheaper `Evaluate` along the way, with `looks`, the number of times; empty for none.
        measures: names of further measures, or mappings with a `measure` and its arguments.
        entries: settings by name.
    """

    name: str
    description: str
    data: dict[str, Any]
    budget: dict[str, float]
    seeds: list[int]
    entries: dict[str, dict[str, Any]]
    evaluate: dict[str, Any] = field(default_factory=dict)
    curve: dict[str, Any] = field(default_factory=dict)
    measures: list[Any] = field(default_factory=list)

    def plain(self) -> dict[str, Any]:
        """The suite as its file has it."""
        return {key: copy.deepcopy(value) for key in KEYS if (value := getattr(self, key))}

    def model(self, entry: str) -> tuple[type, dict[str, Any]]:
        """Class of an entry's model and the arguments that are given, without what the data determine.

        Args:
            entry: name of the entry.

        Raises:
            ValueError: there is no such class.
        """
        recipe = self._recipe(entry)
        own = self.entries[entry].get("model") or {}
        path = own.get("class_path") or recipe["model"]["class_path"]
        kind = imported(path, zoo, f"entry {entry}: there is no model {path}", zoo.ARCHITECTURES)
        given = dict(recipe["model"].get("init_args") or {}) if recipe else {}
        if recipe and path.rpartition(".")[2] != recipe["model"]["class_path"].rpartition(".")[2]:
            given = {}
        given = {name: value for name, value in given.items() if name not in getattr(kind, "data_options", ())}
        return kind, _merged(given, own.get("init_args") or {})

    def datamodule(self, entry: str) -> tuple[type, dict[str, Any]]:
        """Class and arguments of the data as an entry has them: the suite's, with the batch size of its recipe.

        Args:
            entry: name of the entry.

        Raises:
            ValueError: there is no such class, or it lacks an option.
        """
        path = self.data["class_path"]
        kind = imported(path, datamodules, f"there is no data {path}", datamodules.__all__)
        recipe = self._recipe(entry)
        size = (recipe["data"].get("init_args") or {}).get("batch_size") if recipe else None
        given = ({} if size is None else {"batch_size": size}) | (self.data.get("init_args") or {})
        given = _merged(given, self.entries[entry].get("data") or {})
        known = sorted(constructor_options(kind))
        if unknown := [name for name in given if name not in known]:
            raise ValueError(
                f"entry {entry}: {kind.__name__} has no option {unknown[0]!r}: {nearest(unknown[0], known)}"
            )
        return kind, given

    def configuration(self, entry: str, images: int | None = None) -> dict[str, Any]:
        """The configuration of `zoo fit` for an entry's runs, without the seed.

        Args:
            entry: name of the entry.
            images: those that a budget of FLOPs comes to for this entry.

        Raises:
            ValueError: something in the entry is wrong.
        """
        (model, options), (data, arguments) = self.model(entry), self.datamodule(entry)
        trainer: dict[str, Any] = {
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "limit_val_batches": 0,
        }
        trainer |= self.entries[entry].get("trainer") or {}
        end = {"images": images} if "flops" in self.budget else dict(self.budget)
        looks = {"looks": self.curve["looks"]} if self.curve else {}
        trainer["callbacks"] = [
            _callback("Budget", end | looks),
            _callback("SampleGrid", {"every_n_steps": None, "gif": False}),
            _callback("Evaluate", self.evaluate),
        ]
        if self.curve:
            along = {k: v for k, v in self.curve.items() if k != "looks"}
            trainer["callbacks"].append(
                _callback("Evaluate", self.evaluate | {"at_end": False, "at_looks": True} | along)
            )
        trainer["callbacks"] += [_callback("Measure", measure) for measure in self._measures(model)]
        return {
            "model": {"class_path": _path(model), "init_args": options},
            "data": {"class_path": _path(data), "init_args": arguments},
            "trainer": trainer,
        }

    def _recipe(self, entry: str) -> dict[str, Any]:
        name = self.entries[entry].get("recipe")
        if name is None:
            return {}
        found: dict[str, Any] = yaml.safe_load(recipes.find(name).read_text())
        return found

    def _measures(self, model: type) -> Iterable[dict[str, Any]]:
        """Arguments of `Measure` for the measures that a class of models can have."""
        for wanted in self.measures:
            arguments = {"measure": wanted} if isinstance(wanted, str) else dict(wanted)
            needs = find_measure(arguments["measure"]).needs
            names = {name for name in vars(needs) | needs.__annotations__ if not name.startswith("_")}
            if all(hasattr(model, name) for name in names):
                yield arguments


def read_suite(path: Path) -> Suite:
    """A suite from its file.

    Args:
        path: the YAML file.

    Raises:
        ValueError: names the file and what is wrong in it.
    """
    from zoo.cli.messages import load_settings

    found = load_settings(path)
    for key in found:
        if key not in KEYS:
            raise ValueError(f"{path} has no key {key!r}: {nearest(str(key), KEYS)}")
    for key in ("data", "budget", "entries"):
        if not isinstance(found.get(key), dict) or not found[key]:
            raise ValueError(f"{path} needs `{key}:` with settings below it")
    if "class_path" not in found["data"]:
        raise ValueError(f"{path}: `data:` needs a class_path, such as Emoji")
    check_budget(found["budget"])
    seeds = found.get("seeds", [0, 1, 2])
    seeds = list(range(seeds)) if isinstance(seeds, int) and not isinstance(seeds, bool) else seeds
    check_seeds(seeds)
    name = path.parent.name if path.name == "suite.yaml" else path.name.removesuffix(".yaml")
    rest = {key: found[key] for key in ("evaluate", "curve", "measures") if found.get(key)}
    suite = Suite(
        name, str(found.get("description", "")), found["data"], found["budget"], seeds, _entries(path, found), **rest
    )
    if suite.curve and not isinstance(suite.curve.get("looks"), int):
        raise ValueError(f"{path}: `curve:` needs `looks`, the number of measurements along the way")
    return suite


def check_budget(budget: Mapping[str, Any]) -> None:
    """Refuse what is no budget.

    Raises:
        ValueError: names what is wrong.
    """
    if len(budget) != 1 or next(iter(budget)) not in BUDGETS:
        raise ValueError(f"a budget is one of {', '.join(BUDGETS)}, with its number, not {dict(budget)}")
    (kind, number), *_ = budget.items()
    if number not in BUDGETS[kind]:
        raise ValueError(f"a budget of {kind} {BUDGETS[kind].refuse(number)}")


def check_seeds(seeds: Any) -> None:
    """Refuse what is no list of seeds.

    Raises:
        ValueError: names what is wrong.
    """
    if not isinstance(seeds, list) or not seeds or any(not isinstance(s, int) or s < 0 for s in seeds):
        raise ValueError(f"seeds are a number of at least 1 or a list of whole numbers from 0, not {seeds}")
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"the seeds {seeds} are not all different")


# Inside --------------------------------------------------------------------------------------------------------------


def _entries(path: Path, found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    entries: dict[str, dict[str, Any]] = {}
    for name, settings in found["entries"].items():
        name = str(name)
        if not all(c.isalnum() or c in "_.+=-" for c in name):
            raise ValueError(f"{path}: entry {name!r} names a folder: take letters, digits, - _ . + and = alone")
        settings = {"recipe": settings} if isinstance(settings, str) else settings
        if not isinstance(settings, dict) or not settings.keys() & {"recipe", "model"}:
            raise ValueError(f"{path}: entry {name} needs a recipe or a model")
        for key in settings:
            if key not in ENTRY_KEYS:
                raise ValueError(f"{path}: entry {name} has no key {key!r}: {nearest(str(key), ENTRY_KEYS)}")
        if "recipe" in settings:
            try:
                recipes.find(settings["recipe"])
            except FileNotFoundError as error:
                raise ValueError(f"{path}: entry {name}: {error}") from error
        elif "class_path" not in settings["model"]:
            raise ValueError(f"{path}: entry {name}: `model:` needs a class_path")
        entries[name] = settings
    return entries


def _path(kind: type) -> str:
    """Path of a class, by which a configuration names it."""
    return f"{kind.__module__}.{kind.__qualname__}"


def _callback(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    return {"class_path": f"zoo.callbacks.{name}", "init_args": copy.deepcopy(arguments)}


def _merged(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Settings, those of the second over those of the first."""
    return copy.deepcopy({**first, **second})
