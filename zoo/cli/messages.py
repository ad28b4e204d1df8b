"""One line for what a parser complains of."""

from __future__ import annotations

import importlib
import math
import re
from pathlib import Path
from typing import Any

import lightning.pytorch.callbacks as lightning_callbacks
import yaml
from lightning.pytorch import LightningDataModule

import zoo
from zoo import callbacks, datamodules
from zoo.base import GenerativeModel
from zoo.cli.advice import about_setting, about_word
from zoo.engine.files import nearest
from zoo.pretrained.migrations import current_names

__all__ = ["explain", "load_settings", "read_config"]


MOST = 100_000
"""Values that a configuration may hold, its aliases written out."""


def read_config(path: Path) -> str:
    """The file's path, or its text if names had to be brought up to date; errors name the file and the line."""
    settings = load_settings(path)
    current = current_names(settings)
    return str(path) if current == settings else yaml.safe_dump(current, sort_keys=False)


def load_settings(path: Path) -> dict[str, Any]:
    """The settings of a YAML file.

    Args:
        path: the file.

    Raises:
        ValueError: names the file, the line where YAML ends to be YAML, and what is wrong.
    """
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise ValueError(f"{path}{where}: {getattr(error, 'problem', None) or 'this is no YAML'}") from error
    if not isinstance(settings, dict):
        raise ValueError(f"{path} holds no settings: it should have `model:`, `data:` and `trainer:`")
    if _written_out(settings, {}) > MOST:
        raise ValueError(f"{path} holds more than {MOST:,} values once its aliases (*name) are written out")
    return settings


def _written_out(tree: Any, known: dict[int, float]) -> float:
    """Number of values in a tree, each alias counted as what it stands for; infinite if one stands for itself."""
    if not isinstance(tree, dict | list):
        return 1
    if id(tree) not in known:
        known[id(tree)] = math.inf  # while it is being counted
        children = tree.values() if isinstance(tree, dict) else tree
        known[id(tree)] = 1 + sum(_written_out(child, known) for child in children)
    return known[id(tree)]


def _why_not(path: str, role: str) -> str | None:
    """Why a class of the user's own, given by its path, cannot be the model or the data; None if nothing is wrong."""
    module, _, name = path.rpartition(".")
    if not module or not all(part.isidentifier() for part in path.split(".")):
        return None
    try:
        found = getattr(importlib.import_module(module), name, None)
    except Exception as error:  # whatever the user's file raises
        if isinstance(error, ModuleNotFoundError) and error.name == module.partition(".")[0]:
            return f"{role} {path}: there is no {error.name}.py in {Path.cwd()}, and no installed package {error.name}"
        return f"{role} {path} cannot be imported: {type(error).__name__}: {error}"
    if found is None:
        own = [key for key, value in vars(importlib.import_module(module)).items() if isinstance(value, type)]
        return f"{module} has no {name}: {nearest(name, own) if own else 'it has no class'}"
    base = {"model": GenerativeModel, "data": LightningDataModule}[role]
    if not (isinstance(found, type) and issubclass(found, base)):
        return f"{path} is no {base.__name__}: derive its class from {base.__module__}.{base.__name__}"
    return None


def explain(message: str) -> str:
    """One line for a parser's long message: what is wrong, and what would be right."""
    keys = re.findall(r"(?:[Kk]ey|argument) [\"']?([\w.]+)[\"']?:", message)
    about = re.search(r"given class_path '([\w.]+)'", message)
    if unknown := re.search(r"[Uu]nrecognized arguments: (\S+)", message):
        word = unknown[1].split("=")[0]
        if not word.startswith("-"):
            return f"there is no argument {word}{about_word(word)}"
        return f"there is no setting {word}{about_setting(word.lstrip('-'))}"
    if unknown := re.search(r"[Oo]ption '([\w.]+)'", message):
        group = keys[0] if keys and about else ""
        name = f"{group}.{unknown[1]}" if group in ("model", "data") else unknown[1]
        return f"there is no setting {name}{about_setting(unknown[1], group, about[1] if about else '')}"
    if about and keys and (missing := re.search(r"following arguments are required: ([\w.]+)", message)):
        return f"{about[1].rpartition('.')[2]} needs {missing[1]}: set --{keys[0]}.{missing[1]}"
    if seed := re.search(r"(\S+) is not in bounds, numpy accepts from 0 to (\d+)", message):
        return f"seed_everything must lie in 0..{seed[2]}, not {seed[1]}"
    kind = re.search(r"dot import path string: (\S+)", message)
    if kind and keys and keys[0] in ("optimizer", "lr_scheduler"):
        return f"there is no setting {keys[0]}{about_setting(keys[0])}"
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
        if keys[-1] in ("model", "data") and (reason := _why_not(value, keys[-1])):
            return reason
        literals = re.findall(r"Literal\[(.*?)\]", message)
        choices = [word.strip().strip("'") for group in literals for word in group.split(",")]
        plain = re.search(r"Expected an? <class '(\w+)'>\. Got", message)
        what = f": {nearest(value, choices)}" if choices else f": expected {plain[1]}" if plain else ""
        return f"{'.'.join(keys)} cannot be {value!r}{what}"
    lines = [line.strip(" -") for line in message.partition("Errors:")[2].splitlines() or message.splitlines()]
    about_types = ("Expected a", "Problem with given", "Does not validate", "Subtypes:", "Errors:", "Given value")
    lines = [line for line in lines if line and not line.startswith(about_types)]
    return " ".join(lines[0].split()) if lines else message
