"""The public interface of every model."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import wraps
from inspect import currentframe
from types import FrameType
from typing import Any, TypeVar, cast

import torch
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor, nn
from torch.optim import SGD

from zoo.base.batches import Batch
from zoo.base.conventions import ConventionalModule
from zoo.base.for_data import ShapedByData
from zoo.base.hyperparameters import Hyperparameters
from zoo.base.loaded import start_training
from zoo.base.shared import Shared
from zoo.engine import cross_rank, rng
from zoo.engine.devices import upload
from zoo.engine.tracing import is_exported, is_traced
from zoo.nn.options import OptionGroup
from zoo.nn.schedules import Decay

__all__ = ["Batch", "GenerativeModel", "Terms", "inference"]

Terms = dict[str, Tensor]
"""Named terms of an objective, already weighted: their sum is the objective."""

_Method = TypeVar("_Method", bound=Callable[..., Any])


def inference(method: _Method) -> _Method:
    """Run a method with all modules in evaluation mode; the modes are restored afterwards.

    The result carries gradients only if an argument asks for them, as the noise does in GAN inversion.
    """

    @wraps(method)
    def wrapped(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        training = [module for module in self.modules() if module.training]
        for module in training:
            module.training = False
        try:
            if is_exported():  # a graph has no mode
                return method(self, *args, **kwargs)
            given = (*args, *kwargs.values())
            wanted = any(isinstance(value, Tensor) and value.requires_grad for value in given)
            with torch.set_grad_enabled(wanted and torch.is_grad_enabled()):
                return method(self, *args, **kwargs)
        finally:
            for module in training:
                module.training = True

    return cast(_Method, wrapped)


class GenerativeModel(ShapedByData, Shared, ConventionalModule):
    """A generative model of images.

    Public methods take and return images in [-1, 1], (N, C, H, W). Subclasses that sample define `latent` and
    `generate`, or `sample` itself; and what else they can do of `encode`, `decode`, `reconstruct`, `translate`,
    `log_prob` and `score`.

    Attributes:
        inference_networks: names of the submodules that the public inference API needs; a published file holds these.
        optional_networks: those of them that a file may lack.
        main_function: the method that `model(...)` calls: `generate`, `reconstruct`, `log_prob`, `translate`, ...
        conditions: names of what `sample` can be conditioned on.
        available_networks: names of the submodules that the model's file held; the others are untrained. None for a
            model that was not loaded, and from the start of a fit on.
        seed: seed of the run; set at the start of a fit from `seed_everything`, kept in checkpoints.
        start: what a run of the command started from: name, sha256 and warm-up steps; None for new weights.
        batch_index: index of the training batch in the run, counted over epochs and resumes.
    """

    main_function = ""
    inference_networks: tuple[str, ...] = ()
    optional_networks: tuple[str, ...] = ()
    conditions: tuple[str, ...] = ()
    available_networks: tuple[str, ...] | None = None
    start: dict[str, Any] | None = None
    fresh_modes: Collection[str] | None = None  # modules that were in training mode when a loaded model was built
    capture = False  # whether a step is captured as one CUDA graph
    run_share: float | None = None  # of the run that is done, where its end is no number of steps
    evaluated: tuple[Any, ...] | None = None  # split, rank and number of the batch whose objectives are being logged

    def __init__(self) -> None:
        super().__init__()
        self.seed = rng.run_seed()

    # Public interface ------------------------------------------------------------------------------------------------

    def forward(self, *inputs: Any, **options: Any) -> Any:
        """What the model is for, its `main_function`, under the name that torch calls: `model(x)`, `torch.export`."""
        if not self.main_function:
            raise NotImplementedError(f"{type(self).__name__} names no main_function")
        return getattr(self, self.main_function)(*inputs, **options)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Shape (C, H, W) of one image."""
        channels, size = self.hparams["image_channels"], self.hparams["image_size"]
        return channels, size, size

    @inference
    def sample(self, n: int, *, seed: int | None = None, first: int = 0, **conditions: Any) -> Tensor:
        """Draw images from the model.

        Args:
            n: number of images.
            seed: seed of the draw; None takes a new one from torch's generator.
            first: global index of the first image: image i depends on (seed, first + i) only.
            conditions: those named in the attribute `conditions`; the others are drawn.

        Shape:
            Output: (n, C, H, W) in [-1, 1].

        Raises:
            NotImplementedError: the model makes images of images only.
            ValueError: the model has no such condition, or none of this value.
        """
        self.check_conditions(conditions)
        inputs = self.sample_inputs(n, self.resolve_seed(seed), first, **conditions)
        images: Tensor = cast(Any, self).generate(**inputs)
        return images

    def sample_inputs(self, n: int, seed: int, first: int, **conditions: Any) -> dict[str, Any]:
        """What `sample` passes to `generate`: here what the model's method `latent` draws under the conditions."""
        if not hasattr(self, "latent"):
            raise NotImplementedError(f"{type(self).__name__} cannot sample")
        return {"z": cast(Any, self).latent(n, seed=seed, first=first, **conditions)}

    def averaged(self, name: str) -> nn.Module:
        """The network that serves inference under this name: itself, where no average of its weights is kept."""
        return cast(nn.Module, getattr(self, name))

    def check_conditions(self, given: Iterable[str]) -> None:
        """Refuse conditions that the model does not have.

        Args:
            given: names of the conditions.

        Raises:
            ValueError: names the first one that does not exist, and those that do.
        """
        if unknown := [name for name in given if name not in self.conditions]:
            own = f": it has {', '.join(map(repr, self.conditions))}" if self.conditions else ""
            raise ValueError(f"{type(self).__name__} has no condition {unknown[0]!r}{own}")

    def labels_for(self, n: int, label: int | Tensor, num_classes: int, name: str = "labels") -> Tensor:
        """A class for each image, from one class for all images or from one per image.

        Args:
            n: number of images.
            label: the class or classes.
            num_classes: number of classes that exist.
            name: what the classes are called in the message.

        Shape:
            label: scalar or (n,); output: (n,) int64.

        Raises:
            ValueError: there is no such class.
        """
        labels = torch.as_tensor(label, dtype=torch.int64)
        if n and not is_traced() and not 0 <= int(labels.min()) <= int(labels.max()) < num_classes:
            raise ValueError(f"{name} must lie in 0..{num_classes - 1}")
        return upload(labels, self.device).expand(n)

    def real_and_fake(self, batch: Batch, *, seed: int, first: int) -> tuple[Tensor, Tensor]:
        """Real images of a batch and as many generated ones, to be compared as sets.

        Args:
            batch: a batch of the evaluated split.
            seed: seed of the generated images.
            first: global index of the first image.

        Shape:
            Output: two of (N, C, H, W) in [-1, 1].
        """
        real: Tensor = batch["image"]
        return real, self.sample(len(real), seed=seed, first=first)

    def real_images(self, batch: Batch) -> Tensor:
        """The real images of `real_and_fake` alone (N, C, H, W)."""
        real: Tensor = batch["image"]
        return real

    def setup(self, stage: str) -> None:
        """From the start of a fit on, all networks train."""
        super().setup(stage)
        if stage == "fit":
            self.check_data(getattr(self._trainer, "datamodule", None))
            start_training(self)
            self.finite.forget()

    def save_hyperparameters(self, *args: Any, **kwargs: Any) -> None:
        """Keep the constructor's arguments in `hparams`; called in the constructor of each architecture.

        A variant calls this too, after its parent has: then `hparams` lists the variant's own arguments alone, so that
        `type(model)(**model.hparams)` builds the same model again.
        """
        frame = kwargs.pop("frame", None) or cast(FrameType, currentframe()).f_back
        if not args and frame is not None and frame.f_code is type(self).__init__.__code__:
            self._hparams = Hyperparameters(self.hparams)
        super().save_hyperparameters(*args, frame=frame, **kwargs)
        kept: dict[str, Any]
        for kept in (self.hparams, self._hparams_initial):  # type: ignore[assignment]
            # Checkpoints and headers hold plain types.
            kept.update({name: value.fields() for name, value in kept.items() if isinstance(value, OptionGroup)})

    def decayed(self, rate: float, decay: Decay | None, step: int) -> float:
        """A learning rate at a step, under a schedule.

        Args:
            rate: the rate without a schedule.
            decay: the schedule, or None.
            step: steps done, counted from 0.
        """
        if decay is None:
            return rate
        t, total = (self.current_epoch if decay.unit == "epochs" else step), math.inf
        if decay.follows_the_run:
            epochs = float(self.trainer.max_epochs or 0) or math.inf
            total = epochs if decay.unit == "epochs" else self.trainer.estimated_stepping_batches
            if self.run_share is not None:
                total = t / self.run_share if t and self.run_share else math.inf
        return decay.rate(rate, t, total)

    def require_network(self, name: str, purpose: str) -> nn.Module:
        """A network, unless the model was made of a file that does not hold it: then its weights mean nothing.

        Args:
            name: name of the submodule.
            purpose: what the network is needed for, or what the caller can do without it.

        Raises:
            ValueError: the file does not hold the network.
        """
        if self.available_networks is not None and name not in self.available_networks:
            held = ", ".join(self.available_networks) or "none"
            raise ValueError(f"{purpose}: the model's file holds {held}, no {name}")
        return self.get_submodule(name)

    # Keyed randomness ------------------------------------------------------------------------------------------------

    def draw_key(self, purpose: str) -> rng.Key:
        """Key of what the objective draws for one purpose in this batch (see `zoo.engine.rng`)."""
        if (numbers := self.step_numbers) is not None:
            return rng.LateKey(purpose, lambda: rng.key(self.seed, purpose, self.batch_index), numbers.integer)
        return rng.key(self.seed, purpose, *(self.evaluated or (self.batch_index,)))

    def training_normal(self, shape: Sequence[int], purpose: str) -> Tensor:
        """Draws of this batch from N(0, 1), a row for each image.

        Args:
            shape: shape of the draws, (N, ...).
            purpose: as for `draw_key`.
        """
        options: dict[str, Any] = {"device": self.device, "dtype": self.dtype}
        return rng.normal(shape, self.draw_key(purpose), self.first_index(shape[0]), **options)

    @property
    def batch_rank(self) -> int:
        """Number of this rank among those whose batches make one."""
        return 0 if cross_rank.is_alone() else int(self.global_rank)

    def first_index(self, n: int) -> int:
        """Global index of this rank's first sample in a batch of n per rank."""
        return self.batch_rank * n

    @staticmethod
    def resolve_seed(seed: int | None) -> int:
        """The seed itself, or a new one from torch's generator for None."""
        return int(torch.randint(2**31, ()).item()) if seed is None else seed

    # Training --------------------------------------------------------------------------------------------------------

    def check_data(self, data: Any) -> None:
        """Refuse data that mean something else than the model's, at the start of a fit; see `require_same`.

        Args:
            data: the DataModule, or None.

        Raises:
            ValueError: names what differs; here the number of classes.
        """
        names, values = getattr(data, "class_names", {}).get("label", []), self.label_values({})
        if names and values and len(names) != values.stop:
            raise ValueError(f"the data have {len(names)} classes, the model {values.stop}: set num_classes alike")

    @staticmethod
    def require_same(what: str, given: Sequence[str], own: Sequence[str]) -> None:
        """Refuse data with other names than the model's, or in another order: they would be mistaken silently.

        Args:
            what: what the names are of.
            given: the data's.
            own: the model's.

        Raises:
            ValueError: they differ.
        """
        if list(given) != list(own):
            raise ValueError(f"the data have the {what} {', '.join(given)}; the model has {', '.join(own)}")

    def check_images(self, shape: torch.Size) -> None:
        """Refuse training images of a shape that the model is not made for.

        Args:
            shape: (C, H, W).

        Raises:
            ValueError: names both shapes.
        """
        if {"image_size", "image_channels"} <= self.hparams.keys() and tuple(shape) != self.image_shape:
            found, own = ("x".join(map(str, sides)) for sides in (shape, self.image_shape))
            raise ValueError(f"the data's images are {found}, the model's {own}: set image_size and channels alike")

    def rank_state_dict(self) -> dict[str, Any]:
        """State that differs between ranks, as tensors and plain types (replay pools and the like)."""
        return {}

    def load_rank_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `rank_state_dict` gave."""

    def adam(self, parameters: Iterable[nn.Parameter], learning_rate: float, **options: Any) -> torch.optim.Adam:
        """Adam in its fused form, which takes a third of the time of the default one on small networks.

        Args:
            parameters: what to optimize.
            learning_rate: step size.
            options: further arguments of `torch.optim.Adam`.
        """
        # A fused step unscales fp16 gradients by itself, after the hook in which we clip: not with a gradient scaler.
        # Lightning refuses to clip for it in any mixed precision.
        clips = getattr(self, "gradient_clip", None) is not None and self.has_grad_scaler
        if self._trainer is not None and self.trainer.gradient_clip_val:
            clips = clips or isinstance(self.trainer.precision_plugin, MixedPrecision)
        return torch.optim.Adam(parameters, lr=learning_rate, fused=not clips, **options)

    def momentum_descent(self, parameters: Iterable[nn.Parameter], learning_rate: float, momentum: float) -> SGD:
        """Gradient descent with momentum in its fused form, which waits for no GPU.

        Args:
            parameters: what to optimize.
            learning_rate: step size.
            momentum: share of the last step.
        """
        optimizer = SGD(parameters, learning_rate, momentum, fused=True)
        if self.has_grad_scaler:
            # Where the scaler skips the first step, torch's fused form leaves a momentum without a value, and goes on.
            for p in (p for group in optimizer.param_groups for p in group["params"]):
                optimizer.state[p]["momentum_buffer"] = torch.zeros_like(p)
        return optimizer

    @property
    def has_grad_scaler(self) -> bool:
        """Whether the loss is scaled, as in fp16-mixed."""
        return self._trainer is not None and getattr(self.trainer.precision_plugin, "scaler", None) is not None
