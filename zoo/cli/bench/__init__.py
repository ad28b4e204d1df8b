"""What `zoo bench` does: one of its commands."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from zoo.cli.usage import Parser, UsageError
from zoo.engine.files import nearest

__all__ = ["bench"]

COMMANDS = {
    "run": ("zoo.cli.bench.run", "train and measure all entries of a suite", "zoo bench run emoji32 --minutes 1"),
    "report": ("zoo.cli.bench.report", "make a leaderboard of a suite's runs", "zoo bench report emoji32"),
    "diff": ("zoo.cli.bench.diff", "compare two leaderboards", "zoo bench diff before/ after/"),
    "speed": ("zoo.cli.bench.speed", "time every architecture on this machine", "zoo bench speed --only dcgan,vae"),
}
"""Commands, each a module with a function of its name, with its purpose and an example."""


def bench(parser: Parser, arguments: list[str]) -> None:
    """Run a command of `zoo bench`."""
    if not arguments or arguments[0] in ("-h", "--help"):
        width = max(map(len, COMMANDS))
        lines = [f"  {name:<{width}}  {text}" for name, (_, text, _) in COMMANDS.items()]
        head = "usage: zoo bench COMMAND [OPTIONS]        (zoo bench COMMAND --help tells more)"
        print("\n".join([head, "", *lines, "", "example:  zoo bench run emoji32 --minutes 1 --seeds 1"]))
        return
    name = arguments[0]
    if name not in COMMANDS:
        raise UsageError(f"there is no command 'bench {name}': {nearest(name, COMMANDS)}")
    module, text, example = COMMANDS[name]
    command: Callable[[Parser, list[str]], None] = getattr(import_module(module), name)
    command(Parser(f"bench {name}", text, example), arguments[1:])
