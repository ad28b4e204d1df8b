"""Importers of VAE and beta-VAE."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from zoo.beta_vae import BetaVAE
from zoo.convert import layouts
from zoo.convert.files import LINEAR, State, axes_of, build, expect, fill, read_pth, square
from zoo.vae import VAE, Networks

__all__ = ["beta_vae", "vae"]


def vae(paths: Sequence[Path], *, layout: str = "pytorch-examples") -> VAE:
    """VAE from the file of another implementation.

    Args:
        paths: the file.
        layout: whose file it is. "pytorch-examples": linear layers fc1, fc21 (means), fc22 (log variances), fc3, fc4.

    Returns:
        The model. The file does not say how pixels lie: they are those of a square image in grey, else in colour.

    Raises:
        ValueError: an unknown layout, or a file that does not have it.
    """
    layouts.check("vae", layout, len(paths))
    path = Path(paths[0])
    state = read_pth(path)
    expect(state, axes_of(("fc1", "fc21", "fc22", "fc3", "fc4"), 2), path, layout)
    hidden, pixels = state["fc1.weight"].shape
    side, channels = square(pixels, path)
    model = build(
        lambda: VAE(side, channels, len(state["fc21.weight"]), hidden_features=(hidden,)),
        path,
    )
    renamed: dict[str, Tensor | list[Tensor]] = {}
    for kind in LINEAR:
        renamed[f"encoder.net.0.{kind}"] = state[f"fc1.{kind}"]
        renamed[f"encoder.net.2.{kind}"] = [state[f"fc21.{kind}"], state[f"fc22.{kind}"]]
        renamed[f"decoder.net.0.{kind}"] = state[f"fc3.{kind}"]
        renamed[f"decoder.net.2.{kind}"] = state[f"fc4.{kind}"]
    fill(model, renamed, path)
    return model.eval()


def beta_vae(paths: Sequence[Path], *, layout: str) -> BetaVAE:
    """BetaVAE from the file of another implementation.

    Args:
        paths: the file.
        layout: whose file it is. "1konny": a whole checkpoint of that repository's BetaVAE_H or BetaVAE_B, 64 pixels;
            "disentangling-vae": the state dict of that repository's Burgess network, 32 or 64 pixels.

    Returns:
        The model. Neither file says beta, the capacity or the likelihood: they have their defaults.

    Raises:
        ValueError: an unknown layout, or a file that does not have it.
    """
    layouts.check("beta_vae", layout, len(paths))
    path = Path(paths[0])
    state, networks, image_size = _konny(path) if layout == "1konny" else _disentangling(path)
    model = build(
        lambda: BetaVAE(
            image_size,
            image_channels=state["encoder.0.weight"].shape[1],
            latent_dim=state["decoder.0.weight"].shape[1],
            networks=networks,
        ),
        path,
    )
    fill(model, state, path)
    return model.eval()


def _konny(path: Path) -> tuple[State, Networks, int]:
    """The weights, whose names are ours; the networks that have them, and their size."""
    state = read_pth(path, "model_states", "net")
    burgess = "encoder.8.weight" not in state
    convolutions = [f"encoder.{i}" for i in ((0, 2, 4, 6) if burgess else (0, 2, 4, 6, 8))]
    convolutions += [f"decoder.{i}" for i in ((7, 9, 11, 13) if burgess else (3, 5, 7, 9, 11))]
    linear = [f"encoder.{i}" for i in ((9, 11, 13) if burgess else (11,))]
    linear += [f"decoder.{i}" for i in ((0, 2, 4) if burgess else (0,))]
    expect(state, axes_of(convolutions, 4) | axes_of(linear, 2), path, "1konny")
    return state, "burgess" if burgess else "conv", 64


def _disentangling(path: Path) -> tuple[State, Networks, int]:
    """The same; rows of means and of log variances, which take turns in the file, are sorted."""
    state = read_pth(path)
    large = "encoder.conv_64.weight" in state
    down = ["conv1", "conv2", "conv3", *["conv_64"] * large]
    up = [*["convT_64"] * large, "convT1", "convT2", "convT3"]
    inwards, outwards = ["lin1", "lin2", "mu_logvar_gen"], ["lin1", "lin2", "lin3"]
    # Our numbers: an activation behind each layer, and a change of shape between convolutions and linear layers.
    names = {f"encoder.{name}": f"encoder.{2 * i}" for i, name in enumerate(down)}
    names |= {f"encoder.{name}": f"encoder.{2 * (len(down) + i) + 1}" for i, name in enumerate(inwards)}
    names |= {f"decoder.{name}": f"decoder.{2 * i}" for i, name in enumerate(outwards)}
    names |= {f"decoder.{name}": f"decoder.{2 * (len(outwards) + i) + 1}" for i, name in enumerate(up)}
    linear = [layer for layer in names if "conv" not in layer]
    expect(state, axes_of(names, 4) | axes_of(linear, 2), path, "disentangling-vae")
    renamed = {f"{names[layer]}.{kind}": state[f"{layer}.{kind}"] for layer in names for kind in LINEAR}
    for kind in LINEAR:
        head = state[f"encoder.mu_logvar_gen.{kind}"]
        renamed[f"{names['encoder.mu_logvar_gen']}.{kind}"] = torch.cat([head[0::2], head[1::2]])
    return renamed, "burgess", 64 if large else 32
