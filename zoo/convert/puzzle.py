"""Importer of Puzzle-GAN."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from zoo.convert import layouts
from zoo.convert.files import LINEAR, NORM, State, axes_of, build, expect, fill, read_pth
from zoo.puzzlegan import PuzzleGAN

__all__ = ["puzzlegan"]


def puzzlegan(paths: Sequence[Path], *, layout: str = "hellbell") -> PuzzleGAN:
    """Puzzle-GAN from the files of the authors' code, for its U-shaped networks.

    Args:
        paths: epoch_<n>_net_net_partenc.pth, ..._net_maskgen.pth, ..._net_imggen.pth and ..._net_disc.pth, in this
            order; the last one may be left out, and is untrained then.
        layout: whose files they are.

    Returns:
        The model; sizes, widths and channels are read off the weights' shapes. Biases that their convolutions have in
        front of normalisations are taken off the running means: the same in evaluation, and without any part in
        further training.

    Raises:
        ValueError: an unknown layout, or files that do not have it.
    """
    layouts.check("puzzlegan", layout, len(paths))
    paths = [Path(path) for path in paths]
    if len(paths) < 3:
        names = " and ".join(layouts.LAYOUTS["puzzlegan"][layout][:3])
        raise ValueError(f"{layout} makes images with {names} together; {len(paths)} of them were given")
    states = [read_pth(path) for path in paths]
    depths = [max(1, sum(value.dim() == 4 for value in state.values()) - 1) for state in states]
    renamed = [_encoder(states[0], depths[0], paths[0], layout)]
    # Both generators normalise their first level, the discriminator does not.
    for state, depth, path, first in zip(states[1:], depths[1:], paths[1:], (0, 0, 1), strict=False):
        end = "judge" if first else f"levels.{depth}.0"
        renamed.append(_chain(state, depth, path, layout, first, end))
        if depth != depths[0]:
            raise ValueError(f"{path} is for {4 << depth} pixels, {paths[0]} for {4 << depths[0]}: give files of one")

    base_channels, image_channels = renamed[0]["levels.0.0.weight"].shape[:2]
    embedding_dim = len(renamed[0]["embed.0.weight"])
    latent_dim = len(renamed[2]["levels.0.0.weight"]) - embedding_dim  # a transposed convolution has its inputs first
    model = build(
        lambda: PuzzleGAN(4 << depths[0], image_channels, max(1, latent_dim), embedding_dim, base_channels), paths[0]
    )
    networks = ("encoder", "mask_generator", "generator", "discriminator")[: len(paths)]
    for network, weights, path in zip(networks, renamed, paths, strict=True):
        fill(model.get_submodule(network), weights, path)
    model.available_networks = networks
    return model.eval()


def _encoder(state: State, depth: int, path: Path, layout: str) -> State:
    """The encoder's weights under our names: each of its levels is a network of its own there."""
    convolutions = [f"model.{i}.0" for i in range(depth + 1)]
    return _renamed(state, convolutions, {i: f"model.{i}.1.0" for i in range(1, depth)}, "embed.0", path, layout)


def _chain(state: State, depth: int, path: Path, layout: str, first: int, end: str) -> State:
    """The same of another network: there convolutions and what follows them stand in one row.

    Args:
        state: its weights.
        depth: number of levels; the last layer comes behind them.
        path: where they came from, for messages.
        layout: their layout, for messages.
        first: the first level with a normalisation.
        end: our name of the last layer.
    """
    convolutions = [f"model.{2 * i}" for i in range(depth + 1)]
    norms = {i: f"model.{2 * i + 1}.0" for i in range(first, depth)}
    return _renamed(state, convolutions, norms, end, path, layout)


def _renamed(state: State, convolutions: list[str], norms: dict[int, str], end: str, path: Path, layout: str) -> State:
    """Weights of these convolutions, the last one our `end`, and of the normalisations behind some, by number."""
    expect(state, axes_of(convolutions, 4) | axes_of(norms.values(), 1, NORM), path, layout)
    renamed: State = {}
    for i, theirs in enumerate(convolutions):
        ours = f"levels.{i}.0" if i < len(convolutions) - 1 else end
        weight, bias = (state[f"{theirs}.{kind}"] for kind in LINEAR)
        renamed[f"{ours}.weight"] = weight
        if i not in norms:
            renamed[f"{ours}.bias"] = bias
            continue
        renamed |= {f"levels.{i}.1.{kind}": state[f"{norms[i]}.{kind}"] for kind in NORM}
        mean = renamed[f"levels.{i}.1.running_mean"]
        if mean.shape != bias.shape:
            raise ValueError(f"{path} does not fit: {theirs}.bias has {len(bias)} values for {len(mean)} channels")
        renamed[f"levels.{i}.1.running_mean"] = mean - bias
    return renamed
