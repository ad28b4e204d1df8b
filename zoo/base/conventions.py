"""What users of Lightning expect of every model: any loader, `predict`, `load_from_checkpoint`, clear refusals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self, cast

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import (
    GradientAccumulationScheduler,
    LearningRateFinder,
    StochasticWeightAveraging,
    WeightAveraging,
)
from lightning.pytorch.trainer.states import RunningStage, TrainerFn
from torch import Tensor

from zoo.base.batches import (
    Batch,
    image_of,
    named_fields,
    refuse_other_labels,
    refuse_other_range,
    scaled_images,
)
from zoo.engine.finite import WatchedModule
from zoo.engine.lean_loop import transfers_plainly
from zoo.engine.levels import take_levels
from zoo.engine.loop import ExactTraining
from zoo.engine.quiet import hide_wrong_warnings
from zoo.engine.ranges import CheckedOptions

__all__ = ["ConventionalModule", "refuse_single_optimizer"]


class ConventionalModule(CheckedOptions, WatchedModule):
    """A LightningModule that takes what loaders give, predicts images with their indices, and says what it cannot do.

    Attributes:
        batch_fields: names of the elements of a batch that comes as a tuple, in their order.
        makes_images: whether the model makes images; others tell about them.
        seed: seed of the run.
    """

    batch_fields: tuple[str, ...] = ("image", "label")
    makes_images = True
    seed: int

    def __dir__(self) -> list[str]:
        names = cast(Any, super()).__dir__()
        return [name for name in names if name != "trainer" or self._trainer is not None]

    # Batches ---------------------------------------------------------------------------------------------------------

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Batch:
        """Any usual batch as a dict under this package's names, with images in [-1, 1].

        Tuples, lists and bare tensors become dicts; dicts may use names such as `x`, `images` or `pixel_values`; images
        of 8 bits are scaled, on the device.

        Args:
            batch: what the loader gave, on the device.
            dataloader_idx: number of the loader.

        Raises:
            ValueError: there are no images, or the first ones have another range, or labels that the model lacks.
        """
        stage = None if self._trainer is None else self._trainer.state.stage
        seen = stage in self._stages_seen
        if seen and type(batch) is dict and batch.keys() == self._taken[0] and image_of(batch).dtype == self._taken[1]:
            return batch  # like the one before, which was taken as it is
        named = named_fields(batch, self.batch_fields, type(self).__name__)
        named = scaled_images(named, cast(Any, self.hparams).get("image_channels"), cast(torch.dtype, self.dtype))
        if not self._range_is_known:
            refuse_other_range(named)
            self._range_is_known = True
        if not seen:
            self._stages_seen = (*self._stages_seen, stage)
            if stage not in (None, RunningStage.PREDICTING) and (values := self.label_values(named)):
                refuse_other_labels(named, values, type(self).__name__)
        if type(batch) is dict and all(named.get(name) is value for name, value in batch.items()):
            self._taken = set(named), image_of(named).dtype  # not the view, which would hold the batch
        return named

    _taken: tuple[Any, Any] = (None, None)
    _range_is_known = False
    _stages_seen: tuple[Any, ...] = ()

    def label_values(self, batch: Batch) -> range | None:
        """The values of `label` that training reads, -1 among them where an image may have none; None if it reads none.

        Args:
            batch: named fields, from which a model may see where else its classes stand.
        """
        return None

    def setup(self, stage: str) -> None:
        """Look at the range of the first images, unless the DataModule says that it keeps to [-1, 1]."""
        super().setup(stage)
        data = getattr(self._trainer, "datamodule", None)
        self._taken, self._stages_seen = (None, None), ()
        self._range_is_known = getattr(data, "value_range", None) == (-1, 1)
        if self._trainer is not None:
            take_levels(self._trainer)

    @property
    def scales_images(self) -> bool:
        """Whether nothing but `on_after_batch_transfer` here changes batches: neither a subclass nor the DataModule."""
        if self._trainer is None:  # `torch.jit.trace` reads every property
            return False
        own = type(self).on_after_batch_transfer is ConventionalModule.on_after_batch_transfer
        return own and transfers_plainly(self, cast(Any, self.trainer).datamodule)

    # Predictions -----------------------------------------------------------------------------------------------------

    def real_and_fake(self, batch: Batch, *, seed: int, first: int) -> tuple[Tensor, Tensor]:
        """Real images of a batch and as many made ones."""
        raise NotImplementedError(f"{type(self).__name__} makes no images")

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        """The images that the model makes for a batch, with their indices: samples, translations, reconstructions.

        Args:
            batch: a batch of named fields.
            batch_idx: number of this rank's batch.
            dataloader_idx: number of the loader.

        Returns:
            `image` (N, C, H, W) in [-1, 1] and `index` (N,): over all ranks each index occurs once. Samples depend on
            the run's seed and their index alone. Models that tell about images, such as classifiers, give `output`.
        """
        n, world = len(image_of(batch)), self.trainer.world_size
        if batch_idx == 0:
            self._full_batch = n
        first = (batch_idx * world + self.global_rank) * self._full_batch
        # Loaders deal images out one by one: rank r has r, r + world, ...
        index = self.global_rank + world * (batch_idx * self._full_batch + torch.arange(n))
        if not self.makes_images:
            return {"index": index, "output": self(image_of(batch))}
        return {"index": index, "image": self.real_and_fake(batch, seed=self.seed, first=first)[1]}

    _full_batch = 1

    # Lightning's other features --------------------------------------------------------------------------------------

    def configure_callbacks(self) -> Sequence[Callback] | Callback:
        """The callback that makes counting, randomness, checkpoints and resume exact."""
        hide_wrong_warnings()
        if self.trainer.state.fn == TrainerFn.FITTING:
            self.check_trainer()
            self.check_unopened(getattr(self.trainer, "datamodule", None))
        # One from an earlier fit of the same Trainer goes on.
        return [] if any(isinstance(c, ExactTraining) for c in self.trainer.callbacks) else [ExactTraining()]  # type: ignore[attr-defined]

    def check_unopened(self, data: Any) -> None:
        """Refuse a DataModule that is not the model's before it is opened."""

    def check_trainer(self) -> None:
        """Refuse settings and callbacks of the Trainer that would do nothing, or another thing than they say."""

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *args: Any, **kwargs: Any) -> Self:
        """A model from a checkpoint of a run, as in Lightning, without pickle.

        Args:
            checkpoint_path: the file.
            args: as in Lightning.
            kwargs: as in Lightning: hyperparameters here replace the checkpoint's.

        Raises:
            ValueError: the checkpoint is another class's, or does not fit the hyperparameters.
        """
        inherited: Any = super().load_from_checkpoint
        try:
            return cast(Self, inherited(checkpoint_path, *args, **{"weights_only": True} | kwargs))
        except (RuntimeError, TypeError) as error:  # of the constructor, or of tensors that have other shapes
            check_class(cls, torch.load(checkpoint_path, map_location="meta", weights_only=True), exactly=True)
            reason = str(error).splitlines()[0]
            raise ValueError(
                f"{checkpoint_path} has hyperparameters that {cls.__name__} does not take: {reason}"
            ) from error

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another class, or of other shapes, in one line."""
        super().on_load_checkpoint(checkpoint)
        check_class(type(self), checkpoint)
        given, own = checkpoint["state_dict"], self.state_dict()
        for name, value in own.items():
            if name in given and given[name].shape != value.shape:
                raise ValueError(
                    f"the checkpoint does not fit {type(self).__name__} with these arguments: its {name} has shape "
                    f"{tuple(given[name].shape)}, the model's {tuple(value.shape)}"
                )


def check_class(kind: type, checkpoint: dict[str, Any], *, exactly: bool = False) -> None:
    """Refuse a checkpoint of another class.

    Args:
        kind: class of the model.
        checkpoint: what was read.
        exactly: refuse that of a parent class too.

    Raises:
        ValueError: names both classes.
    """
    other = checkpoint.get("zoo", {}).get("class", "").rpartition(".")[2]
    if other and other not in {base.__name__ for base in (kind.__mro__[:1] if exactly else kind.__mro__)}:
        raise ValueError(f"the checkpoint is of {other}, not of {kind.__name__}: use {other}.load_from_checkpoint")


INSTEAD: dict[type[Callback], str] = {
    GradientAccumulationScheduler: "set accumulate",
    LearningRateFinder: "choose the rates by hand",
    StochasticWeightAveraging: "set ema_decay",
    WeightAveraging: "set ema_decay",
}
"""Callbacks of Lightning that work with one optimizer only, and what takes their place."""


def refuse_single_optimizer(trainer: Trainer, name: str) -> None:
    """Refuse what Lightning does for a single optimizer only, in a line that says what the model has instead.

    Args:
        trainer: the Trainer.
        name: name of the model.

    Raises:
        ValueError: a setting or a callback would not do what it says.
    """
    settings = {
        "accumulate_grad_batches": (
            trainer.accumulate_grad_batches != 1,
            "accumulate",
            trainer.accumulate_grad_batches,
        ),
        "gradient_clip_val": (bool(trainer.gradient_clip_val), "gradient_clip", trainer.gradient_clip_val),
    }
    for setting, (given, option, value) in settings.items():
        if given:
            raise ValueError(f"{name} steps several optimizers itself: give {name}({option}={value}), no {setting}")
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        for kind, instead in INSTEAD.items():
            if isinstance(callback, kind):
                given_name = type(callback).__name__
                raise ValueError(f"{name} steps several optimizers itself, {given_name} expects one: {instead}")
