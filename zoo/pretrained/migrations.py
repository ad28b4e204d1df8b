"""Names of earlier versions, read as today's: class paths in configurations and in files of weights."""

from __future__ import annotations

from typing import Any

__all__ = ["current_class_path", "current_names"]

MOVED = {"callbacks": "zoo.callbacks", "datamodules": "zoo.datamodules"}
"""Packages by their earlier name."""


def current_class_path(path: str) -> str:
    """Today's path of a class.

    Args:
        path: a dotted path, of this version or an earlier one.
    """
    package, dot, rest = path.partition(".")
    return f"{MOVED[package]}.{rest}" if dot and package in MOVED else path


def current_names(tree: Any) -> Any:
    """A copy of a configuration or a header in which every `class_path` and `class` is today's.

    Args:
        tree: dicts, lists and plain values.
    """
    if isinstance(tree, dict):
        return {
            key: current_class_path(value)
            if key in ("class_path", "class") and isinstance(value, str)
            else current_names(value)
            for key, value in tree.items()
        }
    return [current_names(value) for value in tree] if isinstance(tree, list) else tree
