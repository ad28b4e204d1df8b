"""Repositories of the Hugging Face Hub, through the Hub's own client: fetching, and uploading a folder.

A repository of this package holds `model.safetensors` with our header, `config.json` with the hyperparameters, as
`PyTorchModelHubMixin` reads it, and `README.md` with the card below the Hub's YAML header. The client's own settings
hold: `HF_TOKEN`, `HF_ENDPOINT`, `HF_HOME`.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zoo
from zoo.engine.download import is_offline, sha256
from zoo.pretrained.addresses import PICKLES
from zoo.pretrained.files import header
from zoo.pretrained.places import Place, is_sound, verified

__all__ = ["CARD", "CONFIG", "PICTURE", "WEIGHTS", "OnHub", "check_access", "explained", "file_of", "upload"]

WEIGHTS, CONFIG, CARD, PICTURE = "model.safetensors", "config.json", "README.md", "samples.png"


@dataclass(frozen=True)
class OnHub(Place):
    """A repository of the Hub.

    Args:
        address: the text by which it was asked for.
        repo: owner and name.
        revision: branch, tag or commit; the main branch if it is empty.
    """

    address: str
    repo: str
    revision: str = ""

    @property
    def name(self) -> str:  # type: ignore[override]
        """The repository's name without its owner, as a registry may hold it."""
        return re.sub(r"[^a-z0-9_-]+", "-", self.repo.partition("/")[2].lower()).strip("-")

    def pull(self, *, full: bool = False) -> Path:
        """The file of weights in the client's cache, verified against the sum that the Hub states."""
        path = file_of(self.address, self.repo, WEIGHTS, self.revision or None)
        try:
            stated = header(path).get("full")
        except ValueError as error:
            raise ValueError(f"{self.address} holds no checkpoint of this package: {error}") from error
        if not full or stated is None or not is_sound(stated):
            return path
        return verified(file_of(self.address, self.repo, stated["file"], self.revision or None), stated["sha256"])

    def card(self) -> str | None:
        """The card without the YAML header; None if there is none."""
        try:
            text = file_of(self.address, self.repo, CARD, self.revision or None).read_text(encoding="utf-8")
        except LookupError:
            return None
        return re.sub(r"\A---\n.*?\n---\n+", "", text, count=1, flags=re.DOTALL)

    def picture(self) -> bytes | None:
        """The picture, if there is one."""
        with contextlib.suppress(LookupError):
            return file_of(self.address, self.repo, PICTURE, self.revision or None).read_bytes()
        return None


def file_of(address: str, repo_id: str, filename: str, revision: str | None = None) -> Path:
    """A file of a repository, in the client's cache.

    Args:
        address: what it is asked for as, for messages.
        repo_id: owner and name.
        filename: the file.
        revision: branch, tag or commit; None for the main branch.

    Raises:
        ModuleNotFoundError: the client is not installed.
        LookupError: there is no such repository, revision or file.
        ValueError: the file is not the one that the Hub states.
        OSError: it could not be fetched.
    """
    wanted: dict[str, Any] = {"repo_id": repo_id, "filename": filename, "revision": revision}
    with explained(address, repo_id, revision):
        api = _client()
        path = Path(api.hf_hub_download(**wanted, local_files_only=is_offline()))
        if not is_offline() and filename == WEIGHTS:
            url = importlib.import_module("huggingface_hub").hf_hub_url(**wanted, endpoint=api.endpoint)
            stated = api.get_hf_file_metadata(url=url).etag or ""
            if re.fullmatch(r"[0-9a-f]{64}", stated) and sha256(path) != stated:
                path.resolve().unlink()  # the client would take it for the right one for ever
                path.unlink(missing_ok=True)
                raise ValueError(
                    f"what was fetched for {address} is not the published file (sha256 {stated[:12]}...): try again"
                )
    return path


