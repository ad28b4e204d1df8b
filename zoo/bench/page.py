"""A leaderboard as one page that needs no network: its data in a block of JSON, its pictures inside."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from string import Template
from typing import Any

from PIL import Image

from zoo.bench.leaderboard import SPEEDS, facts_of, rank, without_weights
from zoo.bench.rows import Run
from zoo.bench.spread import direction
from zoo.bench.words import budget, cell, head, hint, origins, protocols, rule, title, unfinished

__all__ = ["page"]

SIDE = 560
"""Largest side of a picture in pixels: that of 64 images of 64 pixels, side by side."""


def page(board: Mapping[str, Any], pictured: Mapping[str, Run]) -> str:
    """The page.

    Args:
        board: the leaderboard.
        pictured: of each entry a run whose grid of samples is shown, where there is one.
    """
    entries = {entry["name"]: entry for entry in board["entries"]}
    values = "Values are means, with standard deviations over seeds below. Marked: the best of its column."
    content = {
        "title": board["title"],
        "lead": [text for text in (board["description"], budget(board)) if text],
        "rule": f"{values} {rule(board)}",
        "unfinished": unfinished(board),
        "origins": [*origins(board), ("report", board["made_by"])],
        "entries": {name: {"note": entry["note"], **_picture(pictured.get(name))} for name, entry in entries.items()},
        "tables": [_table(board, table, entries) for table in board["tables"]],
    }
    folder = resources.files("zoo.bench")
    # A value may hold whatever a user wrote: inside JSON, no sign may end the script.
    data = json.dumps(content, ensure_ascii=True, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    return Template((folder / "page.html").read_text(encoding="utf-8")).substitute(
        title=html.escape(board["title"]),
        style=(folder / "page.css").read_text(encoding="utf-8"),
        script=(folder / "page.js").read_text(encoding="utf-8"),
        data=data,
    )


def _table(board: Mapping[str, Any], table: Mapping[str, Any], entries: Mapping[str, Any]) -> dict[str, Any]:
    """A table with its cells as texts and numbers, and the curves of its metrics."""
    columns = table["columns"]
    rows = []
    for row in table["rows"]:
        cells = {}
        for column in columns:
            if (found := row["cells"].get(column["key"])) is not None:
                mean, deviation = cell(column, found)
                pairs = zip(found["seeds"], found["values"], strict=True)
                seeds = ", ".join(f"{seed}: {'nan' if v is None else f'{v:.6g}'}" for seed, v in pairs)
                cells[column["key"]] = {
                    "text": mean,
                    "deviation": deviation,
                    "value": found["mean"],
                    "best": found.get("best", False),
                    "hint": f"by seed {seeds}",
                }
        finished = [run for run in entries[row["entry"]]["runs"] if run["state"] == "finished"]
        curves = _curves([run for run in finished if run["seed"] in row["seeds"]])
        facts = {"entry": row["entry"], "weights": row["weights"], "seeds": len(row["seeds"])}
        rows.append({**facts, "cells": cells, "curves": curves})
    return {
        "title": title(table, board["tables"]),
        "protocols": protocols(columns),
        "columns": [
            {"key": c["key"], "label": head(c, columns), "hint": hint(c), "better": c["better"], "cost": c.get("cost")}
            for c in columns
        ],
        "series": _series(columns, rows),
        "rows": rows,
    }


def _series(columns: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What can be drawn against time, in the order of metrics; some was measured along the way alone."""
    by_key = {column["key"]: column for column in columns if "metric" in column}
    points: dict[str, int] = {}
    for row in rows:
        for key, curves in row["curves"].items():
            points[key] = points.get(key, 0) + sum(len(curve["points"]) for curve in curves)
    series = []
    for key in sorted(points, key=lambda key: (rank(key.partition("[")[0]), -points[key])):
        metric = key.partition("[")[0]
        if metric in SPEEDS:
            continue
        same = next((column for column in columns if column.get("metric") == metric), None)
        if key in by_key:
            label, said = head(by_key[key], columns), ""
        else:
            known = facts_of(same["key"]).items() if same else ()
            label = f"{metric} ({[f'{k}={v}' for k, v in facts_of(key).items() if (k, v) not in known][-1]})"
            said = f"Measured along the way: {key}."
        series.append({"key": key, "label": label, "better": direction(metric)[0], "said": said})
    return series


def _curves(runs: Sequence[Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """By column: for each seed the points (seconds, images, value), and whether the run kept its clock."""
    curves: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        own: dict[str, dict[str, Any]] = {}
        for point in run["history"]:
            key = without_weights(point["protocol"])
            if point["value"] is not None:
                curve = own.setdefault(key, {"seed": run["seed"], "clocked": True, "points": []})
                curve["points"].append([point["seconds"], point["images"], point["value"]])
                curve["clocked"] &= point["is_clocked"]
        for key, curve in own.items():
            curves.setdefault(key, []).append(curve)
    return curves


def _picture(run: Run | None) -> dict[str, str]:
    """A run's grid as a data URL, small enough for a page of many, with its words; empty where none can be read."""
    if run is None or run.picture is None:
        return {"picture": "", "of": ""}
    try:
        with Image.open(run.picture) as opened:
            picture = opened.convert("RGB")
    except OSError:  # a kill left half a file; the values are whole
        return {"picture": "", "of": ""}
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=85, method=4)
    url = f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return {"picture": url, "of": f"samples of {run.name}, after {run.facts.get('steps', 0):,} steps"}
