"""Reading `.pth` files and filling our networks with them: what all importers share.

Only here are such files read, and with `weights_only=True`: nothing in them is executed.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

__all__ = [
    "CONFIG",
    "COUNT",
    "LINEAR",
    "NORM",
    "State",
    "axes_of",
    "build",
    "expect",
    "fill",
    "load_pth",
    "read_pth",
    "square",
    "state_of",
]

State = dict[str, Tensor]
Model = TypeVar("Model", bound=nn.Module)

LINEAR = ("weight", "bias")
NORM = (*LINEAR, "running_mean", "running_var")
CONFIG = "models.utils.config.BaseConfig"  # of pytorch_GAN_zoo: an empty class whose objects hold settings
COUNT = "num_batches_tracked"  # files from before torch 0.4.1 lack it


def read_pth(path: Path, *parts: str) -> State:
    """A state dict from a `.pth` file; the prefix that DataParallel leaves is taken off.

    Args:
        path: the file.
        parts: names under which the state dict lies in the file, outermost first; by default the file is one.

    Raises:
        ValueError: the file is damaged, holds more than tensors and plain values, or no state dict there.
    """
    return state_of(load_pth(path), path, *parts)


class _Stub:
    """Stands for an object of a class that is not here, and that nothing is asked of."""


def load_pth(path: Path, *, stubs: Sequence[str] = ()) -> Any:
    """What a `.pth` file holds.

    Args:
        path: the file.
        stubs: full names of classes that objects in the file may have; they become objects without behaviour.

    Raises:
        ValueError: the file is damaged, or holds more than tensors, plain values and such objects.
    """
    try:
        # torch looks classes up under the name that the file gives them, and here finds the stub: nothing is imported.
        with torch.serialization.safe_globals([(_Stub, name) for name in stubs]):
            return torch.load(path, map_location="cpu", weights_only=True)
    # Arguments or a state that the stub does not take raise the latter ones.
    except (pickle.UnpicklingError, RuntimeError, EOFError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{path} is damaged, no .pth file, or holds more than tensors: it was not read") from error


def state_of(found: Any, path: Path, *parts: str) -> State:
    """A state dict in what a `.pth` file held; the prefix that DataParallel leaves is taken off.

    Args:
        found: the content.
        path: the file, for messages.
        parts: names under which the state dict lies, outermost first; by default the content is one.

    Raises:
        ValueError: there is none.
    """
    for part in parts:
        found = found.get(part) if isinstance(found, dict) else None
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        if parts:
            raise ValueError(f"{path} has no state dict {'.'.join(parts)}: give the checkpoint as training wrote it")
        raise ValueError(f"{path} is no plain state dict: save the network's state_dict() alone")
    return {str(key).removeprefix("module."): value for key, value in found.items()}


def axes_of(layers: Iterable[str], weight: int, kinds: Sequence[str] = LINEAR) -> dict[str, int]:
    """Number of axes of each tensor of layers whose weights have `weight` axes."""
    return {f"{layer}.{kind}": weight if kind == "weight" else 1 for layer in layers for kind in kinds}


def expect(state: State, axes: dict[str, int], path: Path, layout: str) -> None:
    """Make sure that a state dict has exactly these tensors, besides the counters of BatchNorm.

    Args:
        state: the state dict.
        axes: number of axes of each tensor.
        path: where it came from, for messages.
        layout: its layout, for messages.

    Raises:
        ValueError: it does not.
    """
    found = {key: value.dim() for key, value in state.items() if not key.endswith(COUNT)}
    for key in sorted(found.keys() | axes.keys()):
        if found.get(key) != axes.get(key):
            wrong = f"lacks {key}" if key not in found else f"also has {key}"
            if key in found and key in axes:
                wrong = f"has {key} with {found[key]} axes, not {axes[key]}"
            raise ValueError(f"{path} does not have the layout of {layout}: it {wrong}")


def build(make: Callable[[], Model], path: Path) -> Model:
    """Build a model for the weights of a file; sizes that it refuses are the file's fault."""
    try:
        with torch.random.fork_rng(devices=[]):  # building draws initial weights: the caller's random state stays
            return make()
    except ValueError as error:
        raise ValueError(f"{path} does not fit: {error}") from error


def fill(network: nn.Module, state: Mapping[str, Tensor | list[Tensor]], path: Path) -> None:
    """Load weights under our names, lists of them one below the other; counters of BatchNorm may be absent."""
    counts = {key: value for key, value in network.state_dict().items() if key.endswith(COUNT)}
    try:
        joined = {key: torch.cat(value) if isinstance(value, list) else value for key, value in state.items()}
        network.load_state_dict(counts | joined)
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit: {str(error).splitlines()[-1].strip()}") from error


def square(pixels: int, path: Path) -> tuple[int, int]:
    """Side and channels of the square image with this number of values: in gray, else in color."""
    for channels in (1, 3):
        if channels * math.isqrt(pixels // channels) ** 2 == pixels:
            return math.isqrt(pixels // channels), channels
    raise ValueError(f"{path} does not fit: {pixels} values are no square image of 1 or 3 channels")