def upload(address: str, repo: str, folder: Path, *, branch: str = "", private: bool = False, message: str) -> str:
    """Put the files of a folder into a repository, in one commit; the repository is made if there is none.

    Args:
        address: what it is asked for as, for messages.
        repo: owner and name.
        folder: the folder.
        branch: branch of the commit; the main one if it is empty.
        private: make a private repository.
        message: first line of the commit.

    Returns:
        Address of the commit.

    Raises:
        ModuleNotFoundError: the client is not installed.
        PermissionError: there is no token, or the Hub refuses it.
        ValueError: a private repository was asked for, and there is a public one.
        OSError: the upload failed; what was uploaded is kept there, and the same command goes on.
    """
    check_access(address, repo)
    with explained(address, repo, branch):
        client, api = importlib.import_module("huggingface_hub"), _client()
        api.create_repo(repo, private=private or None, exist_ok=True)
        if private and not api.model_info(repo).private:
            raise ValueError(f"{repo} exists and is public: make it private on the Hub first, or leave out --private")
        if branch:
            api.create_branch(repo, branch=branch, exist_ok=True)
        operations = [
            client.CommitOperationAdd(path_in_repo=path.name, path_or_fileobj=path) for path in sorted(folder.iterdir())
        ]
        commit = api.create_commit(repo, operations, commit_message=message, revision=branch or None)
        return str(commit.commit_url)


def check_access(address: str, repo: str) -> None:
    """Make sure that there is a token, and that the Hub knows it.

    Args:
        address: what is pushed to, for messages.
        repo: owner and name.

    Raises:
        ModuleNotFoundError: the client is not installed.
        PermissionError: there is no token, or the Hub refuses it.
        OSError: the Hub cannot be reached, or must not be.
    """
    if is_offline():
        raise OSError(f"cannot push to {address}: ZOO_OFFLINE is set")
    with explained(address, repo):
        if importlib.import_module("huggingface_hub").get_token() is None:
            raise PermissionError(
                f"cannot push to {address} without a token: set HF_TOKEN, or log in with `hf auth login`"
            )
        _client().whoami()


def _client() -> Any:
    options = {"library_name": "generative-zoo", "library_version": zoo.__version__}
    client = importlib.import_module("huggingface_hub")
    return client.HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None, **options)


@contextlib.contextmanager
def explained(address: str, repo: str, revision: str | None = None) -> Iterator[None]:
    """One line for what the client complains of.

    Args:
        address: what was asked for.
        repo: owner and name of the repository.
        revision: branch, tag or commit.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{address} needs {error.name}: pip install 'generative-zoo[hub]'") from error
    except Exception as error:  # the client has exceptions of its own, and many
        raise _translated(error, address, repo, revision) from error


def _translated(error: Exception, address: str, repo: str, revision: str | None) -> Exception:
    kinds = {kind.__name__ for kind in type(error).__mro__}
    status = getattr(getattr(error, "response", None), "status_code", None)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = lines[0] if lines else type(error).__name__
    token = "set HF_TOKEN, or log in with `hf auth login`"
    if "GatedRepoError" in kinds:
        return PermissionError(f"{repo} is given to those who asked for it on the Hub: ask there, and {token}")
    if "RepositoryNotFoundError" in kinds:
        return LookupError(f"the Hub has no repository {repo}, or it is private and you have no access: {token}")
    if "RevisionNotFoundError" in kinds:
        return LookupError(f"{repo} has no revision {revision!r}: take a branch, a tag or a commit of it")
    if "LocalEntryNotFoundError" in kinds and is_offline():
        return FileNotFoundError(f"{address} is not in the cache and ZOO_OFFLINE is set: pull it once online")
    if "LocalEntryNotFoundError" in kinds and isinstance(error.__cause__, Exception):
        return _translated(error.__cause__, address, repo, revision)
    if "EntryNotFoundError" in kinds and "LocalEntryNotFoundError" not in kinds:
        return LookupError(f"{address} holds no checkpoint of this package{_held(address, repo, revision)}")
    if status in (401, 403):
        return PermissionError(f"the Hub refuses this token for {address} ({status}): {token}, of the right kind")
    if {"LocalEntryNotFoundError", "TransportError", "ConnectionError"} & kinds:
        endpoint = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
        return ConnectionError(f"cannot reach {endpoint} for {address}: try again when there is a network")
    if isinstance(error, OSError) and error.strerror:
        return OSError(error.errno, f"cannot fetch or send {address}: {error.strerror}")
    if isinstance(error, PermissionError | ValueError) and "HfHubHTTPError" not in kinds:
        return error
    return OSError(f"cannot fetch or send {address}: {reason}")


def _held(address: str, repo: str, revision: str | None) -> str:
    """What a repository holds in place of our file."""
    with contextlib.suppress(Exception):
        names: list[str] = _client().list_repo_files(repo, revision=revision)
        if pickles := [name for name in names if name.endswith(PICKLES)]:
            return f": {pickles[0]} is a pickle, which could run any code, and was not fetched"
    return f" (no {WEIGHTS})"
