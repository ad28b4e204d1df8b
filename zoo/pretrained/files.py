"""Files of weights: safetensors with a header that says what they are."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zoo
from zoo.engine.files import write_atomically
from zoo.pretrained.migrations import current_names

if TYPE_CHECKING:
    import torch

    from zoo.base import GenerativeModel

__all__ = ["header", "read", "restate", "save"]


FORMAT = 1


"""Version of the layout of files; it grows when a published state-dict key is renamed."""


# Renamed state-dict keys by the format version that they were renamed in: (old prefix, new prefix).
MIGRATIONS: dict[int, list[tuple[str, str]]] = {}


def header(path: Path) -> dict[str, Any]:
    """The header of a file; its weights are not read.

    Raises:
        ValueError: the file is damaged, is a pickle, or was written by something else.
    """
    with _opened(path, "np") as content:
        return _header(path, content.metadata())


def read(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Header and tensors of a file; keys of earlier formats are renamed.

    Raises:
        ValueError: the file is damaged, is a pickle, or was written by something else.
    """
    with _opened(path, "pt") as content:
        metadata = content.metadata()
        tensors = {key: content.get_tensor(key) for key in content.keys()}  # noqa: SIM118
    found = _header(path, metadata)
    if found["sum"] != _sum(tensors):
        raise ValueError(f"{path} is damaged: its weights do not have the sum that its header states")
    for later in range(found["format"] + 1, FORMAT + 1):
        for old, new in MIGRATIONS.get(later, []):
            tensors = {new + k.removeprefix(old) if k.startswith(old) else k: v for k, v in tensors.items()}
    return found, tensors


@contextlib.contextmanager
def _opened(path: Path, framework: str) -> Iterator[Any]:
    """The content of a safetensors file."""
    import safetensors

    try:
        with safetensors.safe_open(path, framework) as content:
            yield content
    except (safetensors.SafetensorError, OSError) as error:
        with open(path, "rb") as file:
            start = file.read(2)
        if start == b"PK" or start[:1] == b"\x80":
            raise ValueError(
                f"{path} is a pickle, which could run any code, and was not opened: convert it with `zoo import`"
            ) from None
        raise ValueError(f"{path} is damaged or no safetensors file ({error}): fetch it again") from error


def _header(path: Path, metadata: dict[str, str] | None) -> dict[str, Any]:
    """The header among a file's metadata, under today's names."""
    try:
        found: dict[str, Any] = json.loads((metadata or {})["zoo"])
        version = found["format"] = int(found["format"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} has no header of this package: it was written by something else") from error
    if version > FORMAT:
        raise ValueError(f"{path} was written by a newer version (format {version}): upgrade generative-zoo")
    kinds = {"class": str, "hparams": dict, "networks": list, "sum": str}
    if wrong := [key for key, kind in kinds.items() if not isinstance(found.get(key), kind)]:
        raise ValueError(f"{path} is damaged: its header has no valid {wrong[0]!r}")
    try:
        return current_names(found)  # type: ignore[no-any-return]
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _sum(tensors: Mapping[str, torch.Tensor]) -> str:
    """Sum over names, types, shapes and values of weights."""
    import torch

    result = hashlib.sha256()
    for key, value in sorted(tensors.items()):
        result.update(f"{key} {value.dtype} {tuple(value.shape)}\n".encode())
        result.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return result.hexdigest()


def save(
    model: GenerativeModel,
    path: Path,
    *,
    networks: Sequence[str] | None = None,
    half: bool = False,
    information: dict[str, Any] | None = None,
) -> None:
    """Write a model as a safetensors file that `load` reads.

    Args:
        model: the model.
        path: where it goes.
        networks: names of the submodules that are kept; by default the model's `available_networks`, or all that have
            weights.
        half: store parameters in float16; buffers, such as running statistics, stay as they are.
        information: further fields of the header.

    Raises:
        ValueError: there is no such network.
        OSError: it could not be written; an earlier file is unchanged.
    """
    import torch
    from safetensors.torch import save as serialize

    known = [name for name, child in model.named_children() if child.state_dict()]
    kept = list(networks or model.available_networks or known)
    if unknown := sorted(set(kept) - set(known)):
        raise ValueError(f"{type(model).__name__} has no network {unknown[0]!r}: take of {', '.join(known)}")
    prefixes = tuple(f"{name}." for name in kept)
    parameters = {name for name, _ in model.named_parameters()}
    tensors = {
        # Copies, so that weights which two networks share are written for both.
        key: value.detach()
        .to("cpu", torch.float16 if half and key in parameters else value.dtype)
        .clone(memory_format=torch.contiguous_format)
        for key, value in model.state_dict().items()
        if key.startswith(prefixes)
    }
    stated = {
        "format": FORMAT,
        "class": f"{type(model).__module__}.{type(model).__qualname__}",
        "hparams": json.loads(json.dumps(dict(model.hparams))),
        "networks": kept,
        "sum": _sum(tensors),
        "versions": {"generative-zoo": zoo.__version__, "torch": str(torch.__version__)},
        **(information or {}),
    }
    write_atomically(path, serialize(tensors, {"zoo": json.dumps(stated)}))


def restate(path: Path, changes: dict[str, Any]) -> None:
    """Write a file again with other fields in its header; every bit of its weights stays.

    Args:
        path: the file.
        changes: the fields.

    Raises:
        ValueError: the file is damaged or of something else.
        OSError: it could not be written; the earlier file is unchanged.
    """
    from safetensors.torch import save as serialize

    stated, tensors = read(path)
    stated |= changes | {"format": FORMAT, "sum": _sum(tensors)}  # keys of earlier formats were renamed
    write_atomically(path, serialize(tensors, {"zoo": json.dumps(stated)}))
