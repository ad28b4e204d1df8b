"""The leaderboard of runs: what was measured, over seeds, in tables whose columns have one protocol each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import zoo
from zoo.bench.rows import Collection, Run
from zoo.bench.spread import COSTS, cost, differs, direction, spread

__all__ = ["SPEEDS", "facts_of", "leaderboard", "rank", "without_weights"]

KIND = "leaderboard of generative-zoo"
UNMARKED = ("authenticity",)
"""Metrics whose best value is not marked: nothing is less like the training images than noise."""
FIRST = (
    *("fd", "fid", "fd_infinity", "fid_infinity", "kd", "kid", "precision", "recall", "density", "coverage"),
    *("authenticity", "cs", "is", "nll", "iw_nll", "elbo", "bits_per_dim"),
)
"""Metrics in the order of columns; others follow."""
SPEEDS = ("sampling_speed",)
"""Metrics that say what a model costs: they stand beside the costs, and belong to a table whatever their protocol."""


def facts_of(protocol: str) -> dict[str, str]:
    """The facts of a protocol such as `fd[features=..., real=...]`, by name.

    Args:
        protocol: the protocol.
    """
    inside = protocol.partition("[")[2].removesuffix("]")
    return {key: value for key, _, value in (fact.partition("=") for fact in inside.split(", ")) if key}


def without_weights(protocol: str) -> str:
    """A protocol without the fact which of a model's own weights were measured, which is the model's matter.

    Args:
        protocol: the protocol.
    """
    facts = ", ".join(f"{key}={value}" for key, value in facts_of(protocol).items() if key != "weights")
    return f"{protocol.partition('[')[0]}[{facts}]"


def leaderboard(collection: Collection) -> dict[str, Any]:
    """All facts of the runs, and their tables, as plain types without a value that JSON lacks.

    Args:
        collection: the runs.

    Raises:
        ValueError: none of the runs is finished.
    """
    finished = [run for run in collection.runs if run.state == "finished"]
    if not finished:
        first = next((run for run in collection.runs if run.message), collection.runs[0])
        raise ValueError(
            f"none of the {len(collection.runs)} runs of {collection.title} is finished: "
            f"{first.name} is {first.state}{f' ({first.message})' if first.message else ''}"
        )
    content = {
        "kind": KIND,
        "title": collection.title,
        "description": collection.description,
        "budget": dict(collection.budget),
        "made_by": f"generative-zoo {zoo.__version__}",
        "entries": [_entry(name, note, collection.runs) for name, note in collection.notes.items()],
        "tables": [_table(runs, collection.budget) for runs in _split(finished)],
    }
    return dict(_plain(content))


def _entry(name: str, note: str, runs: Sequence[Run]) -> dict[str, Any]:
    """An entry with all that its runs say, and its values by protocol over seeds, whichever table they are in."""
    own = [run for run in runs if run.entry == name]
    finished = [run for run in own if run.state == "finished"]
    pairs = {pair: None for run in finished for pair in _values(run)}
    pairs = dict.fromkeys(sorted(pairs, key=lambda pair: rank(pair[0])))
    values = [{"metric": m, "protocol": p} | _over_seeds(finished, (m, p)) for m, p in pairs]
    costs = {name: found for name in COSTS if (found := _costs_over_seeds(finished, name))}
    return {
        "name": name,
        "note": note,
        "values": values,
        "costs": costs,
        "runs": [
            {
                "seed": run.seed,
                "folder": str(run.folder),
                "state": run.state,
                **({"message": run.message} if run.message else {}),
                **run.facts,
                "history": [vars(point) for point in run.history],
            }
            for run in own
        ],
    }


def _values(run: Run) -> dict[tuple[str, str], float]:
    """Values at the end of a finished run by metric and whole protocol."""
    values = run.facts["values"].items()
    return {(key.partition(" ")[0], value["protocol"]): float(value["value"]) for key, value in values}


def _over_seeds(runs: Sequence[Run], pair: tuple[str, str]) -> dict[str, Any]:
    having = [run for run in runs if pair in _values(run)]
    return spread([run.seed for run in having], [_values(run)[pair] for run in having])


def _costs_over_seeds(runs: Sequence[Run], name: str) -> dict[str, Any] | None:
    found = [(run.seed, value) for run in runs if (value := cost(name, run.facts)) is not None]
    return spread([seed for seed, _ in found], [value for _, value in found]) if found else None


# Tables --------------------------------------------------------------------------------------------------------------


def _split(runs: Sequence[Run]) -> list[list[Run]]:
    """Runs by table: in a table no metric of two runs has different protocols, and each run has a value to compare."""
    tables: list[tuple[dict[str, set[str]], list[Run]]] = []

    def protocols(run: Run) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for metric, protocol in _values(run):
            if metric not in SPEEDS:
                found.setdefault(metric, set()).add(without_weights(protocol))
        return found

    for run in sorted(runs, key=lambda run: -len(protocols(run))):  # those that say little go where they fit
        own = protocols(run)
        fitting = (
            (known, members)
            for known, members in tables
            if all(own[m] & known[m] for m in own.keys() & known.keys()) and (own.keys() & known.keys() or not own)
        )
        if (table := next(fitting, None)) is None:
            tables.append(table := ({}, []))
        known, members = table
        members.append(run)
        for metric, names in own.items():
            known.setdefault(metric, set()).update(names)
    place = {id(run): i for i, run in enumerate(runs)}
    return sorted(
        (sorted(members, key=lambda run: place[id(run)]) for _, members in tables), key=lambda m: place[id(m[0])]
    )


def _table(runs: Sequence[Run], budget: Mapping[str, float]) -> dict[str, Any]:
    """A table: its columns, and a row for each entry with a cell for each column that was measured."""
    columns: dict[str, dict[str, Any]] = {}
    rows: list[dict[str, Any]] = []
    for name in dict.fromkeys(run.entry for run in runs):
        own = [run for run in runs if run.entry == name]
        # One row may hold seeds of one kind of weights alone: raw and averaged weights are two models.
        kinds = dict.fromkeys(_weights(run) for run in own)
        for weights in kinds:
            alike = [run for run in own if _weights(run) == weights]
            cells: dict[str, Any] = {}
            for metric, protocol in {pair: None for run in alike for pair in _values(run)}:
                key = without_weights(protocol)
                better, unit = direction(metric)
                columns.setdefault(key, {"metric": metric, "protocol": key, "better": better, "unit": unit})
                cells[key] = _over_seeds(alike, (metric, protocol))
            for fact in COSTS:
                if found := _costs_over_seeds(alike, fact):
                    columns.setdefault(fact, {"cost": fact, "better": COSTS[fact].better, "unit": ""})
                    cells[fact] = found
            rows.append({"entry": name, "weights": weights, "seeds": [run.seed for run in alike], "cells": cells})
    ordered = dict(sorted(columns.items(), key=_place))
    machines = len({(run.facts.get("hardware"), run.facts.get("devices")) for run in runs})
    for key, column in ordered.items():
        # Neither what a run costs on two machines compares, nor what they made of the same minutes.
        depends = "minutes" in budget or "cost" in column or column["metric"] in SPEEDS
        if machines == 1 or not depends:
            _mark(rows, key, column)
    first, column = next(iter(ordered.items()))
    if "metric" in column and column["better"]:  # the best on top, what was not measured below
        sign = 1 if column["better"] == "lower" else -1
        means = {id(row): row["cells"][first]["mean"] for row in rows if first in row["cells"]}
        rows.sort(key=lambda row: math.inf if (mean := means.get(id(row))) is None else sign * mean)
    return {
        "machines": machines,
        "columns": [{"key": key, **column} for key, column in ordered.items()],
        "rows": rows,
    }


def _weights(run: Run) -> str:
    """Which weights of a run's model were measured: raw, ema, or nothing is said."""
    return next((w for _, protocol in _values(run) if (w := facts_of(protocol).get("weights"))), "")


