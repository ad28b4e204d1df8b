"""What the source says: docstrings as Markdown, and where the code departs from its paper."""

from __future__ import annotations

import ast
import inspect
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

__all__ = ["ROOT", "Note", "first_sentence", "notes", "notes_of", "paragraphs"]

ROOT = Path(__file__).parents[1]

MARK = "NOTE(paper):"


class Note(NamedTuple):
    """A comment `# NOTE(paper): ...`."""

    text: str
    file: str
    """Path in the repository."""
    line: int
    owner: str
    """The definition at the top of the file in which, or above which, it stands."""


def paragraphs(docstring: str | None) -> str:
    """A docstring as Markdown: prose as it is, equations and other indented lines as blocks of code."""
    text = inspect.cleandoc(docstring or "")
    blocks = []
    for block in text.split("\n\n"):
        lines = block.splitlines()
        if block.startswith("    "):
            blocks.append("\n".join(["```text", *(line.removeprefix("    ") for line in lines), "```"]))
        else:
            blocks.append(re.sub(r"(?<![`\w])<(?=\w)", "&lt;", block))
    return "\n\n".join(blocks)


def first_sentence(docstring: str | None) -> str:
    """The first line of a docstring, with what belongs to its sentence."""
    return inspect.cleandoc(docstring or "").partition("\n\n")[0].replace("\n", " ")


@cache
def notes(file: str) -> tuple[Note, ...]:
    """The notes of a file.

    Args:
        file: path in the repository.
    """
    source = (ROOT / file).read_text()
    lines = source.splitlines()
    found = []
    for at, line in enumerate(lines):
        start, mark, text = line.partition(f"# {MARK}")
        if not mark or start.strip():
            continue
        words, rest = [text.strip()], at + 1
        while rest < len(lines) and lines[rest].startswith(f"{start}# "):
            words.append(lines[rest].strip().lstrip("# "))
            rest += 1
        found.append(Note(" ".join(words), file, at + 1, _owner(ast.parse(source), rest)))
    return tuple(found)


def _owner(tree: ast.Module, line: int) -> str:
    """The definition at the top of a module that holds a line, or is the first behind it."""
    for node in tree.body:
        if (node.end_lineno or 0) >= line:
            return next(iter(_names(node)), "")
    return ""


def _names(node: ast.stmt) -> list[str]:
    """What a statement defines."""
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]


def notes_of(module: str) -> list[Note]:
    """The notes on an architecture: those of its file, and of the shared definitions that it is made of.

    Args:
        module: the module, such as `zoo.dcgan`.
    """
    found = list(notes(_file(module)))
    for shared, used in _imported(module).items():
        names = _reached(shared, used)
        found += [note for note in notes(_file(shared)) if note.owner in names]
    return found


def _file(module: str) -> str:
    return f"{module.replace('.', '/')}.py"


def _imported(module: str) -> dict[str, set[str]]:
    """Names that a module imports from papers and from shared networks."""
    found: dict[str, set[str]] = {}
    for node in ast.walk(ast.parse((ROOT / _file(module)).read_text())):
        if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("zoo."):
            continue
        source = str(node.module)
        if (source.startswith("zoo.nn.") or source.count(".") == 1) and (ROOT / _file(source)).is_file():
            found.setdefault(source, set()).update(alias.name for alias in node.names)
    return found


def _reached(module: str, names: set[str]) -> set[str]:
    """Definitions of a module that some of them use, those themselves among them."""
    tree = ast.parse((ROOT / _file(module)).read_text())
    uses = {
        name: {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
        for node in tree.body
        for name in _names(node)
    }
    reached, waiting = set[str](), [*names]
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += uses.get(name, set()) & uses.keys()
    return reached
