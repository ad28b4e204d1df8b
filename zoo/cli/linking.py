"""Size, channels and classes of a model, from its data unless the command or a recipe says them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from importlib import import_module
from pathlib import Path

import yaml
from jsonargparse import ArgumentParser, Namespace

from zoo.base import GenerativeModel

__all__ = ["given_options", "link"]


def given_options(configs: Sequence[str], arguments: Sequence[str]) -> set[str]:
    """Options of the model that a command gives.

    Args:
        configs: configuration files, or their text.
        arguments: settings on the command line.
    """
    given: set[str] = set()
    trees = [yaml.safe_load(config if "\n" in config else Path(config).read_text()) for config in configs]
    for place, argument in enumerate(arguments):
        name, _, value = argument.partition("=")
        if name in ("--model", "--model.init_args"):
            value = value or "".join(arguments[place + 1 : place + 2])
            tree = yaml.safe_load(value) if value.lstrip().startswith("{") else None
            trees.append({"model": tree if name == "--model" else {"init_args": tree}})
        elif name.startswith("--model."):
            given.add(name.removeprefix("--model.").removeprefix("init_args.").partition(".")[0])
    for tree in trees:
        model = tree.get("model")
        given |= set((model.get("init_args") or {}) if isinstance(model, dict) else {})
    return given


def link(parser: ArgumentParser, config: Namespace, given: Collection[str]) -> None:
    """Set the options of the model that the data determine and nobody has given.

    Args:
        parser: the command's parser.
        config: the parsed configuration, whose `model` is changed.
        given: options that hold as they are.
    """
    module, _, name = config.model.class_path.rpartition(".")
    kind = getattr(import_module(module), name)
    if not issubclass(kind, GenerativeModel) or set(kind.data_options) <= set(given):
        return
    data = parser.instantiate_classes(Namespace(data=config.data)).data  # type: ignore[no-untyped-call]
    for option, value in kind.options_for(data, given).items():
        config.model.init_args[option] = value
