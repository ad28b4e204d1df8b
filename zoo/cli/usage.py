"""Parsers of the commands, and their complaints."""

from __future__ import annotations

import argparse
from typing import NoReturn

from zoo.engine.files import nearest

__all__ = ["Parser", "UsageError"]


class UsageError(Exception):
    """The command was not understood: exit code 2."""


class Parser(argparse.ArgumentParser):
    """Parser of a command, whose errors are exceptions.

    Args:
        name: the command.
        text: what it does.
        example: a command that does it.
    """

    def __init__(self, name: str, text: str, example: str) -> None:
        super().__init__(
            prog=f"zoo {name}",
            description=text,
            epilog=f"example:  {example}",
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def error(self, message: str) -> NoReturn:
        """Raise what argparse would print and exit with."""
        if (option := message.removeprefix("unrecognized arguments: ").split()[0].split("=")[0]).startswith("-"):
            message = f"there is no option {option}: {nearest(option, self._option_string_actions)}"
        raise UsageError(message)
