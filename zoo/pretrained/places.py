"""Places where one checkpoint lies: what all of them can say, and a file of this machine."""

from __future__ import annotations

import hashlib
import json
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.engine.download import download as transfer
from zoo.engine.download import fetch_once, is_offline, remote_facts, sha256
from zoo.engine.files import cache_home, write_atomically
from zoo.pretrained.files import header

__all__ = ["LocalFile", "Place", "WebFile", "cache_dir", "is_sound", "verified"]


def cache_dir() -> Path:
    """Where fetched weights are kept: `$ZOO_HOME/weights`, else `~/.cache/generative-zoo/weights`."""
    return cache_home() / "weights"


def verified(path: Path, digest: str) -> Path:
    """The path of a file, if the file has the sum.

    Args:
        path: the file.
        digest: its sha256.

    Raises:
        ValueError: it is another file.
    """
    if (found := sha256(path)) != digest:
        raise ValueError(
            f"{path} is damaged: its sha256 is {found[:12]}..., published is {digest[:12]}...; "
            "delete it and pull again, or install the package again"
        )
    return path


def is_sound(entry: Any) -> bool:
    """Whether an entry names plain files with their sums, in no other folder.

    Args:
        entry: what an index or a header from outside says.
    """
    if not isinstance(entry, dict):
        return False
    file, digest = entry.get("file"), entry.get("sha256")
    return (
        isinstance(file, str)
        and re.fullmatch(r"\w[\w.-]*\.safetensors", file) is not None
        and isinstance(digest, str)
        and re.fullmatch(r"[0-9a-f]{64}", digest) is not None
        and ("full" not in entry or is_sound(entry["full"]))
    )


class Place(ABC):
    """Where one checkpoint lies.

    Attributes:
        address: the text by which it was asked for.
        name: a name for it, of small letters if it has one.
    """

    address: str
    name: str

    @abstractmethod
    def pull(self, *, full: bool = False) -> Path:
        """The file of weights on this machine, fetched if need be and verified.

        Args:
            full: the second file, with all networks, where there is one.

        Raises:
            ValueError: the file is not the published one, or none of this package.
            OSError: it could not be fetched.
        """

    def entry(self) -> dict[str, Any]:
        """What an index says of the checkpoint; of a file outside of all indexes, what its header says."""
        path = self.pull()
        return {"file": path.name, "sha256": sha256(path), "bytes": path.stat().st_size} | header(path)

    def card(self) -> str | None:
        """The card, as Markdown; None if there is none."""
        return None

    def picture(self) -> bytes | None:
        """The card's picture, a PNG; None if there is none."""
        return None


@dataclass(frozen=True)
class LocalFile(Place):
    """A file of this machine.

    Args:
        address: the text by which it was asked for.
        path: the file.
    """

    address: str
    path: Path

    @property
    def name(self) -> str:  # type: ignore[override]
        """Its name without its end."""
        return self.path.stem

    def pull(self, *, full: bool = False) -> Path:
        """The path, if there is such a file."""
        if not self.path.is_file():
            raise FileNotFoundError(f"there is no file {self.address}")
        return self.path


@dataclass(frozen=True)
class WebFile(Place):
    """A file on a web server, in no registry.

    The server's ETag, date and length tell whether the file in the cache is still the server's.

    Args:
        address: its address.
    """

    address: str

    @property
    def name(self) -> str:  # type: ignore[override]
        """The end of the address."""
        return Path(self.address.partition("?")[0]).stem

    def pull(self, *, full: bool = False) -> Path:
        """The file in the cache, fetched again if the server has another one."""
        folder, known = cache_dir(), None
        note = folder / f"{_key(self.address)}.json"
        if note.exists():
            known = json.loads(note.read_text())
        if is_offline():
            if known is None or not (folder / known["file"]).exists():
                raise FileNotFoundError(
                    f"{self.address} is not in the cache ({folder}) and ZOO_OFFLINE is set: pull it once online"
                )
            return verified(folder / known["file"], known["sha256"])
        facts = remote_facts(self.address)
        path = folder / f"{_key(self.address + json.dumps(facts))}-{self.name}.safetensors"
        if not {"ETag", "Last-Modified"} & facts.keys():  # nothing tells whether the server's file is another one
            path.unlink(missing_ok=True)
        if path.exists() and known is not None and known["file"] == path.name:
            return verified(path, known["sha256"])
        size = int(facts.get("Content-Length", 0))
        fetch_once(self.address, path, None, lambda partial: transfer(self.address, partial, size))
        header(path)  # it is a file of this package
        write_atomically(note, json.dumps({"file": path.name, "sha256": sha256(path), "address": self.address}))
        return path


def _key(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
