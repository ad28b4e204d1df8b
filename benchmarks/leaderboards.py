"""Keeps a suite's results and shows them in the project's README.md: `python -m benchmarks.leaderboards [FOLDER ...]`.

A folder is that of `zoo bench run`. What a report reads of its finished runs is kept in `benchmarks/leaderboards/`,
which leaves out weights and logs: `zoo bench report benchmarks/leaderboards/emoji32` makes the page to sort and filter,
`zoo bench diff benchmarks/leaderboards/emoji32 runs/bench/emoji32` compares a suite's runs on another machine. Runs of
further seeds and entries join those that are kept. Without a folder the reports are made anew.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from PIL import Image, ImageDraw, ImageFont

from benchmarks.architectures import filled
from zoo.bench.leaderboard import leaderboard
from zoo.bench.rows import Collection, Run, read_suite
from zoo.bench.words import cell, head, markdown, number

__all__ = ["keep", "kept", "main", "picture", "read", "rows", "section", "write"]

ROOT = Path(__file__).parents[1]
KEPT = ROOT / "benchmarks" / "leaderboards"
START, END = "<!-- leaderboards: python -m benchmarks.leaderboards -->", "<!-- end of leaderboards -->"
SHOWN = 3
"""Rows of a table that the README has, the best by its first column."""
IN_README = ("fd", "precision", "recall", "nll")
"""Metrics in the README's table."""
SPEED = "training_images_per_second"
COLUMNS, SIDE, TEXT, GAP = 8, 64, 210, 2
"""Images of a row of the picture, their side in pixels, the width of the text in front, and what is between them."""
GRID_COLUMNS, GRID_GAP = 8, 2
"""How a run's grid of 64 samples is laid out."""


# Keeping -------------------------------------------------------------------------------------------------------------


def keep(folder: Path, home: Path = KEPT) -> Path:
    """Copy what a report reads of a suite's finished runs.

    Args:
        folder: the suite's folder, as `zoo bench run` leaves it.
        home: where the folder of its name is, or will be.

    Returns:
        The folder with the copies.

    Raises:
        FileNotFoundError: there is no suite in the folder.
        ValueError: none of its runs is finished, one is of changed code, or runs that are kept already
            are of another data set, budget or measurement.
    """
    if not (folder / "suite.yaml").is_file():
        raise FileNotFoundError(f"{folder} is no suite's folder: there is no suite.yaml in it")
    runs = [run for run in read_suite(folder).runs if run.state == "finished"]
    if not runs:
        raise ValueError(f"no run in {folder} is finished")
    for run in runs:
        if not (commit := str(run.facts.get("commit") or "")) or commit.endswith("+"):
            raise ValueError(f"{run.folder} is of {commit or 'an unknown commit'}: only runs of a commit are kept")
    target = home / folder.name
    suite, costs = _suite(folder), json.loads((folder / "flops.json").read_text())
    if (target / "suite.yaml").is_file():
        suite, costs = _joined(_suite(target), suite, target), json.loads((target / "flops.json").read_text()) | costs
    target.mkdir(parents=True, exist_ok=True)
    (target / "suite.yaml").write_text(yaml.safe_dump(suite, sort_keys=False))
    (target / "flops.json").write_text(json.dumps(costs, indent=1) + "\n")
    for run in runs:
        _keep_run(run, target / run.folder.name)
    return target


def _suite(folder: Path) -> dict[str, Any]:
    """A suite's settings; where the data lie is a matter of the machine."""
    suite: dict[str, Any] = yaml.safe_load((folder / "suite.yaml").read_text())
    suite["data"].get("init_args", {}).pop("data_dir", None)
    return suite


def _joined(old: dict[str, Any], new: dict[str, Any], target: Path) -> dict[str, Any]:
    """The settings of two suites whose runs can stand in one table."""
    for key in sorted({*old, *new} - {"entries", "seeds", "description"}):
        if old.get(key) != new.get(key):
            raise ValueError(f"{key} is {new.get(key)}, {target} has runs with {old.get(key)}: keep one of them")
    for entry in old["entries"].keys() & new["entries"].keys():
        one, two = ({k: v for k, v in suite["entries"][entry].items() if k != "note"} for suite in (old, new))
        if one != two:
            raise ValueError(f"entry {entry} has other settings than its runs in {target}: keep one of them")
    seeds = sorted({*old["seeds"], *new["seeds"]})
    return new | {"entries": old["entries"] | new["entries"], "seeds": seeds}


