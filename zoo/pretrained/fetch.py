"""The index of published checkpoints, and fetching their files."""

from __future__ import annotations

import importlib
import json
import shutil
from collections.abc import Iterable
from fnmatch import fnmatchcase as fnmatch
from functools import partial
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from zoo.engine.download import download, fetch_once, sha256
from zoo.engine.files import cache_home, nearest
from zoo.pretrained.migrations import current_names

__all__ = ["TASKS", "card", "index", "list_pretrained", "matching", "pull", "task_of"]


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
    """All published checkpoints by name, their classes and arguments under today's names."""
    path = (folder or weights_folder()) / "index.json"
    result: dict[str, dict[str, Any]] = current_names(json.loads(path.read_text())) if path.exists() else {}
    return result


TASKS = {
    "samples": "generation",
    "translations": "translation",
    "assembled images": "assembly",
    "reconstructions": "reconstruction",
    "probabilities": "classification",
    "similarities": "retrieval",
}
"""What a checkpoint is for, by what its grid shows."""


def task_of(entry: dict[str, Any]) -> str:
    """What a checkpoint is for: one of the values of `TASKS`.

    Args:
        entry: its index entry.
    """
    return TASKS[entry.get("pictures") or "samples"]


def list_pretrained(
    pattern: str = "*", *, task: str | None = None, data: str | None = None, max_params: float | None = None
) -> list[str]:
    """Names of published checkpoints, in alphabetical order.

    Args:
        pattern: of the name, as `dcgan*`; a plain text may stand anywhere in the name.
        task: what the checkpoint is for: generation, translation, assembly, reconstruction, classification, retrieval.
        data: a text in the name of its data, such as emoji.
        max_params: most parameters of its networks.

    Raises:
        ValueError: there is no such task.
    """
    if task is not None and task not in TASKS.values():
        raise ValueError(f"there is no task {task!r}: {nearest(task, TASKS.values())}")
    known = index()
    return [
        slug
        for slug in matching(known, pattern)
        if (entry := known[slug])
        and task in (None, task_of(entry))
        and (data or "") in entry["data"]["name"]
        and (max_params is None or entry["parameters"] <= max_params)
    ]


def matching(names: Iterable[str], pattern: str) -> list[str]:
    """The names that match a pattern, in alphabetical order, upper case or lower.

    Args:
        names: names.
        pattern: with wildcards, as `dcgan*`; a plain text may stand anywhere.
    """
    pattern = pattern if any(c in pattern for c in "*?[") else f"*{pattern}*"
    return sorted(name for name in names if fnmatch(name.lower(), pattern.lower()))


def entry_of(slug: str) -> dict[str, Any]:
    """Index entry of a checkpoint.

    Raises:
        LookupError: there is no such checkpoint; names the nearest.
    """
    known = index()
    if slug not in known:
        hint = nearest(slug, known, "`zoo list` names them all")
        raise LookupError(f"there is no checkpoint or file {slug!r}: {hint}")
    return known[slug]


def card(slug: str) -> str:
    """The card of a checkpoint, as Markdown.

    Raises:
        LookupError: there is no such checkpoint; names the nearest.
    """
    entry_of(slug)
    return (weights_folder() / f"{slug}.md").read_text()


def cache_dir() -> Path:
    """Where fetched weights are kept: `$ZOO_HOME/weights`, else `~/.cache/generative-zoo/weights`."""
    return cache_home() / "weights"


def pull(slug: str, *, full: bool = False) -> Path:
    """The file of a checkpoint, fetched if need be, its sum verified.

    Files that come with the package or with generative-zoo-weights are used in place. Others are fetched once (`url`,
    `hf` or `wandb` in the index) into the cache; an interrupted transfer goes on where it stopped. `ZOO_OFFLINE=1`
    forbids fetching.

    Args:
        slug: name of the checkpoint; `<slug>-full` asks for its full file.
        full: the file with all networks, for training on, where there is one.

    Raises:
        LookupError: there is no such checkpoint, or no full file.
        ValueError: the file is not the published one.
        OSError: it could not be fetched.
    """
    if is_named := slug.endswith("-full"):
        slug, full = slug.removesuffix("-full"), True
    entry = entry_of(slug)
    if is_named and "full" not in entry:
        raise LookupError(f"{slug} has no full file, only {', '.join(entry['networks'])}: take {slug}")
    if full and "full" in entry:
        entry = entry | entry["full"]
    path = installed(str(entry["file"]))
    if path is None:
        path = cache_dir() / f"{entry['sha256'][:16]}-{entry['file']}"
        if not path.exists():
            fetch_once(slug, path, entry["sha256"], partial(_transfer, slug, entry))
    if (found := sha256(path)) != entry["sha256"]:
        raise ValueError(
            f"{path} is damaged: its sha256 is {found[:12]}..., published is {entry['sha256'][:12]}...; "
            "delete it and pull again, or install the package again"
        )
    return path


def _transfer(slug: str, entry: dict[str, Any], path: Path) -> None:
    if "url" in entry:
        download(entry["url"], path, int(entry.get("bytes") or 0))
    elif "hf" in entry or "wandb" in entry:
        _download_from_hub(slug, entry, path)
    else:
        raise FileNotFoundError(
            f"{slug} is not among the starters that come with the package: pip install generative-zoo-weights"
        )


def _download_from_hub(slug: str, entry: dict[str, Any], partial: Path) -> None:
    """Fetch a file with the client of the Hugging Face Hub or of wandb, which resume and retry by themselves."""
    try:
        if "hf" in entry:
            fetched = Path(importlib.import_module("huggingface_hub").hf_hub_download(**entry["hf"]))
        else:
            artifact = importlib.import_module("wandb").Api().artifact(entry["wandb"])
            fetched = Path(artifact.download(str(partial.with_suffix(".artifact")))) / entry["file"]
        shutil.copyfile(fetched, partial)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{slug} needs {error.name}: pip install 'generative-zoo[hub]'") from error
    except Exception as error:  # the clients have exceptions of their own, and many
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise OSError(f"cannot fetch {slug} from {entry.get('hf') or entry['wandb']}: {reason[0]}") from error
    finally:
        shutil.rmtree(partial.with_suffix(".artifact"), ignore_errors=True)
