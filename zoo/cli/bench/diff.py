"""What `zoo bench diff` does."""

from __future__ import annotations

import json
from pathlib import Path

from zoo.cli.usage import Parser

__all__ = ["diff"]


def diff(parser: Parser, arguments: list[str]) -> None:
    """Compare two leaderboards."""
    parser.add_argument("before", type=Path, help="a leaderboard.json, or the folder that holds it")
    parser.add_argument("after", type=Path, help="another one")
    parser.add_argument("--json", action="store_true", help="print the comparison as JSON")
    options = parser.parse_args(arguments)
    from zoo.bench.difference import difference, lines, read_leaderboard
    from zoo.bench.spread import RULE

    found = difference(read_leaderboard(options.before), read_leaderboard(options.after))
    if options.json:
        print(json.dumps(found, indent=1, ensure_ascii=False))
        return
    names = ("first", "second")
    for name, path in zip(names, (options.before, options.after), strict=True):
        print(f"{name}: {path}")
    for label, (one, two) in found["settings"].items():
        print(f"{label} differs: {one or 'not said'} | {two or 'not said'}")
    print("\n".join(["", *lines(found, names), "", RULE]))
