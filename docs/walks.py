"""Animations for the pages of architectures: codes turn, samples turn into each other, images are drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from PIL import Image

import zoo
from zoo.base.autoregressive import AutoregressiveModel
from zoo.callbacks.interpolation import walk
from zoo.pretrained import index

__all__ = ["caption", "write"]

IMAGES, FRAMES = 8, 12
"""Images side by side, and steps from one end to the other."""


def caption(slug: str) -> str | None:
    """What a checkpoint's animation shows; None for one without.

    Args:
        slug: the checkpoint.
    """
    kind = getattr(zoo, index()[slug]["class"].rpartition(".")[2])
    if issubclass(kind, AutoregressiveModel):
        return "eight samples as they are drawn"
    if hasattr(kind, "traversals"):
        return "one sample while one code at a time goes from end to end"
    if hasattr(kind, "latent") and not hasattr(kind, "encode_text"):  # sentences have no way between
        return "eight samples turn into each other"
    return None


def write(slug: str, path: Path) -> None:
    """Write the animation of a checkpoint, there and back.

    Args:
        slug: the checkpoint.
        path: the file.
    """
    model: Any = zoo.load(slug)
    if isinstance(model, AutoregressiveModel):
        frames = _drawn(model)
    elif hasattr(model, "traversals"):
        frames = _turned(model)
    else:
        frames = _walked(model)
    zoo.gif([*frames, *frames[-2:0:-1]], path, seconds=3.0)


def _walked(model: Any) -> list[Image.Image]:
    """Each sample goes to the next one."""
    z = model.latent(IMAGES, seed=0)
    gaussian = getattr(model, "noise_kind", "normal") == "normal"
    points = walk(z, z.roll(-1, 0), FRAMES, spherical=gaussian)  # (T, N, D)
    return [zoo.grid(model.generate(at), columns=4) for at in points]


def _turned(model: Any) -> list[Image.Image]:
    """The first continuous codes, each in a place of its own."""
    strips = model.traversals(1, FRAMES, seed=0)
    chosen = [strip[0] for name, strip in strips.items() if not name.startswith(("category", "class"))][:IMAGES]
    return [zoo.grid(torch.stack(images), columns=4) for images in zip(*chosen, strict=True)]


def _drawn(model: AutoregressiveModel) -> list[Image.Image]:
    """Samples of which more and more pixels are there, in the model's order, the rest in gray."""
    images = model.sample(IMAGES, seed=0)
    places = images[0, 0].numel()
    order = next((found for name, found in model.named_buffers() if name.endswith("order")), torch.arange(places))
    frames = []
    for step in range(1, FRAMES + 1):
        shown = images.clone()
        shown.flatten(2)[:, :, order[places * step // FRAMES :]] = 0
        frames.append(zoo.grid(shown, columns=4))
    return frames
