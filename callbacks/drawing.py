"""What callbacks that draw pictures while a model trains have in common: when, where, and on which rank."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, cast

from lightning.fabric.utilities.apply_func import move_data_to_device
from lightning.pytorch import Callback, LightningModule, Trainer
from PIL import Image
from torch import Tensor

from zoo.callbacks import base

__all__ = ["CHUNK", "DrawingCallback", "fixed_batch", "validation_images"]

CHUNK = 250  # images that are read or encoded at once


class DrawingCallback(Callback):
    """Draws every so many steps and at the end, on rank zero; subclasses define `needs` and `draw`.

    Args:
        every_n_steps: a picture after each of so many training steps; None for none but the last.

    Raises:
        ValueError: the number is too small.
        TypeError: at the start of a fit, if the model lacks what is drawn, or there is no data to draw.
    """

    needs: ClassVar[type]
    needs_data: ClassVar[bool] = False

    def __init__(self, every_n_steps: int | None = None) -> None:
        super().__init__()
        base.check_at_least(type(self).__name__, 1, every_n_steps=every_n_steps)
        self.every_n_steps = every_n_steps
        self._last_step = -1

    def draw(self, trainer: Trainer, model: LightningModule, step: int) -> None:
        """Write the pictures of a step; called on rank zero alone, so nothing in here may talk to other ranks."""
        raise NotImplementedError(f"{type(self).__name__} does not say what it draws")

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check the model, the data and the folder before any time is spent."""
        if stage == "fit":
            base.require(pl_module, self.needs, type(self).__name__)
            if self.needs_data:
                base.require(getattr(trainer, "datamodule", None), base.HasReference, type(self).__name__)
                with base.evaluating(pl_module, 0):
                    validation_images(trainer, pl_module, 1)  # says now, not hours later, that there are none
            base.samples_folder(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A resumed run does not draw again what it has drawn."""
        self._last_step = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Every so many steps."""
        step = trainer.global_step
        if self.every_n_steps and step % self.every_n_steps == 0:
            self._draw_once(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The trained model."""
        self._draw_once(trainer, pl_module)

    def _draw_once(self, trainer: Trainer, model: LightningModule) -> None:
        step = trainer.global_step
        if step != self._last_step:
            self._last_step = step
            if trainer.is_global_zero:
                self.draw(trainer, model, step)

    @staticmethod
    def show(trainer: Trainer, name: str, picture: Image.Image, step: int) -> Path:
        """Write `samples/<name>-<step>.png` and tell the loggers; returns the path without its ending."""
        path = base.samples_folder(trainer) / f"{name}-{step:08d}"
        base.write_png(path.with_suffix(".png"), picture)
        base.log_picture(trainer.loggers, name, picture, step)
        return path


def fixed_batch(trainer: Trainer, model: LightningModule, num: int, split: str) -> dict[str, Any]:
    """The first images of the fixed subset of a split with their fields, on the model's device.

    Args:
        trainer: its DataModule has the images.
        model: says device and type.
        num: images; all of them if the split has fewer.
        split: name of the split.

    Raises:
        ValueError: the split is missing or empty.
    """
    datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
    if hasattr(datamodule, "split"):
        num = min(num, len(datamodule.split(split)))
    batch = next((batch for _, batch in datamodule.reference_batches(num, max(num, 1), split=split)), None)
    if batch is None:
        raise ValueError(f"the {split} split of {datamodule.name} has no images to draw")
    # Lightning converts training batches to the type of bf16-true and 64-true; nobody does that for these.
    dtype = next(model.parameters()).dtype
    batch = {k: v.to(dtype) if isinstance(v, Tensor) and v.is_floating_point() else v for k, v in batch.items()}
    return cast(dict[str, Any], move_data_to_device(batch, model.device))


def validation_images(trainer: Trainer, model: LightningModule, num: int) -> tuple[Tensor, Tensor | None]:
    """The first images of the fixed validation subset, on the model's device, and their labels if they have any.

    Args:
        trainer: its DataModule has the images.
        model: says device and type.
        num: images; all of them if the split has fewer.

    Shape:
        Output: (num, C, H, W); labels (num,) on the CPU, or None.

    Raises:
        ValueError: the validation split is missing or empty.
    """
    batch = fixed_batch(trainer, model, num, "val")
    label: Tensor | None = batch.get("label")
    return batch["image"], None if label is None else label.cpu()
