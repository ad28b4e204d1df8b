"""One line for what a parser complains of."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

import lightning.pytorch.callbacks as lightning_callbacks
import yaml
from lightning.pytorch import Trainer

import zoo
from zoo import callbacks, datamodules
from zoo.engine.files import nearest
from zoo.pretrained.cards import default_arguments
from zoo.pretrained.changes import CHANGES
from zoo.pretrained.migrations import current_names

__all__ = ["explain", "read_config"]


def read_config(path: Path) -> str:
    """The file's path, or its text if names had to be brought up to date; errors name the file and the line."""
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise ValueError(f"{path}{where}: {getattr(error, 'problem', None) or 'this is no YAML'}") from error
    if not isinstance(settings, dict):
        raise ValueError(f"{path} holds no settings: it should have `model:`, `data:` and `trainer:`")
    current = current_names(settings)
    return str(path) if current == settings else yaml.safe_dump(current, sort_keys=False)


def explain(message: str) -> str:
    """One line for a parser's long message: what is wrong, and what would be right."""
    unknown = re.search(r"[Uu]nrecognized arguments: (\S+)|[Oo]ption '([\w.]+)'(?: is not accepted|)", message)
    if unknown:
        name = (unknown[1] or unknown[2]).split("=")[0]
        return f"there is no setting {name}{_suggest(name.lstrip('-'))}"
    keys = re.findall(r"(?:[Kk]ey|argument) [\"']?([\w.]+)[\"']?:", message)
    kind = re.search(r"dot import path string: (\S+)", message)
    if kind and keys:
        known = {
            "model": [*zoo.ARCHITECTURES],
            "data": datamodules.__all__,
            "trainer.callbacks": [*callbacks.__all__, *lightning_callbacks.__all__],
        }
        return f"there is no {keys[0]} {kind[1]!r}: {nearest(kind[1], known.get(keys[0], []))}"
    got = re.search(r"Got value: (.+)", message) or re.search(r"Given value: (.+)", message)
    if keys and got:
        value = got[1].strip().strip("'")
        literals = re.findall(r"Literal\[(.*?)\]", message)
        choices = [word.strip().strip("'") for group in literals for word in group.split(",")]
        plain = re.search(r"Expected an? <class '(\w+)'>\. Got", message)
        what = f": {nearest(value, choices)}" if choices else f": expected {plain[1]}" if plain else ""
        return f"{'.'.join(keys)} cannot be {value!r}{what}"
    lines = [line.strip(" -") for line in message.partition("Errors:")[2].splitlines() or message.splitlines()]
    about_types = ("Expected a", "Problem with given", "Does not validate", "Subtypes:", "Errors:", "Given value")
    lines = [line for line in lines if line and not line.startswith(about_types)]
    return " ".join(lines[0].split()) if lines else message


def _suggest(name: str) -> str:
    import inspect

    for change in CHANGES.values():
        if today := change.renamed.get(name.rpartition(".")[2]):
            return f": it is called {today!r} now"
    known = [f"trainer.{parameter}" for parameter in inspect.signature(Trainer.__init__).parameters]
    known += [
        "model",
        "data",
        "config",
        "name",
        "runs_dir",
        "init",
        "fresh",
        "checkpoint_every",
        "wandb",
        "seed_everything",
    ]
    for prefix, package in (("model", zoo), ("data", datamodules)):
        exports = zoo.ARCHITECTURES if package is zoo else package.__all__
        for export in exports:
            parameters = default_arguments(f"{package.__name__}.{export}")
            known += [f"{prefix}.{parameter}" for parameter in parameters]
            known += [f"{prefix}.init_args.{parameter}" for parameter in parameters]
    known = [option for option in known if not option.endswith(".self")]
    close = difflib.get_close_matches(name, known, 1, cutoff=0.5)
    if not close:  # without its prefix, as parsers name it within a group
        ends = {option.rpartition(".")[2]: option for option in known}
        close = [ends[end] for end in difflib.get_close_matches(name.rpartition(".")[2], ends, 1)]
    return f": did you mean {close[0]!r}?" if close else "; `zoo fit --help` says more"
