"""Importers of reference checkpoints: one function per architecture, one branch per layout.

Only here are `.pth` files read, and with `weights_only=True`: nothing in them is executed.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from zoo.dcgan import DCGAN

__all__ = ["dcgan"]

_NETS = {"pytorch-examples": ("netG", "netD")}


def read_pth(path: Path) -> dict[str, Tensor]:
    """A state dict from a `.pth` file; the prefix that DataParallel leaves is taken off.

    Raises:
        ValueError: the file is damaged, or holds more than tensors.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(f"{path} is damaged, no .pth file, or holds more than tensors: it was not read") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path} is no plain state dict: save the network's state_dict() alone")
    return {str(key).removeprefix("module."): value for key, value in state.items()}


def dcgan(paths: Sequence[Path], *, layout: str = "pytorch-examples") -> DCGAN:
    """DCGAN from the files of another implementation.

    Args:
        paths: for "pytorch-examples" netG and netD, in this order; netD may be left out, and is untrained then.
        layout: whose files they are.

    Returns:
        The model; sizes, widths and channels are read off the weights' shapes.

    Raises:
        ValueError: an unknown layout, or files that do not have it.
    """
    if layout not in _NETS:
        raise ValueError(f"unknown layout {layout!r} of dcgan: take {', '.join(_NETS)}")
    if not 1 <= len(paths) <= 2:
        raise ValueError(f"{layout} has the files {' and '.join(_NETS[layout])}; {len(paths)} were given")
    states = [read_pth(Path(path)) for path in paths]

    # main.0, main.3, main.6, ... are the convolutions, each followed by its BatchNorm at the next number.
    generator = _layers(states[0], paths[0], first_norm=1)
    weights = [layer["conv.weight"] for layer in generator]
    doublings = len(weights) - 1
    image_channels, base_channels = weights[-1].shape[1], weights[-1].shape[0]
    try:
        with torch.random.fork_rng(devices=[]):  # building draws initial weights: the caller's random state stays
            model = DCGAN(
                image_size=weights[0].shape[-1] * 2**doublings,
                image_channels=image_channels,
                latent_dim=weights[0].shape[0],
                base_channels=base_channels,
            )
    except ValueError as error:
        raise ValueError(f"{paths[0]} does not fit: {error}") from error
    networks = [(model.generator, generator, paths[0])]
    if len(paths) == 2:
        discriminator = _layers(states[1], paths[1], first_norm=2)
        if (width := len(discriminator[0]["conv.weight"])) != base_channels:
            raise ValueError(
                f"{paths[1]} has width {width}, {paths[0]} has {base_channels}; here both have the same: "
                "import the generator alone"
            )
        networks.append((model.discriminator, discriminator, paths[1]))
    for network, layers, path in networks:
        renamed = {f"layers.{i}.{key}": value for i, layer in enumerate(layers) for key, value in layer.items()}
        own = network.state_dict()
        for key in own.keys() - renamed.keys():
            if key.endswith("num_batches_tracked"):  # files from before torch 0.4.1 lack it
                renamed[key] = own[key]
        try:
            network.load_state_dict(renamed)
        except RuntimeError as error:
            raise ValueError(f"{path} does not fit: {str(error).splitlines()[-1].strip()}") from error
    return model.eval()


def _layers(state: dict[str, Tensor], path: Path, first_norm: int) -> list[dict[str, Tensor]]:
    """The convolutions in order, each with the norm that follows it, under our names.

    Args:
        state: keys `main.<number>.<name>`.
        path: where it came from, for messages.
        first_norm: 1 if the first convolution has a norm behind it (generator), 2 if not (discriminator).
    """
    numbers = sorted(
        {int(key.split(".")[1]) for key in state if key.startswith("main.") and key.split(".")[1].isdigit()}
    )
    convolutions = [n for n in numbers if state.get(f"main.{n}.weight", torch.empty(0)).dim() == 4]
    if not convolutions or {key.split(".")[0] for key in state} != {"main"}:
        raise ValueError(f"{path} does not have the layout main.0.weight, main.1.weight, ... of pytorch-examples")
    layers = []
    for i, n in enumerate(convolutions):
        layer = {"conv.weight": state[f"main.{n}.weight"]}
        norm = n + 1
        if f"main.{norm}.running_mean" in state:
            prefix = f"main.{norm}."
            layer |= {f"norm.{key.removeprefix(prefix)}": v for key, v in state.items() if key.startswith(prefix)}
        elif i >= first_norm - 1 and i < len(convolutions) - 1:
            raise ValueError(f"{path} lacks the BatchNorm main.{norm} behind main.{n}")
        layers.append(layer)
    return layers
