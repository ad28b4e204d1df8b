"""Pages of what can be called: commands, data sets, callbacks, measures, and the classes below."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import os
from collections.abc import Iterator, Mapping
from unittest import mock

from docs.source import first_sentence, paragraphs
from zoo import callbacks, datamodules
from zoo.callbacks import metrics
from zoo.callbacks.measures import MEASURES
from zoo.cli import bench as bench_commands
from zoo.cli import main as command

__all__ = ["api", "callbacks_page", "commands", "data_sets", "measures"]

COLUMNS = "100"
"""Width of the help texts."""


def commands() -> str:
    """What each `zoo X --help` prints."""
    parts = ["# Command line", "Each text is what the command prints with `--help`.", _help([])]
    for name, (_, text, _) in command.COMMANDS.items():
        parts += [f"## zoo {name}", f"{text[0].upper()}{text[1:]}.", _help([name])]
        if name == "bench":
            for part in bench_commands.COMMANDS:
                parts += [f"### zoo bench {part}", _help([name, part])]
    return "\n\n".join(parts) + "\n"


def _help(names: list[str]) -> str:
    """The help text of a command, as a block."""
    printed = io.StringIO()
    narrow = mock.patch.dict(os.environ, {"COLUMNS": COLUMNS})
    with narrow, contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        command.main([*names, "--help"])
    return f"```text\n{printed.getvalue().rstrip()}\n```"


def data_sets() -> str:
    """The DataModules."""
    head = [
        "# Data sets",
        paragraphs(importlib.import_module("zoo.datamodules").__doc__),
        "Emoji come with the package and Shapes are drawn, so that neither needs a download.",
    ]
    return _classes(head, datamodules._EXPORTS)


def callbacks_page() -> str:
    """The callbacks."""
    return _classes(["# Callbacks", paragraphs(callbacks.__doc__)], callbacks._EXPORTS)


def _classes(head: list[str], exports: Mapping[str, str]) -> str:
    """A table of classes by name, then each by mkdocstrings."""
    lines = ["| | |", "|---|---|"]
    for name, module in sorted(exports.items()):
        kind = getattr(importlib.import_module(module), name)
        lines.append(f"| [`{name}`][{module}.{name}] | {first_sentence(kind.__doc__)} |")
    blocks = [f"::: {module}.{name}\n    options:\n      heading_level: 2" for name, module in sorted(exports.items())]
    return "\n\n".join([*head, "\n".join(lines), *blocks]) + "\n"


def measures() -> str:
    """The measures, and the metrics of which they are made."""
    lines = ["| measure | what it is | of a model that | better | usual images |", "|---|---|---|---|---|"]
    parts = []
    for name, found in sorted(MEASURES.items()):
        text = inspect.cleandoc(found.function.__doc__ or "")
        needs, images = found.needs.__name__, f"{found.num_samples or 'all'} of {found.split}"
        lines.append(f"| [`{name}`](#{name}) | {first_sentence(text)} | `{needs}` | {found.better} | {images} |")
        parts.append(f"### {name} {{ #{name} }}\n\n{paragraphs(text)}")
    shown = [f"::: {where}\n    options:\n      heading_level: 3" for where in _metrics()]
    return "\n\n".join(["\n".join(lines), "## Each measure", *parts, "## Classes", *shown]) + "\n"


def _metrics() -> Iterator[str]:
    """Paths of the metrics that the package exports."""
    for name in metrics.__all__:
        found = getattr(metrics, name)
        if inspect.isclass(found):
            yield f"{found.__module__}.{name}"


API = {
    "Load, sample, show": [
        "zoo.pretrained.loading.load",
        "zoo.pretrained.fetch.list_pretrained",
        "zoo.recipes.list_recipes",
        "zoo.pretrained.evaluation.evaluate",
        "zoo.engine.pictures.grid",
        "zoo.engine.pictures.gif",
        "zoo.engine.pictures.scatter",
    ],
    "What a model is": [
        "zoo.base.model.GenerativeModel",
        "zoo.base.adversarial.AdversarialModel",
        "zoo.base.single_objective.SingleObjectiveModel",
        "zoo.base.noise.NoiseToImageGAN",
        "zoo.base.latent.LatentVariableModel",
        "zoo.base.autoregressive.AutoregressiveModel",
        "zoo.base.growing.GrowingGAN",
    ],
    "What data are": ["zoo.datamodules.base.module.ImageDataModule"],
    "What a callback may ask of a model": ["zoo.callbacks.base.protocols"],
    "Layers, losses, schedules": ["zoo.nn.layers", "zoo.nn.losses", "zoo.nn.schedules", "zoo.nn.augment"],
    "How a model runs": ["zoo.engine.rng", "zoo.engine.distributed", "zoo.engine.checkpoint"],
}
"""Modules and classes of the reference, by what they are about."""


def api() -> str:
    """The classes on which architectures stand."""
    parts = ["# API", "Architectures, data sets, callbacks and measures have pages of their own."]
    for title, names in API.items():
        parts += [f"## {title}", *(f"::: {name}\n    options:\n      heading_level: 3" for name in names)]
    return "\n\n".join(parts) + "\n"
