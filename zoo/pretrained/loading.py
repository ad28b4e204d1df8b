"""Pretrained weights: safetensors files that say what they are, and their index.

A file holds the networks that the public inference API needs (`inference_networks`), and a header with the class, its
hyperparameters, the data, the measured values and a sum over the weights. Nothing is unpickled; only classes under
`zoo.` are built. The index `weights/index.json` is the one source of names, sums and values; cards are generated from
it. `index` and `card` import no torch.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.pretrained.fetch import pull
from zoo.pretrained.files import read
from zoo.pretrained.migrations import current_arguments

if TYPE_CHECKING:
    import torch

    from zoo.base import GenerativeModel

__all__ = ["load"]


# Fetching ------------------------------------------------------------------------------------------------------------


# Reading -------------------------------------------------------------------------------------------------------------


def load(slug_or_path: str | os.PathLike[str], *, device: str | torch.device = "cpu") -> GenerativeModel:
    """A pretrained model, in evaluation mode.

    Args:
        slug_or_path: name of a published checkpoint, a `.safetensors` file, or a `.ckpt` of an own run.
        device: where the model goes.

    Returns:
        The model. Networks that the file does not hold (such as the discriminator) raise a ValueError when they are
        used; a generator whose average was published has the average's weights. A fit trains all of them.

    Raises:
        LookupError: there is no such checkpoint or file.
        ValueError: the file is damaged, is a pickle, or does not fit its class.
    """
    path = Path(slug_or_path)
    if path.suffix not in (".safetensors", ".ckpt", ".pth", ".pt", ".bin") and not path.is_file():
        if (path / "checkpoints").is_dir():
            raise IsADirectoryError(f"{path} is a run folder: take its {path / 'checkpoints' / 'last.ckpt'}")
        path = pull(str(slug_or_path))
    elif not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    model = _from_checkpoint(path) if path.suffix == ".ckpt" else _from_safetensors(path)
    return model.to(device).eval()


def _from_safetensors(path: Path) -> GenerativeModel:
    from zoo.base.loaded import mark_loaded

    header, tensors = read(path)
    model = _build(header["class"], header["hparams"], path, tensors)
    prefixes = tuple(f"{name}." for name in header["networks"])
    own = model.state_dict()
    expected = {key for key in own if key.startswith(prefixes)}
    complaint = f"{path} is not a checkpoint of this {header['class']}"
    if absent := sorted({*model.inference_networks} - {*model.optional_networks, *header["networks"]}):
        raise ValueError(f"{complaint}: it does not hold the network {absent[0]!r}")
    if wrong := sorted(expected ^ tensors.keys()):
        what = "lacks" if wrong[0] in expected else "holds an unknown"
        raise ValueError(f"{complaint}: it {what} {wrong[0]}")
    for key, value in tensors.items():
        if value.shape != own[key].shape:
            raise ValueError(f"{complaint}: {key} has shape {tuple(value.shape)}, expected is {tuple(own[key].shape)}")
        own[key].copy_(value)
    mark_loaded(model, header["networks"])
    return model


def _from_checkpoint(path: Path) -> GenerativeModel:
    from zoo.base.loaded import mark_loaded
    from zoo.engine.checkpoint import AtomicCheckpointIO

    saved = AtomicCheckpointIO().load_checkpoint(path)
    saved = saved if isinstance(saved, dict) else {}
    name = saved.get("zoo", {}).get("class", "")
    if not name or not {"hyper_parameters", "state_dict"} <= saved.keys():
        raise ValueError(f"{path} is no checkpoint of a run of this package (it names no class)")
    model = _build(
        name, {k: v for k, v in saved["hyper_parameters"].items() if not k.startswith("_")}, path, saved["state_dict"]
    )
    try:
        model.load_state_dict(saved["state_dict"])
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit {name}: {str(error).splitlines()[-1].strip()}") from error
    mark_loaded(model)
    return model


def _build(name: str, hparams: dict[str, Any], path: Path, tensors: dict[str, torch.Tensor]) -> GenerativeModel:
    """The model of a file's header, once its parameters are known to be as large as the file's."""
    import torch

    from zoo.base import GenerativeModel

    try:
        name, hparams = current_arguments(name, hparams)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    module, _, attribute = name.rpartition(".")
    if not (module.startswith("zoo.") and all(part.isidentifier() for part in module.split("."))):
        raise ValueError(f"{path} asks for the class {name!r}; only classes under 'zoo.' are built")
    try:
        kind = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{path} asks for the class {name!r}, which this version does not have") from error
    if not (isinstance(kind, type) and issubclass(kind, GenerativeModel)):
        raise ValueError(f"{path} asks for {name!r}, which is no model")
    if "compile" in hparams:  # a matter of the machine that trained
        hparams = hparams | {"compile": False}
    with torch.random.fork_rng(devices=[]):  # building draws initial weights: the caller's random state stays
        try:
            with torch.device("meta"):  # without memory: a header may ask for any size
                sizes = {name: tuple(p.shape) for name, p in kind(**hparams).named_parameters()}
        except NotImplementedError:  # a constructor that reads a number from a tensor
            sizes = {}
        except (TypeError, ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"{path} has hyperparameters that {name} does not take: {reason}") from error
        for key, size in sizes.items():
            if key in tensors and tuple(tensors[key].shape) != size:
                found = tuple(tensors[key].shape)
                raise ValueError(
                    f"{path} is not a checkpoint of this {name}: {key} has shape {found}, expected is {size}"
                )
        try:
            return kind(**hparams)
        except (TypeError, ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"{path} has hyperparameters that {name} does not take: {reason}") from error
