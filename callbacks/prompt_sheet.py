"""Images of fixed sentences, and of embeddings between two sentences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from zoo.callbacks import base
from zoo.callbacks.base.drawing import DrawingCallback
from zoo.engine.images import image_grid

__all__ = ["PromptSheet"]


class PromptSheet(DrawingCallback):
    """A row for each sentence, a column for each of some fixed noises: `samples/prompts-*.png`.

    Within a column only the sentence changes. `samples/between-*.png` goes from one sentence to another in even steps,
    a row per noise.

    Args:
        prompts: the sentences.
        every_n_steps: steps between pictures; None draws at the end only.
        num_noises: columns.
        between: the two sentences; None takes the first and the last of `prompts`.
        steps: images from the first to the second.
        seed: seed of the noise.

    Raises:
        ValueError: a number is too small, or there are no sentences.
        TypeError: at the start of a fit, if the model does not draw sentences.
    """

    needs = base.DrawsText

    def __init__(
        self,
        prompts: Sequence[str],
        every_n_steps: int | None = None,
        *,
        num_noises: int = 8,
        between: tuple[str, str] | None = None,
        steps: int = 8,
        seed: int = 0,
    ) -> None:
        super().__init__(every_n_steps)
        if not prompts:
            raise ValueError("PromptSheet: prompts must hold at least one sentence")
        self.prompts = list(prompts)
        self.num_noises = num_noises
        self.between = (self.prompts[0], self.prompts[-1]) if between is None else tuple(between)
        self.steps = steps
        self.seed = seed

    def draw(self, trainer: Trainer, model: LightningModule, step: int) -> None:
        """Draw both sheets."""
        drawer = cast(base.DrawsText, model)
        with base.evaluating(model, self.seed):
            embeddings = drawer.encode_text(self.prompts)
            rows = [self._images(drawer, embedding) for embedding in embeddings]
            a, b = drawer.encode_text(list(self.between))
            shares = torch.linspace(0, 1, self.steps).tolist()
            way = torch.stack([self._images(drawer, torch.lerp(a, b, share)) for share in shares], 1)
        self.show(trainer, "prompts", base.stacked([image_grid(row, len(row)) for row in rows], self.prompts), step)
        between = image_grid(way.flatten(0, 1), self.steps)
        self.show(trainer, "between", base.stacked([between], [" to ".join(self.between)]), step)

    def _images(self, model: base.DrawsText, embedding: Tensor) -> Tensor:
        """One image for each noise."""
        return model.sample(self.num_noises, seed=self.seed, embedding=embedding)
