"""Files of weights: safetensors with a header that says what they are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zoo
from zoo.engine.files import write_atomically
from zoo.pretrained.migrations import current_names

if TYPE_CHECKING:
    import torch

    from zoo.base import GenerativeModel

__all__ = ["read", "restate", "save"]


FORMAT = 1


"""Version of the layout of files; it grows when a published state-dict key is renamed."""


# Renamed state-dict keys by the format version that they were renamed in: (old prefix, new prefix).
MIGRATIONS: dict[int, list[tuple[str, str]]] = {}


def read(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Header and tensors of a file; keys of earlier formats are renamed.

    Raises:
        ValueError: the file is damaged, is a pickle, or was written by something else.
    """
    import safetensors

    try:
        with safetensors.safe_open(path, "pt") as content:
            metadata = content.metadata() or {}
            tensors = {key: content.get_tensor(key) for key in content.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError) as error:
        with open(path, "rb") as file:
            start = file.read(2)
        if start == b"PK" or start[:1] == b"\x80":
            raise ValueError(
                f"{path} is a pickle, which could run any code, and was not opened: convert it with `zoo import`"
            ) from None
        raise ValueError(f"{path} is damaged or no safetensors file ({error}): fetch it again") from error
    try:
        header: dict[str, Any] = json.loads(metadata["zoo"])
        version = int(header["format"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} has no header of this package: it was written by something else") from error
    if version > FORMAT:
        raise ValueError(f"{path} was written by a newer version (format {version}): upgrade generative-zoo")
    kinds = {"class": str, "hparams": dict, "networks": list, "sum": str}
    if wrong := [key for key, kind in kinds.items() if not isinstance(header.get(key), kind)]:
        raise ValueError(f"{path} is damaged: its header has no valid {wrong[0]!r}")
    if header["sum"] != _sum(tensors):
        raise ValueError(f"{path} is damaged: its weights do not have the sum that its header states")
    try:
        header = current_names(header)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    for later in range(version + 1, FORMAT + 1):
        for old, new in MIGRATIONS.get(later, []):
            tensors = {new + k.removeprefix(old) if k.startswith(old) else k: v for k, v in tensors.items()}
    return header, tensors


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
    header = {
        "format": FORMAT,
        "class": f"{type(model).__module__}.{type(model).__qualname__}",
        "hparams": json.loads(json.dumps(dict(model.hparams))),
        "networks": kept,
        "sum": _sum(tensors),
        "versions": {"generative-zoo": zoo.__version__, "torch": str(torch.__version__)},
        **(information or {}),
    }
    write_atomically(path, serialize(tensors, {"zoo": json.dumps(header)}))


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

    header, tensors = read(path)
    header |= changes | {"format": FORMAT, "sum": _sum(tensors)}  # keys of earlier formats were renamed
    write_atomically(path, serialize(tensors, {"zoo": json.dumps(header)}))
