"""Importer of DCGAN."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from zoo.convert import layouts
from zoo.convert.files import CONFIG, COUNT, NORM, State, axes_of, build, expect, fill, load_pth, read_pth, state_of
from zoo.dcgan import DCGAN

__all__ = ["dcgan"]


def dcgan(paths: Sequence[Path], *, layout: str = "pytorch-examples") -> DCGAN:
    """DCGAN from the files of another implementation.

    Args:
        paths: netG and netD, in this order; netD may be left out, and is untrained then. For "pytorch_GAN_zoo" also the
            one file that training wrote, whose netG and netD are taken.
        layout: whose files they are.

    Returns:
        The model; sizes, widths and channels are read off the weights' shapes.

    Raises:
        ValueError: an unknown layout, or files that do not have it.
    """
    layouts.check("dcgan", layout, len(paths))
    paths, states = _networks([Path(path) for path in paths], layout)
    if layout == "pytorch_GAN_zoo":
        states = [_numbered(state, path) for state, path in zip(states, paths, strict=True)]

    # main.0, main.3, main.6, ... are the convolutions, each followed by its BatchNorm at the next number.
    generator = _layers(states[0], paths[0], first_norm=1)
    weights = [layer["conv.weight"] for layer in generator]
    doublings = len(weights) - 1
    image_channels, base_channels = weights[-1].shape[1], weights[-1].shape[0]
    discriminator = _layers(states[1], paths[1], first_norm=2) if len(states) == 2 else []
    width = len(discriminator[0]["conv.weight"]) if discriminator else base_channels
    model = build(
        lambda: DCGAN(
            image_size=weights[0].shape[-1] * 2**doublings,
            image_channels=image_channels,
            latent_dim=weights[0].shape[0],
            base_channels=base_channels,
            discriminator_channels=None if width == base_channels else width,
        ),
        paths[0],
    )
    networks = [(model.generator, generator, paths[0])]
    if discriminator:
        networks.append((model.discriminator, discriminator, paths[1]))
    for network, layers, path in networks:
        renamed = {f"layers.{i}.{key}": value for i, layer in enumerate(layers) for key, value in layer.items()}
        fill(network, renamed, path)
    model.available_networks = ("generator", "discriminator")[: len(states)]
    return model.eval()


def _networks(paths: list[Path], layout: str) -> tuple[list[Path], list[State]]:
    """State dicts of generator and discriminator, as far as there are any, each with its file."""
    if len(paths) == 2 or layout == "pytorch-examples":
        return paths, [read_pth(path) for path in paths]
    found = load_pth(paths[0], stubs=[CONFIG])
    if not (isinstance(found, dict) and "netG" in found):
        return paths, [state_of(found, paths[0])]
    parts = [part for part in ("netG", "netD") if part in found]
    return paths * len(parts), [state_of(found, paths[0], part) for part in parts]


def _numbered(state: State, path: Path) -> State:
    """Weights of pytorch_GAN_zoo under the numbers that pytorch-examples gives them.

    Its generator starts with formatLayer, and normalization i follows its convolution i; its discriminator counts down,
    and ends with decisionLayer.
    """
    is_generator = "formatLayer.weight" in state
    if not is_generator and "decisionLayer.weight" not in state:
        raise ValueError(f"{path} does not have the layout of pytorch_GAN_zoo: it lacks formatLayer and decisionLayer")
    if not is_generator and (values := len(state["decisionLayer.weight"])) != 1:
        raise ValueError(f"{path} does not fit: its discriminator gives {values} values, where one can be read")
    depth = sum(key.startswith("main.convTranspose") for key in state) - (not is_generator)
    if is_generator:
        order = [("formatLayer", "main.batchNorm0")]
        order += [(f"main.convTranspose{i}", f"main.batchNorm{i}") for i in range(1, depth + 1)]
        order.append(("main.outlayer", ""))
    else:
        order = [(f"main.convTranspose{depth}", "")]
        order += [(f"main.convTranspose{i}", f"main.batchNorm{i}") for i in reversed(range(depth))]
        order.append(("decisionLayer", ""))
    convolutions, norms = [conv for conv, _ in order], [norm for _, norm in order if norm]
    expect(state, axes_of(convolutions, 4, ("weight",)) | axes_of(norms, 1, NORM), path, "pytorch_GAN_zoo")
    numbered: State = {}
    for i, (conv, norm) in enumerate(order):
        numbered[f"main.{3 * i}.weight"] = state[f"{conv}.weight"]
        if norm:
            kinds = [kind for kind in (*NORM, COUNT) if f"{norm}.{kind}" in state]
            numbered |= {f"main.{3 * i + 1}.{kind}": state[f"{norm}.{kind}"] for kind in kinds}
    return numbered


def _layers(state: State, path: Path, first_norm: int) -> list[State]:
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