def _place(item: tuple[str, Mapping[str, Any]]) -> tuple[int, int, str]:
    """Where a column stands: metrics, then costs."""
    key, column = item
    # Training and sampling stand side by side.
    return (2, 3 * list(COSTS).index(key), "") if "cost" in column else rank(column["metric"])


def rank(metric: str) -> tuple[int, int, str]:
    """Where a metric stands: as in `FIRST`, after them by name, speeds beside the costs.

    Args:
        metric: its name.
    """
    if metric in SPEEDS:
        return 2, 1, ""
    return (0, FIRST.index(metric), "") if metric in FIRST else (1, 0, metric)


def _mark(rows: Sequence[dict[str, Any]], key: str, column: Mapping[str, Any]) -> None:
    """Mark the best value of a column, if it differs from the next one by more than their deviations."""
    cells = [row["cells"][key] for row in rows if key in row["cells"] and row["cells"][key]["mean"] is not None]
    if column["better"] is None or column.get("metric") in UNMARKED or len(cells) < 2:
        return
    best, following = sorted(cells, key=lambda cell: cell["mean"], reverse=column["better"] == "higher")[:2]
    if differs(best, following):
        best["best"] = True


def _plain(tree: Any) -> Any:
    """The same in types that JSON has: a number that is not finite is None."""
    if isinstance(tree, Mapping):
        return {str(key): _plain(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_plain(value) for value in tree]
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree
