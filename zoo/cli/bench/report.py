"""What `zoo bench report` does."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from zoo.cli.local import local_path
from zoo.cli.usage import Parser, UsageError

__all__ = ["report"]


def report(parser: Parser, arguments: list[str]) -> None:
    """Make a leaderboard of a suite's runs, or of any runs."""
    add = parser.add_argument
    add("suite", nargs="?", help="name of a suite that was run, or the folder of its runs")
    add("--runs", nargs="+", type=Path, help="run folders of `zoo fit`, in place of a suite's")
    add("--runs_dir", type=local_path, default=Path("runs"), help="folder of all runs (runs)")
    add("--out_dir", type=local_path, help="where the three files go (the suite's folder; leaderboard, with --runs)")
    options = parser.parse_args(arguments)
    if (options.suite is None) == (options.runs is None):
        raise UsageError("give the name of a suite, or --runs with run folders")
    from zoo.bench.reporting import write_report
    from zoo.bench.rows import find_suite, read_runs, read_suite
    from zoo.bench.words import unfinished
    from zoo.callbacks.measures import find_measure

    if options.runs is not None:
        folder, collection = Path("leaderboard"), read_runs(options.runs)
    else:
        folder = find_suite(options.suite, options.runs_dir)
        collection = read_suite(folder)
    folder = options.out_dir or folder
    for name in collection.measures:
        with suppress(ValueError):  # the values are there; without their measure, no side of them is the better one
            find_measure(name)
    board = write_report(collection, folder)
    if missing := unfinished(board):
        print("\n".join(["Runs that do not count:", *(f"  {line}" for line in missing)]))
    finished = sum(run.state == "finished" for run in collection.runs)
    tables = "1 table" if len(board["tables"]) == 1 else f"{len(board['tables'])} tables"
    print(f"{finished} of {len(collection.runs)} runs, {tables}: {folder / 'leaderboard.html'}")
