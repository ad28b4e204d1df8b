"""Grids of samples while a model trains, and their animation."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, cast

from lightning.pytorch import LightningModule, Trainer
from PIL import Image

from zoo.callbacks import base
from zoo.callbacks.base.drawing import DrawingCallback
from zoo.engine.background import WRITER
from zoo.engine.images import image_grid
from zoo.engine.pictures import gif

__all__ = ["SampleGrid"]


class SampleGrid(DrawingCallback):
    """Draws the same samples again and again while the model trains, from the first step to the last.

    Every image of the grid keeps its seed, so the grids show how it develops. They are `samples/step-*.png` in the
    run's folder; at the end `samples/progress.gif` animates them. Weights & Biases and TensorBoard get them too if they
    log the run. A resumed run makes the same frames as an uninterrupted one, and the animation holds all of them.

    The grid of a model that grows has a caption: resolution, its share in the images (alpha), and images seen. The
    samples of a conditional model cycle over its classes, a column per class if there are at most 16.

    Args:
        every_n_steps: steps between grids; None draws at the start and the end only.
        num_samples: images in the grid.
        columns: images per row; by default the grid is about square.
        seed: seed of the samples, the same for all grids.
        gif: make the animation.
        gif_seconds: length of the animation.
        gif_frames: largest number of its pictures, evenly spaced among the grids.

    Raises:
        ValueError: a number is too small.
        TypeError: at the start of a fit, if the model cannot sample.
    """

    needs = base.Samples

    def __init__(
        self,
        every_n_steps: int | None = 500,
        num_samples: int = 64,
        *,
        columns: int | None = None,
        seed: int = 0,
        gif: bool = True,
        gif_seconds: float = 6.0,
        gif_frames: int = 60,
    ) -> None:
        super().__init__(every_n_steps)
        self.num_samples = num_samples
        self.columns = columns
        self.seed = seed
        self.gif = gif
        self.gif_seconds = gif_seconds
        self.gif_frames = gif_frames

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the untrained model, but not when a run is resumed."""
        super().on_train_start(trainer, pl_module)
        if trainer.global_step == 0 and trainer.is_global_zero:
            self.draw(trainer, pl_module, 0)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the trained model, and the animation."""
        super().on_train_end(trainer, pl_module)
        if self.gif and trainer.is_global_zero:
            self._animate(base.samples_folder(trainer), trainer.global_step)

    def draw(self, trainer: Trainer, model: LightningModule, step: int) -> None:
        """Draw the grid."""
        label = base.cycled_labels(model, self.num_samples)
        with base.evaluating(model, self.seed):
            conditions: dict[str, Any] = {} if label is None else {"label": label}
            images = cast(base.Samples, model).sample(self.num_samples, seed=self.seed, **conditions)
        picture = image_grid(images, self._columns(model))
        if isinstance(model, base.Grows):
            at = model.progress
            picture = base.captioned(
                picture, f"{at['resolution']:.0f} px, alpha {at['alpha']:.2f}, {at['images_seen'] / 1000:.1f}k images"
            )
        WRITER.do(base.write_png, base.samples_folder(trainer) / f"step-{step:08d}.png", picture)
        base.log_picture(trainer.loggers, "samples", picture, step)

    def _columns(self, model: LightningModule) -> int:
        if self.columns is not None:
            return self.columns
        count = base.class_count(model)
        return count if 1 < count <= 16 else math.ceil(math.sqrt(self.num_samples))

    def _animate(self, folder: Path, last: int) -> None:
        """Animate the files of this run's steps, which include those from before a resume."""
        steps = {0, last}
        if self.every_n_steps:
            steps.update(range(0, last + 1, self.every_n_steps))
        paths = [path for step in sorted(steps) if (path := folder / f"step-{step:08d}.png").is_file()]
        frames = [Image.open(path).convert("RGB") for path in base.evenly_spaced(paths, self.gif_frames)]
        # A frame of another size is from a run with another grid, which the same folder held before.
        frames = [frame for frame in frames if frame.size == frames[-1].size]
        gif(frames, folder / "progress.gif", seconds=self.gif_seconds, hold=1.0)
