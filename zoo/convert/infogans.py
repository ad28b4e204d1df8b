"""Importer of InfoGAN."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo.conv_infogan import ConvInfoGAN
from zoo.convert import layouts
from zoo.convert.files import NORM, State, axes_of, build, expect, fill, load_pth, state_of
from zoo.infogan import InfoGAN

__all__ = ["infogan"]

Renamed = dict[str, Tensor | list[Tensor]]
HEADS = ("netD.conv", "netQ.conv_disc", "netQ.conv_mu", "netQ.conv_var")


def infogan(paths: Sequence[Path], *, layout: str = "natsu6767") -> InfoGAN:
    """InfoGAN from the file of another implementation.

    Args:
        paths: the file.
        layout: whose file it is. "natsu6767": a whole checkpoint of that repository's networks for MNIST, SVHN or
            CelebA, with netG, discriminator (the trunk), netD and netQ; optimizers in it are ignored.

    Returns:
        The model, with z ~ N(0, 1) and a slope of 0.1 as in that port; `ConvInfoGAN` for SVHN and CelebA. The first of
        them sees images in [0, 1] as in the port. Convolutions over whole maps are linear layers here. For MNIST the
        port normalizes the channels of the generator's first map, we normalize each feature: the same in evaluation,
        but not in further training. The port trains Q with the generator and learns the deviations of continuous codes;
        further training here has the authors' objective.

    Raises:
        ValueError: an unknown layout, or a file that does not have it.
    """
    layouts.check("infogan", layout, len(paths))
    path = Path(paths[0])
    found = load_pth(path)
    parts = ("netG", "discriminator", "netD", "netQ")
    state = {f"{part}.{key}": value for part in parts for key, value in state_of(found, path, part).items()}
    if "netG.tconv5.weight" in state:
        model, renamed = _color(state, found.get("params"), path)
    else:
        model, renamed = _gray(state, path)
    heads = [f"netQ.conv_{name}" for name in ("disc", "mu", "var")]
    if not model.codes.continuous:
        heads = heads[:1]  # the port has heads for a code that is not drawn
    renamed |= {
        "discriminator.weight": state["netD.conv.weight"].flatten(1),
        "discriminator.bias": state["netD.conv.bias"],
        "recogniser.0.weight": state["netQ.conv1.weight"].flatten(1),
        # conv_var gives log variances: the port takes their exponential.
        "recogniser.3.weight": [state[f"{head}.weight"].flatten(1) for head in heads],
        "recogniser.3.bias": [state[f"{head}.bias"] for head in heads],
    }
    renamed |= {f"recogniser.1.{kind}": state[f"netQ.bn1.{kind}"] for kind in NORM}
    fill(model, renamed, path)
    return model.eval()


def _gray(state: State, path: Path) -> tuple[InfoGAN, Renamed]:
    """The model for MNIST, and the weights of its generator and trunk."""
    plain = [f"netG.tconv{i}" for i in (1, 2, 3, 4)] + [f"discriminator.conv{i}" for i in (2, 3)] + ["netQ.conv1"]
    norms = [f"netG.bn{i}" for i in (1, 2, 3)] + [f"discriminator.bn{i}" for i in (2, 3)] + ["netQ.bn1"]
    axes = axes_of(plain, 4, ("weight",)) | axes_of(["discriminator.conv1", *HEADS], 4)
    expect(state, axes | axes_of(norms, 1, NORM), path, "natsu6767")
    inputs, hidden = state["netG.tconv1.weight"].shape[:2]
    start = state["netG.tconv2.weight"].shape[-1]
    image_channels = state["netG.tconv4.weight"].shape[1]
    values, continuous = len(state["netQ.conv_disc.weight"]), len(state["netQ.conv_mu.weight"])
    model = build(
        lambda: InfoGAN(
            image_size=4 * start,
            image_channels=image_channels,
            latent_dim=inputs - values - continuous,
            categorical_codes=(values,),
            num_continuous=continuous,
            noise="normal",
            base_channels=len(state["discriminator.conv1.weight"]),
            hidden_features=hidden,
            negative_slope=0.1,
        ),
        path,
    )
    renamed: Renamed = {
        "generator.linear.0.weight": state["netG.tconv1.weight"].flatten(1).T,
        "generator.linear.3.weight": state["netG.tconv2.weight"].flatten(1).T,
        "generator.conv.0.weight": state["netG.tconv3.weight"],
        "generator.conv.3.weight": state["netG.tconv4.weight"],
        "generator.conv.3.bias": torch.zeros(image_channels),
        "trunk.conv.0.weight": state["discriminator.conv1.weight"],
        "trunk.conv.0.bias": state["discriminator.conv1.bias"],
        "trunk.conv.2.weight": state["discriminator.conv2.weight"],
        "trunk.linear.0.weight": state["discriminator.conv3.weight"].flatten(1),
    }
    ours = ("generator.linear.1", "generator.linear.4", "generator.conv.1", "trunk.conv.3", "trunk.linear.1")
    for norm, name in zip(norms, ours, strict=False):
        for kind in NORM:
            value = state[f"{norm}.{kind}"]
            renamed[f"{name}.{kind}"] = value.repeat_interleave(start**2) if norm == "netG.bn2" else value
    return model, renamed


def _color(state: State, params: Any, path: Path) -> tuple[InfoGAN, Renamed]:
    """The same for SVHN and CelebA; which of them, and the codes, stand in the settings of the training."""
    plain = [f"netG.tconv{i}" for i in (1, 2, 3, 4, 5)] + [f"discriminator.conv{i}" for i in (2, 3)] + ["netQ.conv1"]
    norms = [f"netG.bn{i}" for i in (1, 2)] + [f"discriminator.bn{i}" for i in (2, 3)] + ["netQ.bn1"]
    axes = axes_of(plain, 4, ("weight",)) | axes_of(["discriminator.conv1", *HEADS], 4)
    expect(state, axes | axes_of(norms, 1, NORM), path, "natsu6767")
    names = ("dataset", "num_z", "num_dis_c", "dis_c_dim", "num_con_c")
    if not isinstance(params, dict) or not params.keys() >= set(names):
        raise ValueError(f"{path} lacks params with {', '.join(names)}: give the checkpoint as training wrote it")
    model = build(
        lambda: ConvInfoGAN(
            image_size=32,
            image_channels=state["netG.tconv5.weight"].shape[1],
            latent_dim=params["num_z"],
            categorical_codes=(params["dis_c_dim"],) * params["num_dis_c"],
            num_continuous=params["num_con_c"],
            noise="normal",
            base_channels=len(state["discriminator.conv1.weight"]),
            signed=params["dataset"] != "SVHN",
        ),
        path,
    )
    layers = {f"netG.tconv{i + 1}": f"generator.layers.{n}" for i, n in enumerate((0, 3, 6, 8, 10))}
    layers |= {f"discriminator.conv{i + 1}": f"trunk.layers.{n}" for i, n in enumerate((0, 2, 5))}
    renamed: Renamed = {f"{ours}.weight": state[f"{theirs}.weight"] for theirs, ours in layers.items()}
    renamed["trunk.layers.0.bias"] = state["discriminator.conv1.bias"]
    for norm, ours in zip(
        norms, ("generator.layers.1", "generator.layers.4", "trunk.layers.3", "trunk.layers.6"), strict=False
    ):
        renamed |= {f"{ours}.{kind}": state[f"{norm}.{kind}"] for kind in NORM}
    return model, renamed
