"""Images along single dimensions of a code."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from zoo.callbacks import base
from zoo.callbacks.base.drawing import DrawingCallback
from zoo.engine.background import WRITER
from zoo.engine.images import image_grid
from zoo.engine.pictures import gif

__all__ = ["LatentTraversal"]


class LatentTraversal(DrawingCallback):
    """The effect of each code or dimension of a code: `samples/traversal-*.png` and `.gif`.

    The picture has a named block per code; its rows are fixed latents in which only this code varies, from left to
    right. The animation has a column per code, in which all rows run through the code's values, there and back.

    Args:
        every_n_steps: steps between pictures; None draws at the end only.
        num_rows: fixed latents per code.
        steps: values of a continuous code; a categorical one takes all its own.
        max_codes: largest number of codes that are shown; those along which the images vary most.
        seed: seed of the fixed latents.
        gif_seconds: length of the animation, there and back.

    Raises:
        ValueError: a number is too small.
        TypeError: at the start of a fit, if the model has no `traversals`.
    """

    needs = base.Traverses

    def __init__(
        self,
        every_n_steps: int | None = None,
        *,
        num_rows: int = 4,
        steps: int = 11,
        max_codes: int = 12,
        seed: int = 0,
        gif_seconds: float = 4.0,
    ) -> None:
        super().__init__(every_n_steps)
        self.num_rows = num_rows
        self.steps = steps
        self.max_codes = max_codes
        self.seed = seed
        self.gif_seconds = gif_seconds

    def draw(self, trainer: Trainer, model: LightningModule, step: int) -> None:
        """Draw the picture and the animation."""
        strips = self.strips(model)
        blocks = [image_grid(x.flatten(0, 1), x.size(1)) for x in strips.values()]
        path = self.show(trainer, "traversal", base.stacked(blocks, [*strips]), step)
        # One frame for each value of the code with the most values.
        count = max(x.size(1) for x in strips.values())
        frames = [
            image_grid(torch.stack([_at(x, i / (count - 1)) for x in strips.values()], 1).flatten(0, 1), len(strips))
            for i in range(count)
        ]
        WRITER.do(partial(gif, seconds=self.gif_seconds), [*frames, *frames[-2:0:-1]], path.with_suffix(".gif"))

    def strips(self, model: Any) -> dict[str, Tensor]:
        """Images of the codes that are shown, in the model's order; needs no Trainer.

        Args:
            model: has `traversals`.

        Shape:
            Outputs, by the name of the code: (num_rows, steps, C, H, W).
        """
        with base.evaluating(model, self.seed):
            strips = cast(base.Traverses, model).traversals(self.num_rows, self.steps, seed=self.seed)
        moves = {name: x.float().std(1, correction=0).mean().item() for name, x in strips.items()}
        most = sorted(moves, key=lambda name: -moves[name])[: self.max_codes]
        return {name: x.cpu() for name, x in strips.items() if name in most}


def _at(strip: Tensor, time: float) -> Tensor:
    """The images (num, C, H, W) of a strip (num, steps, C, H, W) at a time in [0, 1]."""
    return strip[:, round(time * (strip.size(1) - 1))]
