"""Importer of Progressive GAN."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch

from zoo.convert import layouts
from zoo.convert.files import CONFIG, LINEAR, State, axes_of, build, expect, fill, load_pth, read_pth, state_of
from zoo.progressive_gan import ProgressiveGAN

__all__ = ["UnitBiasProgressiveGAN", "progressive_gan"]

GROUP = 4


class UnitBiasProgressiveGAN(ProgressiveGAN):
    """Progressive GAN as pytorch_GAN_zoo has it: the generator's first map has a bias for each channel and pixel."""

    unit_bias = True


def progressive_gan(paths: Sequence[Path], *, layout: str = "pytorch_GAN_zoo") -> UnitBiasProgressiveGAN:
    """Progressive GAN from the files of pytorch_GAN_zoo.

    There a layer is (weight * x + bias) * c with c = sqrt(2 / fan-in) in all layers; here it is gain / sqrt(fan-in) *
    weight * x + bias with gains of the paper. Weights and biases are rescaled, so that outputs are the same.

    Args:
        paths: one checkpoint as training wrote it, whose avgG and netD are taken; or state dicts of avgG (or netG)
            and netD, in this order; the latter may be left out, and is untrained then.
        layout: whose files they are.

    Returns:
        The model, fully grown.

    Raises:
        ValueError: an unknown layout, or files that do not have it.
    """
    layouts.check("progressive_gan", layout, len(paths))
    # Files of older versions lack the name of the wrapped layer.
    states = [
        {key.replace(".module.", "."): value for key, value in state.items()}
        for state in _states([Path(path) for path in paths])
    ]
    paths = [Path(paths[0]), Path(paths[-1])]  # of generator and discriminator

    state = states[0]
    stages = len({key.split(".")[1] for key in state if key.startswith("toRGBLayers.")})
    names = {"formatLayer": "start", "groupScale0.0": "blocks.0.conv1"}
    for s in range(stages):
        names[f"toRGBLayers.{s}"] = f"to_rgb.{s}"
        names |= {f"scaleLayers.{s - 1}.{i}": f"blocks.{s}.conv{i}" for i in (0, 1)} if s else {}
    axes = axes_of(names, 4) | {"formatLayer.weight": 2}
    expect(state, axes, paths[0], layout)
    gains = {"start": math.sqrt(2) / 4} | {f"to_rgb.{s}": 1.0 for s in range(stages)}
    generator = _rescaled(state, names, gains)
    widths = [len(generator[f"blocks.{s}.conv1.weight"]) for s in range(stages)]
    size = 4 << (stages - 1)
    base, most = _schedule(widths, size, paths[0])
    model = build(
        lambda: UnitBiasProgressiveGAN(
            size,
            len(generator["to_rgb.0.weight"]),
            generator["start.weight"].shape[1],
            fmap_base=base,
            max_channels=most,
            minibatch_stddev_group=GROUP,
        ),
        paths[0],
    )
    for network in (model.generator, model.averaged("generator")):
        at = {"stage": torch.tensor(stages - 1), "alpha": torch.tensor(1.0)}
        fill(network, generator | at, paths[0])

    if len(states) == 2:
        names = {"groupScaleZero.0": "conv", "groupScaleZero.1": "hidden", "decisionLayer": "last"}
        for s in range(stages):
            names[f"fromRGBLayers.{s}"] = f"from_rgb.{s}"
            names |= {f"scaleLayers.{s - 1}.{i}": f"blocks.{s - 1}.conv{i}" for i in (0, 1)} if s else {}
        axes = axes_of(names, 4) | {"groupScaleZero.1.weight": 2, "decisionLayer.weight": 2}
        expect(states[1], axes, paths[1], layout)
        discriminator = _rescaled(states[1], names, {"last": 1.0})
        # Its deviation over a group divides by one less than the group's size. NOTE(paper): exact for batches that are
        # multiples of the group's size, on which the code was trained.
        discriminator["conv.weight"][:, -1] *= math.sqrt(GROUP / (GROUP - 1))
        fill(model.discriminator, discriminator, paths[1])
    model.available_networks = ("generator", "generator_ema", "discriminator")[: 1 + len(states)]
    return model.eval()


def _states(paths: list[Path]) -> list[State]:
    """State dicts of the generator and, if it was given, of the discriminator."""
    if len(paths) == 2:
        return [read_pth(path) for path in paths]
    found = load_pth(paths[0], stubs=[CONFIG])
    # A whole checkpoint is told by the name of a network.
    whole = isinstance(found, dict) and not found.keys().isdisjoint(("netG", "netD", "avgG"))
    return [state_of(found, paths[0], *parts) for parts in ([("avgG",), ("netD",)] if whole else [()])]


def _rescaled(state: State, names: dict[str, str], gains: dict[str, float]) -> State:
    """Weights and biases under our names, for our constants."""
    renamed: State = {}
    for theirs, ours in names.items():
        weight, bias = (state[f"{theirs}.{kind}"] for kind in LINEAR)
        renamed[f"{ours}.weight"] = weight * (math.sqrt(2) / gains.get(ours, math.sqrt(2)))
        renamed[f"{ours}.bias"] = bias * math.sqrt(2 / weight[0].numel())
    return renamed


def _schedule(widths: list[int], size: int, path: Path) -> tuple[int, int]:
    """`fmap_base` and `max_channels` of a generator with such maps."""
    base, most = widths[-1] * size // 2, max(widths)
    if most == widths[-1]:
        base = max(base, most)
    if widths != [min(2 * base // (4 << s), most) for s in range(len(widths))]:
        raise ValueError(f"{path} does not fit: its maps have {', '.join(map(str, widths))} channels, not halves")
    return base, most
