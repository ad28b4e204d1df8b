"""What differs between two leaderboards: before and after a change, or on two machines."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from zoo.bench.leaderboard import KIND
from zoo.bench.spread import COSTS, differs, direction
from zoo.bench.words import budget, cell, head, number, origins

__all__ = ["difference", "lines", "read_leaderboard"]


def read_leaderboard(path: Path) -> dict[str, Any]:
    """A leaderboard.

    Args:
        path: `leaderboard.json`, or the folder that holds it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no leaderboard.
    """
    file = path / "leaderboard.json" if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(f"there is no {file}: `zoo bench report` writes it")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is no leaderboard of `zoo bench report`: {error}") from error
    if not isinstance(content, dict) or content.get("kind") != KIND:
        raise ValueError(f"{file} is no leaderboard of `zoo bench report`: give leaderboard.json or its folder")
    return content


def difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Two leaderboards side by side.

    Args:
        before: one.
        after: the other.

    Returns:
        `rows` with a verdict each, `only` the entries that one has, `settings` what else differs.
    """
    one, two = ({entry["name"]: entry for entry in board["entries"] if _measured(entry)} for board in (before, after))
    rows = [row for name in one if name in two for row in _rows(one[name], two[name])]
    said = [dict([("budget", budget(board)), *origins(board)]) for board in (before, after)]
    settings = {
        key: [s.get(key, "") for s in said] for key in said[0] | said[1] if said[0].get(key) != said[1].get(key)
    }
    only = [[name for name in one if name not in two], [name for name in two if name not in one]]
    return {"rows": rows, "only": only, "settings": settings}


def _measured(entry: Mapping[str, Any]) -> bool:
    return any(run["state"] == "finished" for run in entry["runs"])


def _rows(one: Mapping[str, Any], two: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Rows of an entry: values of one protocol, values whose protocols differ, costs."""
    values = [{(found["metric"], found["protocol"]): found for found in entry["values"]} for entry in (one, two)]
    for pair in [pair for pair in values[0] if pair in values[1]]:
        metric, protocol = pair
        column = {"key": protocol, "metric": metric, "protocol": protocol}
        yield _row(one["name"], column, values[0][pair], values[1][pair])
    alone = [{pair: own[pair] for pair in own if pair not in other} for own, other in (values, values[::-1])]
    for metric in dict.fromkeys(metric for own in alone for metric, _ in own):
        sides = [[found for (name, _), found in own.items() if name == metric] for own in alone]
        for i in range(max(map(len, sides))):
            found = [side[i] if i < len(side) else None for side in sides]
            column = {"key": metric, "metric": metric, "protocol": ""}
            yield _row(one["name"], column, *found) | {"protocols": [f and f["protocol"] for f in found]}
    for name in COSTS:
        found = [entry["costs"].get(name) for entry in (one, two)]
        if any(found):
            yield _row(one["name"], {"key": name, "cost": name}, *found)


def _row(
    entry: str, column: dict[str, Any], a: Mapping[str, Any] | None, b: Mapping[str, Any] | None
) -> dict[str, Any]:
    better, unit = direction(column["key"] if "cost" in column else column["metric"])
    change = None if not a or not b or None in (a["mean"], b["mean"]) else b["mean"] - a["mean"]
    same_protocol = column.get("protocol") != ""
    return {
        "entry": entry,
        "column": column | {"better": better, "unit": unit},
        "before": a,
        "after": b,
        "difference": change if same_protocol else None,
        "verdict": _verdict(a, b, change, better) if same_protocol else _apart(a, b),
    }


def _apart(a: Mapping[str, Any] | None, b: Mapping[str, Any] | None) -> str:
    return "protocols differ" if a and b else "only in the first" if a else "only in the second"


def _verdict(a: Mapping[str, Any] | None, b: Mapping[str, Any] | None, change: float | None, better: str | None) -> str:
    """Whether a value changed by more than its deviations, in a few words."""
    if not a or not b:
        return _apart(a, b)
    if change is None:
        return "not finite"
    if a["values"] == b["values"]:
        return "equal"
    beyond = differs(a, b)
    if beyond is None:
        return "one seed"
    if not beyond:
        return "within deviations"
    return "CHANGED" if better is None else "BETTER" if (change < 0) == (better == "lower") else "WORSE"


def lines(found: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """A comparison as a table of text; what is equal in every seed is counted alone.

    Args:
        found: what `difference` gave.
        names: names of the two leaderboards.
    """
    rows = [["entry", "value", names[0], names[1], "difference", ""]]
    moved = [row for row in found["rows"] if row["verdict"] != "equal"]
    for row in moved:
        column = row["column"]
        texts = [" ± ".join(filter(None, cell(column, row[side]))) for side in ("before", "after")]
        change = row["difference"]
        signed = ""
        if change is not None:
            signed = ("+" if change > 0 else "") + number(column, change, row["before"]["mean"])
        rows.append([row["entry"], head(column, [column]), *texts, signed, row["verdict"]])
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    text = [
        "  ".join(
            [row[0].ljust(widths[0]), row[1].ljust(widths[1]), *(row[i].rjust(widths[i]) for i in (2, 3, 4)), row[5]]
        )
        for row in rows
    ]
    for row in found["rows"]:
        if row["verdict"] == "protocols differ":
            column = row["column"]
            text.append(f"{row['entry']} {column['metric']}: {row['protocols'][0]} and {row['protocols'][1]}")
    if equal := len(found["rows"]) - len(moved):
        text = [*(text if moved else []), f"{equal} {'other ' if moved else ''}values are equal"]
    for name, entries in zip(names, found["only"], strict=True):
        text += [f"only in {name}: {', '.join(entries)}"] if entries else []
    return [line.rstrip() for line in text]
