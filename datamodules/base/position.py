"""The position of a run in its training stream: rank, images seen, schedule; saved with checkpoints."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Protocol, cast, runtime_checkable

import lightning as L
import torch
from lightning.pytorch.loops.progress import _ProcessedTracker

from zoo.engine.ranges import CheckedOptions
from zoo.engine.rng import run_seed

__all__ = ["RunPosition", "Schedule", "Scheduled"]

Schedule = Callable[[int], tuple[int, float, int]]
"""Images seen to the side of the images, the share of the fade to that side, and the images per step over all ranks."""


@runtime_checkable
class Scheduled(Protocol):
    """A model whose images and batches change size in training."""

    def schedule(self, images_seen: int) -> tuple[int, float, int]:
        """Side of the images, share of the fade to that side, and images per step over all ranks."""
        ...


class RunPosition(CheckedOptions, L.LightningDataModule):
    """A DataModule that knows the position of the run.

    Args:
        batch_size: images per batch and device.
        num_workers: loader processes per device.
        seed: seed of the training order; None takes the seed of the run.
    """

    name: str

    def __init__(self, batch_size: int, num_workers: int, seed: int | None) -> None:
        super().__init__()
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.rewind()

    @property
    @abstractmethod
    def num_train(self) -> int:
        """Number of training images."""

    def rewind(self) -> None:
        """Go to the first image, with the seed of this run."""
        self._restored_seed: int | None = None
        # Images seen when the trainer had counted this many batches.
        self._images, self._batches = 0, 0

    @property
    def run_seed(self) -> int:
        """Seed of order and augmentation: the given one, else that of the resumed run, else of `seed_everything`."""
        given = self._restored_seed if self.seed is None else self.seed
        return run_seed() if given is None else given

    @property
    def rank_and_world(self) -> tuple[int, int]:
        """Number of this process, and number of processes."""
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)

    @property
    def global_batch_size(self) -> int:
        """Images per step over all ranks.

        Raises:
            ValueError: larger than the training split.
        """
        images, (_, world) = self.num_train, self.rank_and_world
        if self.batch_size * world > images:
            raise ValueError(
                f"batch_size {self.batch_size} on {world} device(s) is larger than the {images} training images "
                f"of {self.name}: take at most {images // world}"
            )
        return self.batch_size * world

    @property
    def schedule(self) -> Schedule | None:
        """The schedule of the trained model, if it has one."""
        model = None if self.trainer is None else self.trainer.lightning_module
        return model.schedule if isinstance(model, Scheduled) else None

    @property
    def images_seen(self) -> int:
        """Training images seen in the run, over all ranks: position of the next one in the stream."""
        if (schedule := self.schedule) is not None:
            while self._batches < self._counted:
                self._images, self._batches = self._images + schedule(self._images)[2], self._batches + 1
            return self._images
        return self._images + (self._counted - self._batches) * self.global_batch_size

    @property
    def batches_into_epoch(self) -> int:
        """Batches of the present epoch that are done: 0 unless the run was resumed within an epoch."""
        return 0 if self.trainer is None else self.trainer.fit_loop.epoch_loop.batch_progress.current.ready

    @property
    def overfitting(self) -> bool:
        """Whether the Trainer overfits a few batches."""
        return self.trainer is not None and bool(getattr(self.trainer, "overfit_batches", 0))

    @property
    def pin_memory(self) -> bool:
        """Whether batches go to a GPU."""
        if self.trainer is None:
            return torch.cuda.is_available()
        return self.trainer.strategy.root_device.type == "cuda"

    @property
    def _counted(self) -> int:
        # `processed`: a batch whose step was interrupted is done again. Loaders fetch ahead, so they cannot count.
        if self.trainer is None:
            return self._batches
        return cast(_ProcessedTracker, self.trainer.fit_loop.epoch_loop.batch_progress.total).processed

    def count(self) -> None:
        """Count a training batch, where no Trainer does."""
        if self.trainer is None:
            self._images += self.batch_size

    def state_dict(self) -> dict[str, Any]:
        """The position of the run in the training stream."""
        return {"seed": self.run_seed, "images_seen": self.images_seen, "batches": self._counted}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue after the images that were seen, with any batch size and number of ranks."""
        self._restored_seed = state_dict["seed"]
        self._images, self._batches = state_dict["images_seen"], state_dict["batches"]
