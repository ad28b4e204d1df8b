"""The three files of a report: every fact as JSON, tables in Markdown, and a page to look at."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from filelock import FileLock

from zoo.bench.leaderboard import leaderboard
from zoo.bench.page import page
from zoo.bench.rows import Collection
from zoo.bench.words import markdown
from zoo.engine.files import write_atomically

__all__ = ["write_report"]


def write_report(collection: Collection, folder: Path) -> dict[str, Any]:
    """Write `leaderboard.json`, `leaderboard.md` and `leaderboard.html`.

    Args:
        collection: the runs.
        folder: where the files go.

    Returns:
        The leaderboard.

    Raises:
        ValueError: none of the runs is finished.
    """
    board = leaderboard(collection)
    content = {
        "json": json.dumps(board, indent=1, ensure_ascii=False, allow_nan=False) + "\n",
        "md": markdown(board),
        "html": page(board, collection.pictured),
    }
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):  # several workers of a suite may end at once
        for kind, text in content.items():
            write_atomically(folder / f"leaderboard.{kind}", text)
    return board
