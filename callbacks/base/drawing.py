"""Callbacks that draw pictures while a model trains: when, where, on which rank, and of which images."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from lightning.fabric.utilities.apply_func import move_data_to_device
from lightning.pytorch import Callback, LightningModule, Trainer
from PIL import Image
from torch import Tensor

from zoo.callbacks.base.canvas import log_picture, samples_folder, write_png
from zoo.callbacks.base.checks import require_protocol
from zoo.callbacks.base.evaluating import evaluating
from zoo.callbacks.base.protocols import HasReference
from zoo.engine.background import WRITER
from zoo.engine.ranges import CheckedOptions

__all__ = ["DrawingCallback", "FixedBatchCallback"]


class DrawingCallback(CheckedOptions, Callback):
    """Draws every n steps and at the end, on rank zero; subclasses define `needs` and `draw`.

    Args:
        every_n_steps: steps between pictures; None draws at the end only.

    Raises:
        ValueError: the number is too small.
        TypeError: at the start of a fit, if the model lacks what `needs` names.
    """

    needs: ClassVar[type]

    def __init__(self, every_n_steps: int | None = None) -> None:
        super().__init__()
        self.every_n_steps = every_n_steps
        self._last_step = -1

    def draw(self, trainer: Trainer, model: LightningModule, step: int) -> None:
        """Write the pictures of a step; called on rank zero alone, so nothing in here may talk to other ranks."""
        raise NotImplementedError(f"{type(self).__name__} does not say what it draws")

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check the model and the folder before any time is spent; remove what a kill left half written."""
        if stage == "fit":
            require_protocol(pl_module, self.needs, type(self).__name__)
            folder = samples_folder(trainer)
            if trainer.is_global_zero:
                for path in folder.glob(".*.tmp"):
                    path.unlink(missing_ok=True)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A resumed run does not draw again what it has drawn."""
        self._last_step = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Draw if the step is due."""
        step = trainer.global_step
        if self.every_n_steps and step % self.every_n_steps == 0:
            self._draw_once(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the trained model; all pictures are there afterwards."""
        self._draw_once(trainer, pl_module)
        WRITER.wait()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Finish the pictures that are being written."""
        WRITER.settle()

    def _draw_once(self, trainer: Trainer, model: LightningModule) -> None:
        step = trainer.global_step
        if step != self._last_step:
            self._last_step = step
            if trainer.is_global_zero:
                self.draw(trainer, model, step)

    @staticmethod
    def show(trainer: Trainer, name: str, picture: Image.Image, step: int) -> Path:
        """Write `samples/<name>-<step>.png` beside training and tell the loggers; the path without its ending."""
        path = samples_folder(trainer) / f"{name}-{step:08d}"
        WRITER.do(write_png, path.with_suffix(".png"), picture)
        log_picture(trainer.loggers, name, picture, step)
        return path


class FixedBatchCallback(DrawingCallback):
    """Draws what a model makes of the first images of a split, the same ones each time.

    Args:
        every_n_steps: steps between pictures; None draws at the end only.
        num_images: number of images, at most all of the split.
        split: split of the images.
        seed: seed of what the model draws.

    Raises:
        ValueError: a number is too small, or the split is missing or empty.
        TypeError: at the start of a fit, if the model or the DataModule lacks what the picture needs.
    """

    data_needs: ClassVar[type] = HasReference

    def __init__(
        self, every_n_steps: int | None = None, *, num_images: int = 8, split: str = "test", seed: int = 0
    ) -> None:
        super().__init__(every_n_steps)
        self.num_images = num_images
        self.split = split
        self.seed = seed

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check the model, the data and the folder before any time is spent."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            for protocol in (HasReference, self.data_needs):
                require_protocol(getattr(trainer, "datamodule", None), protocol, type(self).__name__)
            with evaluating(pl_module, self.seed):
                self.fixed_batch(trainer, pl_module, 1)  # says now, not hours later, that there are none

    def fixed_batch(self, trainer: Trainer, model: LightningModule, num: int | None = None) -> dict[str, Any]:
        """The images with all their fields, on the model's device and of its floating-point type.

        Args:
            trainer: its DataModule has the images.
            model: gives device and type.
            num: number of images; None takes `num_images`.

        Raises:
            ValueError: the split is missing or empty.
        """
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        num = self.num_images if num is None else num
        if hasattr(data, "split"):
            num = min(num, len(data.split(self.split)))
        batch = next((batch for _, batch in data.reference_batches(num, max(num, 1), split=self.split)), None)
        if batch is None:
            raise ValueError(f"the {self.split} split of {data.name} has no images to draw")
        # Lightning converts training batches to the type of bf16-true and 64-true; nobody does that for these.
        dtype = next(model.parameters()).dtype
        batch = {k: v.to(dtype) if isinstance(v, Tensor) and v.is_floating_point() else v for k, v in batch.items()}
        moved: dict[str, Any] = move_data_to_device(batch, model.device)
        return moved