def _keep_run(run: Run, target: Path) -> None:
    """Copy a run's summary, the values that it measured along the way, and its last grid."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    shutil.copy(run.folder / "run.json", target)
    with open(run.folder / "metrics.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    metrics = [name for name in lines[0] if f"{name}_protocol" in lines[0]] if lines else []
    columns = ["step", "budget_seconds", "budget_images", *(n for m in metrics for n in (m, f"{m}_protocol"))]
    with open(target / "metrics.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(line for line in lines if any(line[metric] for metric in metrics))
    if run.picture is not None:
        (target / "samples").mkdir()
        shutil.copy(run.picture, target / "samples")


def kept() -> list[Path]:
    """The folders of the suites that are kept, by name."""
    return sorted(path.parent for path in KEPT.glob("*/suite.yaml"))


# Showing -------------------------------------------------------------------------------------------------------------


def read(folder: Path) -> tuple[Collection, dict[str, Any]]:
    """The kept runs of a suite, and their leaderboard, whose paths are those in the project.

    Args:
        folder: the folder.
    """
    collection = read_suite(folder)
    runs = [
        replace(run, folder=run.folder.relative_to(ROOT) if run.folder.is_relative_to(ROOT) else run.folder)
        for run in collection.runs
    ]
    collection = replace(collection, runs=runs)
    return collection, leaderboard(collection)


def write(folder: Path) -> None:
    """Write the leaderboard of kept runs as JSON and Markdown, and its picture.

    Args:
        folder: the folder.
    """
    collection, board = read(folder)
    (folder / "leaderboard.json").write_text(json.dumps(board, indent=1, ensure_ascii=False) + "\n")
    (folder / "leaderboard.md").write_text(markdown(board))
    picture(collection, board).save(folder / "leaderboard.png", optimize=True)


def rows(board: Mapping[str, Any]) -> list[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """All rows of a leaderboard, each with its table."""
    return [(table, row) for table in board["tables"] for row in table["rows"]]


def picture(collection: Collection, board: Mapping[str, Any]) -> Image.Image:
    """A row for each entry: its first value, its precision and recall, and the first samples of its first seed.

    Args:
        collection: the runs.
        board: their leaderboard.
    """
    step = SIDE + GAP
    found = Image.new("RGB", (TEXT + COLUMNS * step, len(rows(board)) * step), "white")
    draw = ImageDraw.Draw(found)
    fonts = ImageFont.load_default(15), ImageFont.load_default(12)
    for i, (table, row) in enumerate(rows(board)):
        lines = [_value(table, row, name) for name in IN_README]
        draw.text((8, i * step + 6), row["entry"], "black", fonts[0])
        draw.text((8, i * step + 27), lines[0], "#333", fonts[1])
        draw.text((8, i * step + 43), ", ".join(filter(None, lines[1:3])), "#555", fonts[1])
        if (run := collection.pictured.get(row["entry"])) is not None and run.picture is not None:
            for column, image in enumerate(_first_images(run.picture)):
                found.paste(image, (TEXT + column * step, i * step))
    return found


def _first_images(path: Path) -> list[Image.Image]:
    """The first row of a grid, each image as large as the picture shows it."""
    with Image.open(path) as opened:
        grid = opened.convert("RGB")
    side = (grid.width - GRID_GAP) // GRID_COLUMNS - GRID_GAP
    boxes = [(GRID_GAP + i * (side + GRID_GAP), GRID_GAP) for i in range(COLUMNS)]
    return [grid.crop((x, y, x + side, y + side)).resize((SIDE, SIDE), Image.Resampling.NEAREST) for x, y in boxes]


def _value(table: Mapping[str, Any], row: Mapping[str, Any], metric: str, *, named: bool = True) -> str:
    """A metric of a row with its deviation; empty where it was not measured."""
    for column in table["columns"]:
        if column.get("metric") == metric and column["key"] in row["cells"]:
            mean, deviation = cell(column, row["cells"][column["key"]])
            text = f"{mean} ± {deviation}" if deviation and (not named or metric == IN_README[0]) else mean
            return f"{head(column, table['columns'])} {text}" if named else text
    return ""


def section(boards: Mapping[str, Mapping[str, Any]]) -> str:
    """The README's part: a picture of each suite, and the best rows of each of its tables.

    Args:
        boards: leaderboards by the names of their folders.
    """
    pictures = [f"[![Leaderboard of {name}]({_path(name)}.png)]({_path(name)}.md)" for name in boards]
    shown = [(board, t, row) for board in boards.values() for t in board["tables"] for row in t["rows"][:SHOWN]]
    metrics = [name for name in IN_README if any(_value(table, row, name) for _, table, row in shown)]
    lines = [
        f"| data | entry | {' | '.join(metrics)} | train img/s | seeds |",
        "|:--|:--|" + "--:|" * (len(metrics) + 2),
    ]
    for board, table, row in shown:
        runs = next(entry["runs"] for entry in board["entries"] if entry["name"] == row["entry"])
        data = next(run["data"] for run in runs if run["state"] == "finished")
        cells = [_value(table, row, metric, named=False) for metric in metrics]
        cells += [number({"cost": SPEED}, row["cells"][SPEED]["mean"]), str(len(row["seeds"]))]
        lines.append(f"| {data} | {row['entry']} | {' | '.join(cells)} |")
    return "\n".join([*pictures, "", *lines])


def _path(name: str) -> str:
    return f"benchmarks/leaderboards/{name}/leaderboard"


def document(text: str) -> str:
    """A README with the present part.

    Args:
        text: the README.

    Raises:
        ValueError: the README lacks the marks between which the part stands.
    """
    return filled(text, START, END, section({folder.name: read(folder)[1] for folder in kept()}))


def main(arguments: Sequence[str] | None = None) -> None:
    """Keep the runs, and write their leaderboards and the README's part."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.leaderboards",
        description="Keep what a report reads of suites, and write the project's leaderboards.",
        epilog="example: python -m benchmarks.leaderboards runs/bench/emoji32",
    )
    parser.add_argument("folders", nargs="*", type=Path, help="folders of suites, such as runs/bench/emoji32")
    args = parser.parse_args(arguments)
    try:
        for folder in args.folders:
            keep(folder)
    except (OSError, ValueError) as error:
        sys.exit(f"benchmarks.leaderboards: {error}")
    for folder in kept():
        write(folder)
    readme = ROOT / "README.md"
    readme.write_text(document(readme.read_text()))


if __name__ == "__main__":
    main()
