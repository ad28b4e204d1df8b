"""Names of earlier versions, read as today's: class paths and arguments in configurations and in files of weights.

A file of weights, a checkpoint or a run folder of an earlier version names classes and arguments that have moved.
`current_names` and `current_arguments` translate them by the tables of `zoo.pretrained.changes`; nothing else knows
earlier names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zoo.pretrained.changes import CHANGES, Change, plain

__all__ = ["current_arguments", "current_class_path", "current_names"]

MOVED = {"callbacks": "zoo.callbacks", "datamodules": "zoo.datamodules"}
"""Packages by their earlier name."""


def current_class_path(path: str) -> str:
    """Today's path of a class.

    Args:
        path: a dotted path, of this version or an earlier one.
    """
    package, dot, rest = path.partition(".")
    return f"{MOVED[package]}.{rest}" if dot and package in MOVED else path


def current_arguments(path: str, arguments: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Today's class and arguments.

    Args:
        path: path of the class; `zoo.dcgan.DCGAN`, `zoo.DCGAN` and `DCGAN` are the same.
        arguments: those of its constructor, of this version or an earlier one.

    Raises:
        ValueError: an argument has a value that no class of this version stands for.
    """
    path, found = current_class_path(path), {key: current_names(value) for key, value in arguments.items()}
    change = _change(path)
    if change is None:
        return path, found
    for form, target in change.forms:
        if all(key in found and found[key] == value for key, value in form.items()):
            return current_arguments(target, {k: v for k, v in found.items() if k not in form})
    if change.convert is not None:
        found = change.convert(found)
    found = {change.renamed.get(key, key): value for key, value in found.items()}
    for key, value in change.retired.items():
        if plain(found.pop(key, value)) != plain(value):
            raise ValueError(f"{path} no longer has {key}={arguments[key]!r}: CHANGELOG names the class that has")
    return path, found


def _change(path: str) -> Change | None:
    package = path.rpartition(".")[0]
    if package in ("", "zoo", "zoo.datamodules", "zoo.callbacks"):  # the name or the short path of a class
        return next((change for full, change in CHANGES.items() if _is_short(path, full)), None)
    return CHANGES.get(path)


def _is_short(path: str, full: str) -> bool:
    package, _, name = path.rpartition(".")
    module, _, other = full.rpartition(".")
    return name == other and package in ("", module.rpartition(".")[0])


def current_names(tree: Any) -> Any:
    """A copy of a configuration or a header in which every class and its arguments are today's.

    Args:
        tree: dicts, lists and plain values; a class stands under `class_path` or `class`, its arguments beside it
            under `init_args` or `hparams`.

    Raises:
        ValueError: see `current_arguments`.
    """
    if isinstance(tree, list):
        return [current_names(value) for value in tree]
    if not isinstance(tree, dict):
        return tree
    result = {key: current_names(value) for key, value in tree.items()}
    if result.get("kind") == "char" and "features" in result:  # settings of an encoder of sentences
        result = {"embedding_dim" if key == "features" else key: value for key, value in result.items()}
    for name in ("class_path", "class"):
        if isinstance(result.get(name), str):
            given = next((key for key in ("init_args", "hparams") if isinstance(result.get(key), dict)), "")
            result[name], arguments = current_arguments(result[name], result.get(given, {}))
            result |= {given: arguments} if given else {}
    return result
