"""Names of earlier versions, read as today's: class paths and arguments in configurations and in files of weights.

A file of weights, a checkpoint or a run folder of an earlier version names classes and arguments that have moved.
`current_names` and `current_arguments` translate them by the tables of this module; nothing else knows earlier names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from zoo.nn.schedules import Decay

__all__ = ["CHANGES", "Change", "current_arguments", "current_class_path", "current_names"]

MOVED = {"callbacks": "zoo.callbacks", "datamodules": "zoo.datamodules"}
"""Packages by their earlier name."""


@dataclass(frozen=True)
class Change:
    """What has changed in the constructor of a class.

    Attributes:
        forms: values of earlier arguments that now make a class of its own, and this class's path. The arguments are
            dropped; the first entry that fits holds.
        convert: a function of all arguments, for options that were joined into one.
        renamed: today's name of an argument by its earlier one.
        retired: arguments that the class no longer has, with the value that it now always has.
    """

    forms: list[tuple[dict[str, Any], str]] = field(default_factory=list)
    convert: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    renamed: Mapping[str, str] = field(default_factory=dict)
    retired: Mapping[str, Any] = field(default_factory=dict)


_THEANO = {"noise": "uniform", "kernel_size": 5, "linear": True, "norm_eps": 1e-8, "separate_batches": True}
_DCGAN = {
    "num_classes": 0,
    "weight_decay": 0.0,
    "noise": "normal",
    "kernel_size": 4,
    "linear": False,
    "hidden_features": 0,
    "norm_eps": 1e-5,
    "norm_affine": True,
    "separate_batches": False,
    "loss": "non_saturating",
    "discriminator_norm": "batch",
    "gradient_penalty_weight": 0.0,
    "r1_weight": 0.0,
    "n_critic": 1,
}


def _dcgan(arguments: dict[str, Any]) -> dict[str, Any]:
    theano = _THEANO | {"weight_decay": 1e-5}
    if "kernel_size" in arguments and all(arguments.get(key) == value for key, value in theano.items()):
        return {key: value for key, value in arguments.items() if key not in theano} | {"variant": "theano"}
    return arguments


def _final_rate(arguments: dict[str, Any]) -> dict[str, Any]:
    """The share of the learning rate that was left at the end of a run, as a schedule."""
    if "final_rate" not in arguments:
        return arguments
    final = arguments.pop("final_rate")
    return arguments | {"decay": None if final == 1 else Decay("exponential", final=final).fields()}


def _fit_to_frame(arguments: dict[str, Any]) -> dict[str, Any]:
    """The option of a source that is given by name."""
    if not isinstance(given := arguments.get("source_arguments"), dict):
        return arguments
    name = arguments.get("source", "Emoji")
    return arguments | {"source_arguments": current_arguments(f"zoo.datamodules.{name}", given)[1]}


_FIT = {"fit": "fit_to_frame"}
CHANGES: dict[str, Change] = {
    "zoo.beta_vae.BetaVAE": Change(convert=_final_rate),
    "zoo.conditional_dcgan.ConditionalDCGAN": Change(
        retired={k: v for k, v in _DCGAN.items() if k not in ("num_classes", "weight_decay", *_THEANO)}
    ),
    "zoo.dcgan.DCGAN": Change(
        forms=[
            (
                _THEANO | {"hidden_features": 1024, "norm_affine": False, "weight_decay": 2.5e-5},
                "zoo.conditional_dcgan.ConditionalDCGAN",
            )
        ],
        convert=_dcgan,
        retired=_DCGAN,
    ),
    "zoo.datamodules.attributes.Attributes": Change(renamed=_FIT),
    "zoo.datamodules.emoji.Emoji": Change(renamed=_FIT),
    "zoo.datamodules.patches.Patches": Change(convert=_fit_to_frame),
    "zoo.datamodules.unpaired.Unpaired": Change(renamed=_FIT),
    "zoo.vae.VAE": Change(convert=_final_rate),
}
"""What has changed, by the path of the class."""


def current_class_path(path: str) -> str:
    """Today's path of a class.

    Args:
        path: a dotted path, of this version or an earlier one.
    """
    package, dot, rest = path.partition(".")
    return f"{MOVED[package]}.{rest}" if dot and package in MOVED else path


def current_arguments(path: str, arguments: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Today's class and arguments.

    Args:
        path: path of the class; `zoo.dcgan.DCGAN`, `zoo.DCGAN` and `DCGAN` are the same.
        arguments: those of its constructor, of this version or an earlier one.

    Raises:
        ValueError: an argument has a value that no class of this version stands for.
    """
    path, found = current_class_path(path), dict(arguments)
    change = _change(path)
    if change is None:
        return path, found
    for form, target in change.forms:
        if all(key in found and found[key] == value for key, value in form.items()):
            return current_arguments(target, {k: v for k, v in found.items() if k not in form})
    if change.convert is not None:
        found = change.convert(found)
    found = {change.renamed.get(key, key): value for key, value in found.items()}
    for key, value in change.retired.items():
        if found.pop(key, value) != value:
            raise ValueError(f"{path} no longer has {key}={arguments[key]!r}: CHANGELOG names the class that has")
    return path, found


def _change(path: str) -> Change | None:
    package = path.rpartition(".")[0]
    if package in ("", "zoo", "zoo.datamodules", "zoo.callbacks"):  # the name or the short path of a class
        return next((change for full, change in CHANGES.items() if _is_short(path, full)), None)
    return CHANGES.get(path)


def _is_short(path: str, full: str) -> bool:
    package, _, name = path.rpartition(".")
    module, _, other = full.rpartition(".")
    return name == other and package in ("", module.rpartition(".")[0])


def current_names(tree: Any) -> Any:
    """A copy of a configuration or a header in which every class and its arguments are today's.

    Args:
        tree: dicts, lists and plain values; a class stands under `class_path` or `class`, its arguments beside it
            under `init_args` or `hparams`.

    Raises:
        ValueError: see `current_arguments`.
    """
    if isinstance(tree, list):
        return [current_names(value) for value in tree]
    if not isinstance(tree, dict):
        return tree
    result = {key: current_names(value) for key, value in tree.items()}
    for name in ("class_path", "class"):
        if isinstance(result.get(name), str):
            given = next((key for key in ("init_args", "hparams") if isinstance(result.get(key), dict)), "")
            result[name], arguments = current_arguments(result[name], result.get(given, {}))
            result |= {given: arguments} if given else {}
    return result
