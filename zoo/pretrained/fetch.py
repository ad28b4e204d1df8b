"""Finding checkpoints by name or address, and fetching their files.

`find` is the one way from any text that names a checkpoint to its file, its index entry, its card and its picture.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from fnmatch import fnmatchcase as fnmatch
from pathlib import Path
from typing import Any

from zoo.engine.files import nearest
from zoo.pretrained import cards
from zoo.pretrained.addresses import parse
from zoo.pretrained.artifacts import Artifact
from zoo.pretrained.hub import OnHub
from zoo.pretrained.places import LocalFile, Place, WebFile
from zoo.pretrained.registries import InRegistry, Registry, registries

__all__ = ["TASKS", "card", "entry_of", "find", "known", "list_pretrained", "matching", "pull", "task_of"]

TASKS = {
    "samples": "generation",
    "translations": "translation",
    "assembled images": "assembly",
    "reconstructions": "reconstruction",
    "probabilities": "classification",
    "similarities": "retrieval",
}
"""What a checkpoint is for, by what its grid shows."""


def find(name: str | os.PathLike[str]) -> Place:
    """Where a checkpoint lies; nothing of it is fetched yet.

    Args:
        name: name, path or address: see `zoo.load`.

    Raises:
        LookupError: there is no such checkpoint; names the nearest.
        ValueError: this is no address.
        OSError: a registry cannot be read.
    """
    address = parse(name)
    text = address.text
    if address.kind == "hf":
        return OnHub(text, address.place, address.version)
    if address.kind == "wandb":
        return Artifact(text, address.place, address.version)
    if address.kind == "web":
        return WebFile(text)
    if address.kind == "file":
        return LocalFile(text, Path(address.place))
    if address.kind == "registry":
        registry = Registry(address.place, required=True)
        if not registry.is_web and not Path(address.place, "index.json").exists():
            raise LookupError(f"there is no checkpoint or file {text!r}: {address.place} has no index.json")
        held = registry.index()
        if found := _held(text, registry, held, address.name):
            return found
        raise LookupError(f"{address.place} has no checkpoint {address.name!r}: {nearest(address.name, held)}")
    names: list[str] = []
    for registry in registries():
        held = registry.index()
        if found := _held(text, registry, held, text):
            return found
        names += held
    raise LookupError(f"there is no checkpoint or file {text!r}: {nearest(text, names, '`zoo list` names them all')}")


def _held(text: str, registry: Registry, held: dict[str, dict[str, Any]], name: str) -> Place | None:
    """A checkpoint of a registry, or its full file under the name `<slug>-full`; None if it has none of this name."""
    slug = name.removesuffix("-full")
    if name in held:
        return InRegistry(text, registry, name, held[name])
    if slug == name or slug not in held:
        return None
    if "full" not in held[slug]:
        raise LookupError(f"{slug} has no full file, only {', '.join(held[slug]['networks'])}: take {slug}")
    return InRegistry(text, registry, slug, held[slug], is_full=True)


def pull(name: str | os.PathLike[str], *, full: bool = False) -> Path:
    """The file of a checkpoint, fetched if need be, its sum verified.

    Files that come with the package or with generative-zoo-weights and files of this machine are used in place. Others
    are fetched once into a cache; an interrupted transfer goes on where it stopped. `ZOO_OFFLINE=1` forbids fetching.

    Args:
        name: name, path or address: see `zoo.load`; `<slug>-full` asks for a full file.
        full: the file with all networks, for training on, where there is one.

    Raises:
        LookupError: there is no such checkpoint, or no full file.
        ValueError: the file is not the published one, or none of this package.
        OSError: it could not be fetched.
    """
    return find(name).pull(full=full)


def entry_of(name: str | os.PathLike[str]) -> dict[str, Any]:
    """Index entry of a checkpoint; of a file outside of all indexes what its header says.

    Args:
        name: name, path or address: see `zoo.load`.

    Raises:
        LookupError: there is no such checkpoint; names the nearest.
    """
    return find(name).entry()


def card(name: str | os.PathLike[str]) -> str:
    """The card of a checkpoint, as Markdown.

    Args:
        name: name, path or address: see `zoo.load`.

    Raises:
        LookupError: there is no such checkpoint; names the nearest.
    """
    place = find(name)
    return place.card() or cards.card(place.name, place.entry(), place.address, picture=None)


# Lists ---------------------------------------------------------------------------------------------------------------


def known() -> dict[str, dict[str, Any]]:
    """Index entries of all registries by name; a name means its first one."""
    entries: dict[str, dict[str, Any]] = {}
    for registry in registries():
        entries = registry.index() | entries
    return entries


def task_of(entry: dict[str, Any]) -> str:
    """What a checkpoint is for: one of the values of `TASKS`.

    Args:
        entry: its index entry.
    """
    return TASKS[entry.get("pictures") or "samples"]


def list_pretrained(
    pattern: str = "*", *, task: str | None = None, data: str | None = None, max_params: float | None = None
) -> list[str]:
    """Names of the checkpoints of all registries, in alphabetical order.

    Args:
        pattern: of the name, as `dcgan*`; a plain text may stand anywhere in the name.
        task: what the checkpoint is for: generation, translation, assembly, reconstruction, classification, retrieval.
        data: a text in the name of its data, such as emoji.
        max_params: most parameters of its networks.

    Raises:
        ValueError: there is no such task.
        OSError: a registry cannot be read.
    """
    if task is not None and task not in TASKS.values():
        raise ValueError(f"there is no task {task!r}: {nearest(task, TASKS.values())}")
    entries = known()
    return [
        slug
        for slug in matching(entries, pattern)
        if (entry := entries[slug])
        and task in (None, task_of(entry))
        and (data or "") in entry.get("data", {}).get("name", "")
        and (max_params is None or entry.get("parameters", 0) <= max_params)
    ]


def matching(names: Iterable[str], pattern: str) -> list[str]:
    """The names that match a pattern, in alphabetical order, upper case or lower.

    Args:
        names: names.
        pattern: with wildcards, as `dcgan*`; a plain text may stand anywhere.
    """
    pattern = pattern if any(c in pattern for c in "*?[") else f"*{pattern}*"
    return sorted(name for name in names if fnmatch(name.lower(), pattern.lower()))
