"""The index of published checkpoints, and fetching their files."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import shutil
import time
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.engine.files import cache_home, nearest
from zoo.pretrained.migrations import current_names

if TYPE_CHECKING:
    pass

__all__ = ["card", "index", "list_pretrained", "pull"]


def weights_folder() -> Path:
    """Where the files that come with the package lie."""
    return Path(str(files("zoo") / "weights"))


def index(folder: Path | None = None) -> dict[str, dict[str, Any]]:
    """All published checkpoints by name, their classes and arguments under today's names."""
    path = (folder or weights_folder()) / "index.json"
    result: dict[str, dict[str, Any]] = current_names(json.loads(path.read_text())) if path.exists() else {}
    return result


def list_pretrained() -> list[str]:
    """Names of all published checkpoints."""
    return sorted(index())


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


def sha256(path: Path) -> str:
    """Sum of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cache_dir() -> Path:
    """Where fetched weights are kept: `$ZOO_HOME/weights`, else `~/.cache/generative-zoo/weights`."""
    return cache_home() / "weights"


def pull(slug: str) -> Path:
    """The file of a checkpoint, fetched if need be, its sum verified.

    Files that come with the package are used in place. Others are fetched once (`url`, `hf` or `wandb` in the index)
    into the cache; an interrupted transfer goes on where it stopped. `ZOO_OFFLINE=1` forbids fetching.

    Raises:
        LookupError: there is no such checkpoint.
        ValueError: the file is not the published one.
        OSError: it could not be fetched.
    """
    entry = entry_of(slug)
    path = weights_folder() / str(entry["file"])
    if not path.exists():
        path = cache_dir() / f"{entry['sha256'][:16]}-{entry['file']}"
        if not path.exists():
            _fetch(slug, entry, path)
    if (found := sha256(path)) != entry["sha256"]:
        raise ValueError(
            f"{path} is damaged: its sha256 is {found[:12]}..., published is {entry['sha256'][:12]}...; "
            "delete it and pull again, or install the package again"
        )
    return path


def _fetch(slug: str, entry: dict[str, Any], path: Path) -> None:
    from filelock import FileLock

    if os.environ.get("ZOO_OFFLINE", "0") not in ("", "0"):
        raise FileNotFoundError(
            f"{slug} is not in the cache ({path.parent}) and ZOO_OFFLINE is set: pull it once online"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_suffix(".lock")).acquire()
    except OSError as error:
        raise OSError(f"cannot write to {path.parent}: {error.strerror or error}; set ZOO_HOME elsewhere") from error
    with lock:
        if path.exists():  # another process has fetched it while this one waited
            return
        partial = path.with_suffix(".part")
        if "url" in entry:
            _download(entry["url"], partial, int(entry.get("bytes") or 0))
        elif "hf" in entry or "wandb" in entry:
            _download_from_hub(slug, entry, partial)
        else:
            raise FileNotFoundError(f"{slug} is missing from the installation and has no address: install it again")
        if (found := sha256(partial)) != entry["sha256"]:
            partial.unlink()
            raise ValueError(f"what was fetched for {slug} is not the published file (sha256 {found[:12]}...)")
        os.replace(partial, path)


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


def _download(url: str, partial: Path, size: int) -> None:
    """Fetch a file of a known size (0 if it is not known), from where an earlier attempt stopped."""
    # Here, because `zoo list` needs none of it and shall answer at once.
    import http.client
    import urllib.error

    reason: object = ""
    for attempt in range(5):
        time.sleep(0.2 * attempt)
        try:
            if not (reason := _continue(url, partial, size)):
                return
        except urllib.error.HTTPError as error:
            if error.code == 416:  # nothing is left to fetch
                return
            raise OSError(f"cannot fetch {url}: {error}") from error
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
            reason = getattr(error, "reason", error)
        except OSError as error:  # of the disk, mostly
            reason = error.strerror or error
            raise OSError(f"cannot fetch {url} into {partial.parent}: {reason}; what has come is kept") from error
    raise OSError(f"cannot fetch {url}: {reason}; what has come is kept, try again")


def _continue(url: str, partial: Path, size: int) -> str:
    """One attempt; returns why it is not complete. More than `size` bytes are not read: the sum then says the rest."""
    import urllib.request

    from tqdm import tqdm

    have = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=60) as response:
        resumed = url.startswith("http") and response.status == 206
        total = int(response.headers.get("Content-Length") or 0) + (have if resumed else 0)
        with (
            open(partial, "ab" if resumed else "wb") as file,
            tqdm(total=total or None, initial=file.tell(), unit="B", unit_scale=True, desc=partial.stem) as bar,
        ):
            while block := response.read(2**16):
                file.write(block)
                bar.update(len(block))
                if size and file.tell() > size:  # no published file: do not fill the disk
                    return ""
            file.flush()
            os.fsync(file.fileno())
    came = partial.stat().st_size
    return f"stopped at {came} of {total} bytes" if total and came != total else ""
