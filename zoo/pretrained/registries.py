"""Registries: folders, or addresses of a web server, with files of weights and an `index.json` that says what they are.

A name is looked up in the package, in the registries that the environment variable `ZOO_REGISTRY` names (folders or
addresses, separated by commas), and in the user's own, `~/.local/share/generative-zoo`, to which `zoo publish` writes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from zoo.engine.download import download, fetch_once, is_offline, read_remote
from zoo.engine.files import cache_home, data_home, write_atomically
from zoo.pretrained import artifacts, hub
from zoo.pretrained.migrations import current_names
from zoo.pretrained.places import Place, cache_dir, is_sound, verified

__all__ = ["InRegistry", "Registry", "index", "installed", "registries", "weights_folder"]


def weights_folder() -> Path:
    """Where the files that come with the package lie."""
    return Path(str(files("zoo") / "weights"))


def installed(file: str) -> Path | None:
    """A file of weights of this package, or of the distribution of all others; None where neither has it.

    Args:
        file: its name.
    """
    spec = find_spec("generative_zoo_weights")
    others = spec.submodule_search_locations if spec is not None else None
    folders = [weights_folder(), *map(Path, others or [])]
    return next((folder / file for folder in folders if (folder / file).is_file()), None)


def index(folder: Path | None = None) -> dict[str, dict[str, Any]]:
    """All checkpoints of a folder by name, their classes and arguments under today's names.

    Args:
        folder: the folder; by default that of the package.
    """
    return Registry(str(folder or weights_folder())).index()


def registries() -> Iterator[Registry]:
    """The registries in which a name is looked up, in this order."""
    yield Registry(str(weights_folder()))
    for place in os.environ.get("ZOO_REGISTRY", "").split(","):
        if place := place.strip():
            yield Registry(place.rstrip("/") if "://" in place else str(Path(place).expanduser()), required=True)
    yield Registry(str(data_home()))


@dataclass(frozen=True)
class Registry:
    """A folder or a web address with an `index.json`.

    Args:
        place: the folder or the address.
        required: whether it must have an index.
    """

    place: str
    required: bool = False

    @property
    def is_web(self) -> bool:
        """Whether it lies on a web server."""
        return "://" in self.place

    def held(self, file: str) -> Path | None:
        """A file of weights that lies in the registry's folder; None where it has to be fetched.

        Args:
            file: its name.
        """
        if Path(self.place) == weights_folder():
            return installed(file)
        path = Path(self.place, file)
        return None if self.is_web or not path.is_file() else path

    def index(self) -> dict[str, dict[str, Any]]:
        """Its checkpoints by name.

        Raises:
            FileNotFoundError: it has no index.
            ValueError: its index is damaged.
            OSError: it cannot be read.
        """
        try:
            text = self.read("index.json")
        except FileNotFoundError:
            if self.required and not self.is_web:
                raise FileNotFoundError(f"{self.place} is no registry: it has no index.json") from None
            if self.required or self.is_web:
                raise
            return {}
        try:
            found = json.loads(text)
            entries: dict[str, dict[str, Any]] = current_names(found)
            wrong = [
                slug for slug, entry in entries.items() if not re.fullmatch(r"[\w-]+", slug) or not is_sound(entry)
            ]
        except (ValueError, RecursionError, AttributeError) as error:
            raise ValueError(f"the index of {self.place} is damaged: {error}") from error
        if wrong:
            raise ValueError(f"the index of {self.place} is damaged: {wrong[0]!r} has no valid file or sha256")
        return entries

    def read(self, file: str) -> bytes:
        """A small file: the index, a card, a picture. Of a web server, the last copy is kept for offline use.

        Args:
            file: its name.

        Raises:
            OSError: it cannot be read.
        """
        if not self.is_web:
            return Path(self.place, file).read_bytes()
        key = hashlib.sha256(self.place.encode()).hexdigest()[:16]
        kept, address = cache_home() / "registries" / key / file, f"{self.place}/{file}"
        if is_offline():
            if not kept.exists():
                raise FileNotFoundError(f"{address} is not in the cache and ZOO_OFFLINE is set: read it once online")
            return kept.read_bytes()
        content = read_remote(address)
        write_atomically(kept, content)
        return content


@dataclass(frozen=True)
class InRegistry(Place):
    """A checkpoint of a registry.

    Args:
        address: the text by which it was asked for.
        registry: the registry.
        name: its name there.
        stated: its index entry.
        is_full: its full file is meant.
    """

    address: str
    registry: Registry
    name: str
    stated: dict[str, Any]
    is_full: bool = False

    def entry(self) -> dict[str, Any]:
        """Its index entry."""
        return dict(self.stated)

    def pull(self, *, full: bool = False) -> Path:
        """Its file: in place if it lies in the folder, else fetched once into the cache."""
        entry = self.entry()
        if (full or self.is_full) and "full" in entry:
            entry = entry | entry["full"]
        path = self.registry.held(entry["file"])
        if path is None:
            path = cache_dir() / f"{entry['sha256'][:16]}-{entry['file']}"
            if not path.exists():
                fetch_once(self.address, path, entry["sha256"], partial(self._transfer, entry))
        return verified(path, entry["sha256"])

    def _transfer(self, entry: dict[str, Any], path: Path) -> None:
        size = int(entry.get("bytes") or 0)
        if "url" in entry:
            download(entry["url"], path, size)
        elif "hf" in entry:
            shutil.copyfile(hub.file_of(self.address, **entry["hf"]), path)
        elif "wandb" in entry:
            artifacts.copy_file(self.address, entry["wandb"], entry["file"], path)
        elif self.registry.is_web:
            download(f"{self.registry.place}/{entry['file']}", path, size)
        elif Path(self.registry.place) == weights_folder():
            raise FileNotFoundError(
                f"{self.name} is not among the starters that come with the package: pip install generative-zoo-weights"
            )
        else:
            raise FileNotFoundError(f"{self.registry.place} has no file {entry['file']}: push {self.name} again")

    def card(self) -> str | None:
        """Its card, which loads it by the address that was asked for; None if the registry has none."""
        try:
            text = self.registry.read(f"{self.name}.md").decode()
        except OSError:
            return None
        text = re.sub(r'zoo\.load\("[^"]*"', f'zoo.load("{self.address}"', text)
        return re.sub(r"`zoo verify [^`]*`", f"`zoo verify {self.address}`", text)

    def picture(self) -> bytes | None:
        """Its grid, if the registry has one."""
        with contextlib.suppress(OSError):
            return self.registry.read(f"{self.name}.png")
        return None
