"""From a file of weights, or a checkpoint of a run, to a model.

Nothing is unpickled. A header may ask for any class: only classes under `zoo.` are built, and those of packages that
the caller trusts by name, because importing a package runs its code.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.pretrained.fetch import pull
from zoo.pretrained.files import read
from zoo.pretrained.migrations import current_arguments
from zoo.pretrained.trust import Trust, check_trusted

if TYPE_CHECKING:
    import torch

    from zoo.base import GenerativeModel

__all__ = ["load"]


def load(name: str | os.PathLike[str], *, device: str | torch.device = "cpu", trust: Trust = ()) -> GenerativeModel:
    """A pretrained model, in evaluation mode.

    Args:
        name: name of a checkpoint (of the package, of the registries in `ZOO_REGISTRY`, or of the user's own), path of
            a `.safetensors` file or of an own run's `.ckpt`, `FOLDER/NAME` of a registry, or an address:
            `hf://OWNER/NAME@REVISION`, `wandb://ENTITY/PROJECT/NAME:ALIAS`, `https://HOST/.../NAME.safetensors`.
        device: where the model goes.
        trust: names of packages whose classes may be built too. Importing them runs their code.

    Returns:
        The model. Networks that the file does not hold (such as the discriminator) raise a ValueError when they are
        used; a generator whose average was published has the average's weights. A fit trains all of them.

    Raises:
        LookupError: there is no such checkpoint or file.
        ValueError: the file is damaged, is a pickle, does not fit its class, or its class is of a package that is not
            trusted.
        OSError: the file could not be fetched.
    """
    path = pull(name)
    model = _from_checkpoint(path, trust) if path.suffix == ".ckpt" else _from_safetensors(path, trust)
    return model.to(device).eval()


def _from_safetensors(path: Path, trust: Trust) -> GenerativeModel:
    from zoo.base.loaded import mark_loaded

    header, tensors = read(path)
    model = _build(header["class"], header["hparams"], path, tensors, trust)
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


def _from_checkpoint(path: Path, trust: Trust) -> GenerativeModel:
    from zoo.base.loaded import mark_loaded
    from zoo.engine.checkpoint import AtomicCheckpointIO

    saved = AtomicCheckpointIO().load_checkpoint(path)
    saved = saved if isinstance(saved, dict) else {}
    name = saved.get("zoo", {}).get("class", "")
    if not name or not {"hyper_parameters", "state_dict"} <= saved.keys():
        raise ValueError(f"{path} is no checkpoint of a run of this package (it names no class)")
    hparams = {k: v for k, v in saved["hyper_parameters"].items() if not k.startswith("_")}
    model = _build(name, hparams, path, saved["state_dict"], trust)
    try:
        model.load_state_dict(saved["state_dict"])
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit {name}: {str(error).splitlines()[-1].strip()}") from error
    mark_loaded(model)
    return model


def _build(
    name: str, hparams: dict[str, Any], path: Path, tensors: dict[str, torch.Tensor], trust: Trust
) -> GenerativeModel:
    """The model of a file's header, once its parameters are known to be as large as the file's."""
    import torch

    from zoo.base import GenerativeModel

    try:
        name, hparams = current_arguments(name, hparams)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    kind = _class(name, path, trust)
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


def _class(name: str, path: Path, trust: Trust) -> Any:
    """The class of a path, of this package or of one that is trusted."""
    check_trusted(name, path, trust)
    module, _, attribute = name.rpartition(".")
    if module == "zoo":
        raise ValueError(f"{path} asks for the class {name!r}; only classes under 'zoo.' are built")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        if module.startswith("zoo."):
            raise ValueError(f"{path} asks for the class {name!r}, which this version does not have") from error
        raise ValueError(f"{path} asks for the class {name!r}, which cannot be imported here: {error}") from error
