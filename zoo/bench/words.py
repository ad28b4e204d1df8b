"""A leaderboard in words: cells, heads of columns, protocols, and the page in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from zoo.bench.leaderboard import facts_of
from zoo.bench.spread import COSTS, RULE
from zoo.pretrained import cards

__all__ = [
    *("budget", "cell", "head", "hint", "markdown", "number", "origins", "protocols", "rule", "title", "unfinished"),
]

LABELS = {"sampling_speed": "sampling img/s"}
ARROWS = {"lower": "↓", "higher": "↑", None: ""}


def head(column: Mapping[str, Any], columns: Sequence[Mapping[str, Any]]) -> str:
    """The head of a column, numbered where a metric has several.

    Args:
        column: the column.
        columns: all of the table.
    """
    if "cost" in column:
        return COSTS[column["cost"]].label
    same = [other["key"] for other in columns if other.get("metric") == column["metric"]]
    label = LABELS.get(column["metric"], column["metric"])
    return label if len(same) == 1 else f"{label} ({same.index(column['key']) + 1})"


def hint(column: Mapping[str, Any]) -> str:
    """What a column holds, in a sentence.

    Args:
        column: the column.
    """
    better = f"; {column['better']} is better" if column["better"] else ""
    return (COSTS[column["cost"]].hint if "cost" in column else column["protocol"]) + better


def number(column: Mapping[str, Any], value: float, size: float | None = None) -> str:
    """A number as its column shows it.

    Args:
        column: the column.
        value: the number.
        size: the value that sets the digits; the number itself by default.
    """
    size = value if size is None else size
    if "cost" not in column and column["metric"] not in LABELS:
        return cards.value({"value": size, "unit": column["unit"]}, value)
    kind = column.get("cost")
    if kind in ("images", "parameters") and size >= 1000:
        return f"{value / 1e6:.2f} M" if size >= 999_500 else f"{value / 1e3:.{0 if size >= 9_950 else 1}f} k"
    scale = COSTS[kind].scale if kind else 1.0
    value, size = value / scale, abs(size / scale)
    return f"{value:,.0f}" if size >= 100 or size == int(size) else f"{value:.{1 if size >= 10 else 2}f}"


def cell(column: Mapping[str, Any], found: Mapping[str, Any] | None) -> tuple[str, str]:
    """Mean and deviation of a cell as texts; empty where there are none, "nan" where a value is not finite.

    Args:
        column: the cell's column.
        found: the cell; None where nothing was measured.
    """
    if found is None:
        return "", ""
    if found["mean"] is None:
        return "nan", ""
    if found["deviation"] is None or ("cost" in column and found["deviation"] < found["mean"] / 1000):
        return number(column, found["mean"]), ""  # seeds do not change what a model is, nor what it was given
    return number(column, found["mean"]), number(column, found["deviation"], found["mean"])


def protocols(columns: Sequence[Mapping[str, Any]]) -> list[str]:
    """How the values of a table were made, a line for each group of columns, with what is common to them said once.

    Args:
        columns: the table's columns.
    """
    groups: list[tuple[dict[str, str], list[tuple[str, dict[str, str]]]]] = []
    for column in columns:
        if "cost" in column:
            continue
        own = facts_of(column["protocol"])
        alike = (group for group in groups if len(group[0].items() & own.items()) >= max(2, len(group[0]) - 1))
        if (group := next(alike, None)) is None:
            groups.append(group := (dict(own), []))
        common, members = group
        for key in [key for key, value in common.items() if own.get(key) != value]:
            del common[key]
        members.append((head(column, columns), own))
    lines = []
    for common, members in groups:
        more: dict[str, list[str]] = {}
        for name, own in members:
            if rest := ", ".join(f"{key}={value}" for key, value in own.items() if key not in common):
                more.setdefault(rest, []).append(name)
        names = ", ".join(name for name, _ in members)
        said = ", ".join(f"{key}={value}" for key, value in common.items())
        lines.append("; ".join([f"{names}: {said}", *(f"{', '.join(who)} also {rest}" for rest, who in more.items())]))
    return lines


def title(table: Mapping[str, Any], tables: Sequence[Mapping[str, Any]]) -> str:
    """What sets a table apart from the others; empty if there is only one.

    Args:
        table: the table.
        tables: all of the leaderboard.
    """
    if len(tables) == 1:
        return ""
    first = next((column for column in table["columns"] if "metric" in column), None)
    if first is None:
        return "nothing measured"
    others = [
        facts_of(column["protocol"]).items()
        for other in tables
        if other is not table
        for column in other["columns"]
        if column.get("metric") == first["metric"]
    ]
    own = [f"{k}={v}" for k, v in facts_of(first["protocol"]).items() if not all((k, v) in facts for facts in others)]
    return f"{first['metric']} with {', '.join(own)}" if others and own else str(first["metric"])


def budget(board: Mapping[str, Any]) -> str:
    """The budget of a run in words.

    Args:
        board: the leaderboard.
    """
    parts = [
        f"{number:,g} {'FLOPs' if name == 'flops' else name.removesuffix('s') if number == 1 else name}"
        for name, number in board["budget"].items()
    ]
    return " and ".join(parts) + " of training for each run" if parts else ""


def unfinished(board: Mapping[str, Any]) -> list[str]:
    """The runs that do not count, with the last words of their logs; those of an entry with the same words together.

    Args:
        board: the leaderboard.
    """
    groups: dict[tuple[str, str], list[Any]] = {}
    for entry in board["entries"]:
        for run in entry["runs"]:
            if run["state"] != "finished":
                state = run["state"] + (f": {run['message']}" if run.get("message") else "")
                groups.setdefault((entry["name"], state), []).append(run["seed"])
    lines = []
    for (name, state), seeds in groups.items():
        known = ", ".join(str(seed) for seed in seeds if seed is not None)
        lines.append(f"{name}, seed{'s' if len(seeds) > 1 else ''} {known}: {state}" if known else f"{name}: {state}")
    return lines


def rule(board: Mapping[str, Any]) -> str:
    """When the best value of a column is marked, and what the machines of a board leave unmarked.

    Args:
        board: the leaderboard.
    """
    if all(table["machines"] == 1 for table in board["tables"]):
        return RULE
    what = "no value is" if "minutes" in board["budget"] else "costs and speeds are not"
    why = ", because the same minutes are more training on a faster one" if "minutes" in board["budget"] else ""
    return f"{RULE} In a table with runs of several machines {what} marked{why}."


def origins(board: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Hardware, precision, commit and versions of the finished runs; where they differ, with the runs of each."""
    runs = [(e["name"], run) for e in board["entries"] for run in e["runs"] if run["state"] == "finished"]
    lines = []
    for label in ("data", "hardware", "precision", "commit"):
        known = [(name, run["seed"], _short(label, str(run[label]))) for name, run in runs if run.get(label)]
        lines.append((label, _whose(known)))
    versions = [
        (name, run["seed"], ", ".join(f"{k} {v}" for k, v in run["versions"].items()))
        for name, run in runs
        if "versions" in run
    ]
    return [(label, text) for label, text in [*lines, ("versions", _whose(versions))] if text]


