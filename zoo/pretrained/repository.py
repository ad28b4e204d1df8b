"""The files of a repository as the Hub and other tools read it: weights, configuration, card, picture."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import yaml

from zoo.engine.files import write_atomically
from zoo.pretrained import cards
from zoo.pretrained.files import header
from zoo.pretrained.hub import CARD, CONFIG, PICTURE, WEIGHTS

__all__ = ["front_matter", "write_repository"]

PIPELINES = {
    "translations": "image-to-image",
    "assembled images": "image-to-image",
    "reconstructions": "image-feature-extraction",
    "probabilities": "image-classification",
    "similarities": "feature-extraction",
}
"""The Hub's word for what a checkpoint does, by what its grid shows."""
DATASETS = {
    "CIFAR10": "uoft-cs/cifar10",
    "FashionMNIST": "zalando-datasets/fashion_mnist",
    "MNIST": "ylecun/mnist",
}
"""The Hub's names of data sets, by the class of the DataModule."""
LICENCES = ("apache-2.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc0-1.0", "mit")
"""Licences that the Hub knows by these names, of those that data sets have here."""


def write_repository(
    folder: Path,
    slug: str,
    entry: dict[str, Any],
    weights: Path,
    picture: bytes | None,
    address: str,
    *,
    full: Path | None = None,
) -> None:
    """Write the folder that is uploaded.

    Args:
        folder: an empty folder.
        slug: name of the checkpoint.
        entry: its index entry.
        weights: its file.
        picture: its grid, a PNG.
        address: where a reader of the card finds it.
        full: its full file, which goes under the name that the header of `weights` has for it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(weights, folder / WEIGHTS)
    if full is not None:
        shutil.copyfile(full, folder / header(weights)["full"]["file"])
    write_atomically(folder / CONFIG, json.dumps(entry["hparams"], indent=2, sort_keys=True) + "\n")
    if picture is not None:
        write_atomically(folder / PICTURE, picture)
    front = yaml.safe_dump(front_matter(slug, entry), sort_keys=False, allow_unicode=True, width=120)
    card = cards.card(slug, entry, address, picture=PICTURE if picture is not None else None)
    write_atomically(folder / CARD, f"---\n{front}---\n\n{card}")


def front_matter(slug: str, entry: dict[str, Any]) -> dict[str, Any]:
    """The card's header for the Hub: licence, library, task, tags, data and values.

    Args:
        slug: name of the checkpoint.
        entry: its index entry.
    """
    kind, data = entry["class"].rpartition(".")[2], entry.get("data")
    is_text = "text" in kind.lower() and entry.get("pictures", "samples") == "samples"
    task = "text-to-image" if is_text else PIPELINES.get(entry.get("pictures", ""), "unconditional-image-generation")
    found: dict[str, Any] = {}
    if data:
        licence = data["licence"].lower()
        found |= {"license": licence} if licence in LICENCES else {"license": "other", "license_name": data["licence"]}
    found |= {"library_name": "generative-zoo", "pipeline_tag": task}
    found["tags"] = ["generative-zoo", "pytorch", "lightning", re.sub(r"[^a-z0-9]+", "-", kind.lower())]
    if data:
        name = DATASETS.get(data["class"].rpartition(".")[2], data["name"])
        found["datasets"] = [name]
        metrics = [
            {"type": metric["name"], "name": metric["protocol"], "value": metric["value"]}
            for metric in entry.get("metrics", [])
        ]
        if metrics:
            result = {"task": {"type": task}, "dataset": {"type": name, "name": data["name"]}, "metrics": metrics}
            found["model-index"] = [{"name": slug, "results": [result]}]
    return found
