"""Animations for the pages of architectures: samples that turn into each other while their noise moves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import zoo
from zoo.callbacks.interpolation import walk
from zoo.pretrained import index

__all__ = ["has_walk", "write"]

IMAGES, FRAMES = 8, 12
"""Samples side by side, and steps from each to the next one."""


def has_walk(slug: str) -> bool:
    """Whether the noise of a checkpoint is one vector: what also draws classes or reads sentences has no way between.

    Args:
        slug: the checkpoint.
    """
    kind = getattr(zoo, index()[slug]["class"].rpartition(".")[2])
    return hasattr(kind, "latent") and not hasattr(kind, "classify") and not hasattr(kind, "encode_text")


def write(slug: str, path: Path) -> None:
    """Write the animation of a checkpoint: each sample goes to the next one and back.

    Args:
        slug: the checkpoint.
        path: the file.
    """
    model: Any = zoo.load(slug)
    z = model.latent(IMAGES, seed=0)
    gaussian = getattr(model, "noise_kind", "normal") == "normal"
    points = walk(z, z.roll(-1, 0), FRAMES, spherical=gaussian)  # (T, N, D)
    frames = [zoo.grid(model.generate(at), columns=4) for at in points]
    zoo.gif([*frames, *frames[-2:0:-1]], path, seconds=3.0)