def _short(label: str, text: str) -> str:
    """A commit as its first ten digits, with the sign of changes; other facts whole."""
    return text[:10] + ("+" if text.endswith("+") else "") if label == "commit" and len(text) > 10 else text


def _whose(runs: Iterable[tuple[str, int | None, str]]) -> str:
    """What is said of runs, given by entry and seed: once where it is the same, else each text with its runs."""
    by_text: dict[str, dict[str, list[int | None]]] = {}
    seeds: dict[str, list[int | None]] = {}
    for name, seed, text in runs:
        by_text.setdefault(text, {}).setdefault(name, []).append(seed)
        seeds.setdefault(name, []).append(seed)
    if len(by_text) < 2:
        return "".join(by_text)
    return "; ".join(f"{text} ({_named(entries, seeds)})" for text, entries in by_text.items())


def _named(entries: Mapping[str, list[int | None]], seeds: Mapping[str, list[int | None]]) -> str:
    """Runs by their entries, with seeds where an entry has others besides."""
    groups: dict[str, list[str]] = {}
    for name, own in entries.items():
        known = [] if own == seeds[name] else [str(seed) for seed in own if seed is not None]
        groups.setdefault(f"seed{'s' if len(known) > 1 else ''} {', '.join(known)}" if known else "", []).append(name)
    said = []
    for which, names in groups.items():
        whose = "all entries" if len(names) == len(seeds) else ", ".join(names)
        said.append(f"{which} of {whose}" if which else whose)
    return "; ".join(said)


def markdown(board: Mapping[str, Any]) -> str:
    """The leaderboard in Markdown.

    Args:
        board: the leaderboard.
    """
    notes = {entry["name"]: entry["note"] for entry in board["entries"]}
    lines = [f"# {_escaped(board['title'])}", ""]
    lines += [text for part in (board["description"], budget(board)) if part for text in (f"{_escaped(part)}.", "")]
    for table in board["tables"]:
        columns = table["columns"]
        if name := title(table, board["tables"]):
            lines += [f"## {_escaped(name)}", ""]
        heads = [f"{head(column, columns)} {ARROWS[column['better']]}".strip() for column in columns]
        lines.append(f"| entry | {' | '.join(heads)} | seeds |")
        lines.append("|:--" + "|--:" * (len(columns) + 1) + "|")
        for row in table["rows"]:
            cells = [_cell(column, row["cells"].get(column["key"])) for column in columns]
            name = f"{row['entry']} (ema)" if row["weights"] == "ema" else row["entry"]
            lines.append(f"| {_escaped(name)} | {' | '.join(cells)} | {len(row['seeds'])} |")
        lines += ["", *(f"- `{line}`" for line in protocols(columns)), ""]
    if said := [f"- {_escaped(name)}: {_escaped(note)}" for name, note in notes.items() if note]:
        lines += ["Entries:", "", *said, ""]
    lines += [f"Values are means ± standard deviations over seeds. **Bold**: the best of its column. {rule(board)}", ""]
    lines += [*(f"- {label}: {_escaped(text)}" for label, text in origins(board)), ""]
    if missing := unfinished(board):
        lines += ["Runs that do not count:", "", *(f"- {_escaped(line)}" for line in missing), ""]
    return "\n".join(lines)


def _cell(column: Mapping[str, Any], found: Mapping[str, Any] | None) -> str:
    mean, deviation = cell(column, found)
    text = f"{mean} ± {deviation}" if deviation else mean
    return f"**{text}**" if found and found.get("best") else text


def _escaped(text: str) -> str:
    """Text that Markdown shows as it is."""
    for sign in "\\`*_|<>[]":
        text = text.replace(sign, f"\\{sign}")
    return " ".join(text.split())
