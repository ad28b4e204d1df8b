"""Images of 8 bits on their way to a GPU: a quarter of the bytes, scaled there to the values that a CPU gives."""

from __future__ import annotations

from functools import partial
from typing import Any, Protocol, cast, runtime_checkable

from lightning.pytorch import Trainer

__all__ = ["GivesLevels", "take_levels"]


@runtime_checkable
class GivesLevels(Protocol):
    """A loader that can leave the scaling of its images to the model."""

    def give_levels(self) -> None:
        """Give images as uint8 from now on."""
        ...


def take_levels(trainer: Trainer) -> None:
    """Let the loaders of a DataModule give uint8 in a run on CUDA of a model that scales images.

    Loaders that a user has made, or iterates over, keep to [-1, 1].

    Args:
        trainer: a Trainer before its loaders are made.
    """
    process = trainer.strategy.process_dataloader
    if getattr(process, "func", None) is not _processed:
        trainer.strategy.process_dataloader = partial(_processed, trainer, process)  # type: ignore[method-assign]


def _processed(trainer: Trainer, process: Any, loader: object) -> object:
    given = cast(Any, trainer).datamodule is not None and isinstance(loader, GivesLevels)
    if given and _is_far(trainer) and getattr(trainer.lightning_module, "scales_images", False):
        cast(GivesLevels, loader).give_levels()
    return process(loader)


def _is_far(trainer: Trainer) -> bool:
    """Whether batches go over a bus."""
    return trainer.strategy.root_device.type == "cuda"
