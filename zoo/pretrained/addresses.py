"""Addresses of checkpoints: what a text means that names one. Nothing is looked up here."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

__all__ = ["FORMS", "PICKLES", "Address", "parse", "parse_target"]

FORMS = {
    "hf": "hf://OWNER/NAME or hf://OWNER/NAME@REVISION",
    "wandb": "wandb://ENTITY/PROJECT/NAME or wandb://ENTITY/PROJECT/NAME:ALIAS",
    "https": "https://HOST/.../NAME.safetensors, or https://HOST/REGISTRY/NAME",
}
"""How addresses are written, by their scheme."""
PICKLES = (".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth")
"""Ends of files that could run any code when they are opened."""

PATTERNS = {
    "hf": r"hf://(?P<place>[\w.-]+/[\w.-]+)(?:@(?P<version>[\w./-]+))?",
    "wandb": r"wandb://(?P<place>[\w.-]+/[\w.-]+/[\w.-]+)(?::(?P<version>[\w.-]+))?",
}


@dataclass(frozen=True)
class Address:
    """What a text that names a checkpoint means.

    Attributes:
        text: the text.
        kind: of the Hugging Face Hub, of wandb, a file on a web server, a file or a run folder here, a name in a given
            registry, or a name to be looked up.
        place: repository, artifact, web address, path, or the registry's folder or address.
        name: name in a registry.
        version: revision or alias.
    """

    text: str
    kind: Literal["hf", "wandb", "web", "file", "registry", "name"]
    place: str = ""
    name: str = ""
    version: str = ""


def parse(text: str | os.PathLike[str]) -> Address:
    """The meaning of a text that names a checkpoint.

    Args:
        text: name of a checkpoint, path of a file, `FOLDER/NAME` of a registry, or an address of `FORMS`.

    Raises:
        ValueError: this is no address; says what one looks like.
        IsADirectoryError: this is the folder of a run.
    """
    text = os.fspath(text)
    if "://" in text:
        return _remote(text)
    path = Path(text).expanduser()
    if path.suffix in (".safetensors", *PICKLES) or path.is_file():
        return Address(text, "file", str(path))
    if (path / "checkpoints").is_dir():
        raise IsADirectoryError(f"{text} is a run folder: take its {Path(text) / 'checkpoints' / 'last.ckpt'}")
    if scheme := re.match(r"(hf|wandb|https?):", text):
        raise ValueError(f"{text} is no address: take {_form(scheme[1])}")
    if os.sep in text or "/" in text:
        return Address(text, "registry", str(path.parent), path.name)
    return Address(text, "name", name=text)


def parse_target(text: str | os.PathLike[str]) -> Address:
    """The meaning of a text that says where a checkpoint is pushed.

    Args:
        text: `hf://OWNER/NAME`, with `@BRANCH` if need be, `wandb://ENTITY/PROJECT/NAME`, or a folder.

    Raises:
        ValueError: nothing can be pushed there.
    """
    text = os.fspath(text)
    if text.startswith(("http://", "https://")):
        raise ValueError(f"a web server takes no push: push to the folder that serves {text}")
    if "://" in text or re.match(r"(hf|wandb|https?):", text):
        return parse(text)
    path = Path(text).expanduser()
    if path.is_file() or path.suffix:
        raise ValueError(f"{text} is a file: push to the folder of a registry")
    return Address(text, "registry", str(path))


def _remote(text: str) -> Address:
    scheme = text.partition("://")[0]
    if scheme in PATTERNS:
        if not (found := re.fullmatch(PATTERNS[scheme], text)):
            raise ValueError(f"{text} is no address: take {FORMS[scheme]}")
        return Address(text, "hf" if scheme == "hf" else "wandb", found["place"], version=found["version"] or "")
    if scheme not in ("http", "https"):
        raise ValueError(f"there are no addresses {scheme}://: take {'; '.join(FORMS.values())}; or a path")
    parts = urlsplit(text)
    path = Path(parts.path)
    if path.suffix in PICKLES:
        raise ValueError(f"{text} is a pickle, which could run any code, and was not fetched: take a .safetensors file")
    if path.suffix == ".safetensors":
        return Address(text, "web", text)
    if path.suffix or not parts.hostname or not path.name or parts.query:
        raise ValueError(f"{text} is no address of a checkpoint: take {FORMS['https']}")
    return Address(text, "registry", text.rstrip("/").rpartition("/")[0], path.name)


def _form(scheme: str) -> str:
    return FORMS["https" if scheme == "http" else scheme]
