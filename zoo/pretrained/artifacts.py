"""Artifacts of Weights & Biases, through wandb's own client: fetching, and logging a folder."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.engine.download import fetch_once, is_offline
from zoo.engine.files import data_home, write_atomically
from zoo.pretrained.files import header
from zoo.pretrained.hub import CARD, PICTURE, WEIGHTS
from zoo.pretrained.places import Place, cache_dir, is_sound, verified

__all__ = ["Artifact", "copy_file", "log", "logs_offline", "run_id"]


@dataclass(frozen=True)
class Artifact(Place):
    """An artifact of wandb.

    Args:
        address: the text by which it was asked for.
        path: entity, project and name.
        alias: version or alias; the latest if it is empty.
    """

    address: str
    path: str
    alias: str = ""

    @property
    def name(self) -> str:  # type: ignore[override]
        """The artifact's own name."""
        return self.path.rpartition("/")[2].lower()

    def pull(self, *, full: bool = False) -> Path:
        """The file of weights in the cache; offline the one that the address meant the last time."""
        path = self._file(WEIGHTS)
        stated = header(path).get("full")
        if not full or stated is None or not is_sound(stated):
            return path
        return verified(self._file(stated["file"]), stated["sha256"])

    def card(self) -> str | None:
        """The card, if the artifact holds one."""
        with contextlib.suppress(OSError):
            return self._file(CARD).read_text(encoding="utf-8")
        return None

    def picture(self) -> bytes | None:
        """The picture, if the artifact holds one."""
        with contextlib.suppress(OSError):
            return self._file(PICTURE).read_bytes()
        return None

    def _file(self, file: str) -> Path:
        full = f"{self.path}:{self.alias or 'latest'}"
        note = cache_dir() / f"{hashlib.sha256(full.encode()).hexdigest()[:16]}.json"
        if is_offline():
            if not note.exists():
                raise FileNotFoundError(
                    f"{self.address} is not in the cache ({cache_dir()}) and ZOO_OFFLINE is set: pull it once online"
                )
            digest = json.loads(note.read_text())["digest"]
        else:
            with explained(self.address):
                digest = importlib.import_module("wandb").Api().artifact(full).digest
        path = cache_dir() / f"{digest[:16]}-{file}"
        if not path.exists():
            fetch_once(self.address, path, None, lambda partial: copy_file(self.address, full, file, partial))
        if not is_offline():
            write_atomically(note, json.dumps({"digest": digest, "address": self.address}))
        return path


def copy_file(address: str, artifact: str, file: str, target: Path) -> None:
    """Fetch a file of an artifact; the client resumes, retries and verifies by itself.

    Args:
        address: what it is asked for as, for messages.
        artifact: `ENTITY/PROJECT/NAME:ALIAS`.
        file: the file.
        target: where it goes.

    Raises:
        ModuleNotFoundError: the client is not installed.
        OSError: it could not be fetched.
    """
    folder = target.with_suffix(".artifact")
    try:
        with explained(address):
            found = importlib.import_module("wandb").Api().artifact(artifact)
            shutil.copyfile(Path(found.download(str(folder))) / file, target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def log(address: str, path: str, folder: Path, metadata: dict[str, Any], *, run: Path | None = None) -> str:
    """Log the files of a folder as an artifact of type model, by the run that trained it if that has logged to wandb.

    Without an account, or with `WANDB_MODE=offline`, everything is written to a folder of wandb's, to be sent with
    `wandb sync`.

    Args:
        address: what it is asked for as, for messages.
        path: entity, project and name.
        folder: the files.
        metadata: what the artifact's page says.
        run: folder of the run.

    Returns:
        What was done, in a line.

    Raises:
        OSError: wandb failed.
    """
    entity, project, name = path.split("/")
    with explained(address):
        wandb = importlib.import_module("wandb")
        earlier = sorted(run.glob("wandb/*run-*-*")) if run is not None else []
        going_on = {"id": run_id(earlier[-1]), "resume": "allow"} if earlier else {}
        keep = run if run is not None else data_home()
        keep.mkdir(parents=True, exist_ok=True)
        offline = logs_offline()
        options = {"mode": "offline" if offline else "online", "dir": str(keep), "job_type": "push", **going_on}
        settings = wandb.Settings(silent=True)
        with wandb.init(entity=entity, project=project, settings=settings, **options) as active:
            artifact = wandb.Artifact(name, type="model", metadata=metadata)
            artifact.add_dir(str(folder))
            active.log_artifact(artifact)
            if not offline:
                artifact.wait()
            place = Path(active.dir).parent
    return f"{place} (send it with `wandb sync {place}`)" if offline else f"{address}:{artifact.version}"


def run_id(folder: Path) -> str:
    """Identifier of a run of wandb's, from the name of its folder: `run-<date>_<time>-<id>`, and a number if need be.

    Args:
        folder: the folder, which wandb has made.
    """
    return folder.name.partition("run-")[2].split("-")[1]


def logs_offline() -> bool:
    """Whether wandb writes to a folder and sends nothing: `WANDB_MODE` says so, or there is no account."""
    path = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    account = bool(os.environ.get("WANDB_API_KEY")) or (
        path.is_file() and "api.wandb.ai" in path.read_text(errors="replace")
    )
    return os.environ.get("WANDB_MODE", "online" if account else "offline") != "online"


@contextlib.contextmanager
def explained(address: str) -> Iterator[None]:
    """One line for what the client complains of; it has exceptions of its own, and many.

    Args:
        address: what was asked for.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{address} needs {error.name}: pip install 'generative-zoo[hub]'") from error
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise OSError(f"cannot fetch or send {address}: {lines[0] if lines else type(error).__name__}") from error
