"""Loaders: one rank's batches of a dataset that gives whole batches.

Global batch k of a run holds positions [kG, (k + 1)G) of the training stream, where G = batch_size * ranks, and rank r
takes the r-th contiguous share. So W ranks see what one process would see with W times the batch size, and a resumed
run continues with the next image.

A model that grows says how large its images and its global batches are after n images (`Scheduled`). Batch k then
starts where batch k - 1 ended, and each rank takes its share: the batches are the same on any number of ranks. An epoch
has as many batches as one pass over the images takes at the first batch size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from zoo.datamodules.base.image_set import Batch
from zoo.datamodules.base.position import RunPosition
from zoo.datamodules.base.stream import Served
from zoo.engine.stopping import shield_worker

__all__ = ["Loader", "PlannedSampler", "TrainLoader"]


class Loader:
    """Batches of one rank.

    It is not a DataLoader, because Lightning rebuilds those: Lightning would add a second sampler in distributed runs
    and when predicting, and replace ours for `overfit_batches`.

    Args:
        dataset: gives a whole batch for each entry of the plan.
        plan: the entries of one pass, such as ranges of positions; called when the first batch of a pass is fetched.
        length: batches of a whole pass.
        num_workers: loader processes.
        pin_memory: put batches into page-locked memory, from where a GPU can fetch them.
    """

    def __init__(
        self,
        dataset: Dataset[Batch],
        plan: Callable[[], Iterable[Any]],
        length: int,
        *,
        num_workers: int,
        pin_memory: bool,
    ) -> None:
        self.length = length
        self._served = Served(dataset)
        self._loader: DataLoader[Batch] = DataLoader(
            self._served,
            batch_size=None,  # the sampler gives whole batches
            sampler=PlannedSampler(plan),
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            pin_memory=pin_memory,
            worker_init_fn=shield_worker,
            generator=torch.Generator(),  # else each pass would draw from torch's global generator
        )

    @property
    def dataset(self) -> Dataset[Batch]:
        """The dataset that gives the batches."""
        return self._served.dataset

    def give_levels(self) -> None:
        """Give images as uint8 from now on, for a model that scales them; called before the first batch."""
        self._served.as_levels = True

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Batch]:
        # A generator: nothing is started and no position is fixed before the first batch is asked for.
        yield from self._loader

    def close(self) -> None:
        """End the loader processes, now: left to the garbage collector, each may take seconds."""
        iterator, self._loader._iterator = self._loader._iterator, None
        if isinstance(iterator, _MultiProcessingDataLoaderIter):
            iterator._shutdown_workers()


class PlannedSampler(Sampler[Any]):
    """The entries of a plan that is made anew for each pass.

    Args:
        plan: makes the entries of a pass.
    """

    def __init__(self, plan: Callable[[], Iterable[Any]]) -> None:
        self.plan = plan

    def __iter__(self) -> Iterator[Any]:
        return iter(self.plan())


class TrainLoader(Loader):
    """This rank's batches of the training stream, from the position of the run to the end of the epoch.

    The length is that of a whole epoch: Lightning counts from the start of the epoch after a resume, too.

    Args:
        position: the position of the run.
        stream: the training stream; with a schedule a `MultiResolutionStream`.
    """

    def __init__(self, position: RunPosition, stream: Dataset[Batch]) -> None:
        self.position = position
        schedule = position.schedule
        # A schedule changes the batch size, but not the length: Lightning asks for the length once, and after a resume.
        size = position.global_batch_size if schedule is None else schedule(0)[2]
        length = max(1, position.num_train // size)
        plan = self._rest_of_epoch if schedule is None else self._scheduled_rest_of_epoch
        super().__init__(stream, plan, length, num_workers=position.num_workers, pin_memory=position.pin_memory)

    def _rest_of_epoch(self) -> list[range]:
        (rank, world), size = self.position.rank_and_world, self.position.batch_size
        first = self.position.images_seen
        left = range(self.length - self.position.batches_into_epoch)
        if self.position.overfitting:  # the same batches in every epoch
            first = self.position.batches_into_epoch * size * world
        return [range(start, start + size) for k in left for start in (first + (k * world + rank) * size,)]

    def _scheduled_rest_of_epoch(self) -> Iterator[tuple[range, int]]:
        schedule, (rank, world) = self.position.schedule, self.position.rank_and_world
        assert schedule is not None
        images = self.position.images_seen
        for k in range(self.position.batches_into_epoch, self.length):
            resolution, _, batch = schedule(images)
            share, rest = divmod(batch, world)
            if rest:
                raise ValueError(f"a batch of {batch} images cannot be shared among {world} devices alike")
            first = (k * batch if self.position.overfitting else images) + rank * share
            yield range(first, first + share), resolution
            images += batch

    def __iter__(self) -> Iterator[Batch]:
        for batch in super().__iter__():
            self.position.count()
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """The state of the position; that the loader has one tells Lightning that a mid-epoch resume is exact."""
        return self.position.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue after the images that were seen."""
        self.position.load_state_dict(state_dict)
