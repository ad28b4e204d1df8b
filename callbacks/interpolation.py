"""Walks between fixed points of the latent space."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from zoo.callbacks import base
from zoo.callbacks.base.drawing import DrawingCallback
from zoo.engine.background import WRITER
from zoo.engine.images import image_grid
from zoo.engine.pictures import gif

__all__ = ["Interpolation", "walk"]


def walk(a: Tensor, b: Tensor, frames: int, spherical: bool = True) -> Tensor:
    """Points on the way from `a` to `b`, both ends included.

    On a straight line between two draws of high-dimensional Gaussian noise the norm falls by 30 %, to where the model
    was never trained. The spherical walk turns at constant speed and changes the norm evenly (White 2016, "Sampling
    generative networks", section 2.1).

    Args:
        a: starts of the walks.
        b: ends of the walks.
        frames: points on each walk.
        spherical: turn at constant speed instead of going straight.

    Shape:
        a, b: (N, ...); output: (frames, N, ...).
    """
    time = torch.linspace(0, 1, frames, dtype=torch.float64, device="cpu").to(a.device, a.dtype)
    time = time.view(-1, *[1] * a.ndim)
    if not spherical:
        return torch.lerp(a, b, time)
    norm_a, norm_b = (torch.linalg.vector_norm(x.flatten(1), dim=1).view(-1, *[1] * (a.ndim - 1)) for x in (a, b))
    from_, to = a / norm_a.clamp(min=1e-12), b / norm_b.clamp(min=1e-12)
    cosine = (from_ * to).flatten(1).sum(1).view_as(norm_a).clamp(-1, 1)
    angle = cosine.acos()
    # Where the directions (almost) agree, the turn is a straight line.
    sine = angle.sin()
    straight = sine < 1e-4
    safe = torch.where(straight, torch.ones_like(sine), sine)
    direction_a = torch.where(straight, 1 - time, ((1 - time) * angle).sin() / safe)
    direction_b = torch.where(straight, time, (time * angle).sin() / safe)
    turned: Tensor = (direction_a * from_ + direction_b * to) * torch.lerp(norm_a, norm_b, time)
    return turned


class Interpolation(DrawingCallback):
    """Walks from one fixed point of the latent space to another: `samples/interpolation-*.png` and `.gif`.

    Each row of the picture is one walk; the animation runs all of them at once, there and back. Walks through Gaussian
    noise are spherical, others straight. In a conditional model each walk stays in its class.

    Args:
        every_n_steps: steps between pictures; None draws at the end only.
        num_walks: walks, each between its own two points.
        columns: images of each walk in the picture.
        frames: images of each walk in the animation.
        seed: seed of the points.
        gif_seconds: length of the animation, there and back.

    Raises:
        ValueError: a number is too small.
        TypeError: at the start of a fit, if the model does not make images from noise.
    """

    needs = base.GeneratesFromNoise

    def __init__(
        self,
        every_n_steps: int | None = None,
        *,
        num_walks: int = 6,
        columns: int = 10,
        frames: int = 24,
        seed: int = 0,
        gif_seconds: float = 4.0,
    ) -> None:
        super().__init__(every_n_steps)
        self.num_walks = num_walks
        self.columns = columns
        self.frames = frames
        self.seed = seed
        self.gif_seconds = gif_seconds

    def draw(self, trainer: Trainer, model: LightningModule, step: int) -> None:
        """Draw the picture and the animation."""
        strip = self.images(model, self.columns)
        picture = image_grid(strip.transpose(0, 1).flatten(0, 1), self.columns)
        path = self.show(trainer, "interpolation", picture, step)
        frames = [image_grid(images, min(self.num_walks, 3)) for images in self.images(model, self.frames)]
        WRITER.do(partial(gif, seconds=self.gif_seconds), [*frames, *frames[-2:0:-1]], path.with_suffix(".gif"))

    def images(self, model: Any, frames: int) -> Tensor:
        """Images along the walks; needs no Trainer.

        Args:
            model: makes images from noise.
            frames: images per walk.

        Shape:
            Output: (frames, num_walks, C, H, W).
        """
        spherical = getattr(model, "noise_kind", "normal") == "normal"
        label = base.cycled_labels(model, self.num_walks)
        with base.evaluating(model, self.seed):
            a, b = model.latent(2 * self.num_walks, seed=self.seed).chunk(2)
            points = walk(a, b, frames, spherical)
            return torch.stack([model.generate(z, label) for z in points])
