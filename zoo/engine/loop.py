"""How a batch becomes a step: counting, random state, checkpoints, resume.

Stock Lightning counts optimizer steps, so with two optimizers `max_steps=10` ends after 5 batches; it writes
checkpoints through the system's temporary folder, so a kill can leave a truncated one; a resumed run draws other random
numbers and logs other values; and a signal loses what was not saved. `ExactTraining` mends these. Models install the
callback themselves, in `configure_callbacks`, so a plain `Trainer` is enough. tests/training/test_canary.py checks the
private names of Lightning that are used here.
"""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from typing import Any, Protocol, cast

import torch
import torch.distributed as dist
from lightning.fabric.utilities.apply_func import move_data_to_device
from lightning.fabric.utilities.distributed import _distributed_is_initialized
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loops.optimization.manual import _ManualOptimization
from lightning.pytorch.plugins import DoublePrecision
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from zoo.engine import rng
from zoo.engine.background import WRITER
from zoo.engine.boundary import install_boundaries, note_position, resume_at_boundary
from zoo.engine.capture import CapturedStep, refusal
from zoo.engine.checkpoint import AtomicCheckpointIO
from zoo.engine.devices import generators, name_of, tf32_products
from zoo.engine.finite import FiniteWatch
from zoo.engine.keyed_kernels import kernels
from zoo.engine.lean_loop import logs_now
from zoo.engine.lean_step import LeanStep, know_arguments
from zoo.engine.optimizer_options import Options, apply_changed_options, optimizer_options
from zoo.engine.overhead import skip_idle_checks
from zoo.engine.restarts import advice
from zoo.engine.stopping import StopSignals, rank_timeout, shield_loaders

__all__ = ["ExactTraining", "OneStepPerBatch", "hardware"]


class Trainable(Protocol):
    """What the callback needs of a model in training."""

    seed: int
    batch_index: int
    automatic_optimization: bool
    device: torch.device
    capture: bool
    captured: CapturedStep | None
    finite: FiniteWatch
    start: dict[str, Any] | None

    def check_images(self, shape: torch.Size) -> None:
        """Refuse training images of a shape (C, H, W) that the model is not made for."""
        ...

    def raise_if_not_finite(self, *, parameters: bool = False) -> None:
        """Raise if a loss, or a parameter, is not finite."""
        ...

    def rank_state_dict(self) -> dict[str, Any]:
        """State that differs between ranks."""
        ...

    def load_rank_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `rank_state_dict` gave."""
        ...


class OneStepPerBatch(_ManualOptimization):
    """Manual optimization in which `global_step` counts the batches in which at least one optimizer stepped."""

    _stepped = False

    def on_run_start(self) -> None:
        """Forget the previous batch."""
        self._stepped = False
        super().on_run_start()

    def _on_before_step(self) -> None:
        self.trainer.profiler.start("optimizer_step")  # type: ignore[attr-defined]

    def _on_after_step(self) -> None:
        self.trainer.profiler.stop("optimizer_step")  # type: ignore[attr-defined]
        self._stepped = True

    def on_run_end(self) -> Any:
        """Count the batch once, however many optimizers stepped."""
        if self._stepped:
            self.optim_step_progress.increment_ready()
            self.optim_step_progress.increment_completed()
        return super().on_run_end()


class ExactTraining(Callback):
    """Step counting, keyed random state, atomic checkpoints and rank-local state of a `GenerativeModel`."""

    def __init__(self) -> None:
        super().__init__()
        self._seconds = 0.0  # of wall time before this process
        self._started = time.monotonic()
        self._accepted: torch.Size | None = None  # shape of the images seen so far
        self._products = ExitStack()  # how products are computed on CUDA, while a fit runs
        self._rank_state: dict[str, Any] | None = None  # of a checkpoint, until the device is known
        self._options: Options = []  # that the optimizers were built with
        self._earlier_options: Options | None = None  # of a checkpoint, until its optimizer states are loaded

    @property
    def seconds(self) -> float:
        """Wall time of the run's training so far."""
        return self._seconds + time.monotonic() - self._started

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Install the batch-counting loop, its boundaries, the handling of signals and the atomic writer."""
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            trainer.strategy.checkpoint_io = AtomicCheckpointIO()
        model = cast(Trainable, pl_module)
        self._earlier_options = None
        if stage == "fit":
            self._seconds, self._accepted = 0.0, None  # of an earlier fit
            if isinstance(trainer.precision_plugin, DoublePrecision):
                # Lightning does so after it has loaded a checkpoint, whose weights would be rounded to float32.
                trainer.precision_plugin.convert_module(pl_module)
            model.seed = trainer.strategy.broadcast(rng.run_seed())
            loop = trainer.fit_loop.epoch_loop
            if model.automatic_optimization:
                if not isinstance(loop.automatic_optimization, LeanStep):
                    loop.automatic_optimization = LeanStep(trainer)
            elif not isinstance(loop.manual_optimization, OneStepPerBatch):
                loop.manual_optimization = OneStepPerBatch(trainer)
            install_boundaries(trainer)
            shield_loaders(trainer)
            connector = cast(Any, trainer)
            if not isinstance(connector._signal_connector, StopSignals):
                connector._signal_connector = StopSignals(trainer)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the optimizers before a checkpoint's states are loaded."""
        self._options = optimizer_options(trainer.optimizers)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock; give the model back its rank's own state, on its device."""
        self._started = time.monotonic()
        if self._earlier_options is not None:
            schedulers = [config.scheduler for config in trainer.lr_scheduler_configs]
            before, self._earlier_options = self._earlier_options, None
            if changes := apply_changed_options(trainer.optimizers, schedulers, before, self._options):
                rank_zero_info(f"Going on with {', '.join(changes)}: not the run that it would be without the change")
        if self._rank_state is not None:
            cast(Trainable, pl_module).load_rank_state_dict(move_data_to_device(self._rank_state, pl_module.device))
            self._rank_state = None
        skip_idle_checks(trainer, pl_module)
        if pl_module.device.type == "cuda":
            kernels()  # compiled now, not in the first step
        if isinstance(step := trainer.fit_loop.epoch_loop.automatic_optimization, LeanStep):
            step.look()
        know_arguments(trainer)
        _start_capture(trainer, cast(Trainable, pl_module))
        self._products.close()
        self._products.enter_context(tf32_products(pl_module.device))

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Key torch's own generators (dropout and the like) by seed, batch and rank: resumed runs draw the same."""
        model = cast(Trainable, pl_module)
        image = batch.get("image", batch.get("image_a")) if isinstance(batch, dict) else None
        if image is not None and image.shape[1:] != self._accepted:
            model.check_images(image.shape[1:])
            self._accepted = image.shape[1:]
        if logs_now(trainer):
            _forget_values(trainer)
        # Batches done before this one; one that an interruption cut short is done again and counts once.
        model.batch_index = trainer.fit_loop.epoch_loop.batch_progress.total.processed  # type: ignore[attr-defined]
        seed = rng.key(model.seed, "torch", model.batch_index, trainer.global_rank)
        for generator in generators(model.device):
            generator.manual_seed(seed)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Read the deferred check of the losses at logging steps, when values are fetched from the device anyway."""
        if logs_now(trainer):
            cast(Trainable, pl_module).raise_if_not_finite()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the losses since the last logging step."""
        self._products.close()
        cast(Trainable, pl_module).raise_if_not_finite()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let go of captured steps and their memory."""
        cast(Trainable, pl_module).captured = None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave torch's settings as they were, finish files; say what it means that a rank waited in vain."""
        self._products.close()
        WRITER.settle()
        cast(Trainable, pl_module).captured = None
        if note := advice(exception):
            exception.add_note(note)
        elif trainer.world_size > 1 and "by peer" in str(exception):
            exception.add_note("another process of the run has ended: its own message says why, unless it was killed")
        elif trainer.world_size > 1 and "timed out" in str(exception).lower():
            exception.add_note(
                f"another process of the run did not answer within {rank_timeout().total_seconds():g} s: it stands "
                "still, or what it does takes longer (ZOO_RANK_TIMEOUT=<seconds> sets how long the others wait)"
            )

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the seed and every rank's own state; refuse to overwrite a good checkpoint with a broken model."""
        model = cast(Trainable, pl_module)
        model.raise_if_not_finite(parameters=True)
        state = move_data_to_device(model.rank_state_dict(), torch.device("cpu"))
        states = [state]
        if _distributed_is_initialized() and dist.get_world_size() > 1:
            gathered: list[Any] | None = [None] * dist.get_world_size() if dist.get_rank() == 0 else None
            dist.gather_object(state, gathered)
            states = gathered or []  # other ranks write nothing
        checkpoint["zoo"] = {
            "class": f"{type(model).__module__}.{type(model).__qualname__}",
            "seed": model.seed,
            "boundary": note_position(trainer, checkpoint),
            "rank_states": states,
            "seconds": self.seconds,
            "hardware": hardware(pl_module, trainer.world_size),
            "optimizer_options": self._options,
            "start": model.start,
        }

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Take up the run's seed, and this rank's own state for the start of training."""
        if (saved := checkpoint.get("zoo")) is None:
            return
        model = cast(Trainable, pl_module)
        model.seed, model.start = saved["seed"], saved.get("start")
        if saved.get("boundary"):
            resume_at_boundary(trainer)
        self._seconds = saved["seconds"]
        self._earlier_options = saved.get("optimizer_options")  # the first checkpoints had none
        states = saved["rank_states"]
        if len(states) != trainer.world_size and any(states):
            fate = "some are dropped" if len(states) > trainer.world_size else "the new ranks take copies"
            rank_zero_warn(
                f"the checkpoint is of {len(states)} ranks, now there are {trainer.world_size}: of what each keeps for "
                f"itself (image pools, waiting batches) {fate}, so the run is not the one without the change"
            )
        self._rank_state = states[trainer.global_rank % len(states)]


def _start_capture(trainer: Trainer, model: Trainable) -> None:
    """Let the steps of a fit run as graphs, if the model asks for it."""
    if not model.capture:
        return
    step = trainer.fit_loop.epoch_loop.automatic_optimization
    is_idle = step._is_plain if isinstance(step, LeanStep) else cast(Any, model)._hooks_are_idle
    if reason := refusal(trainer, cast(LightningModule, model), is_idle):
        raise ValueError(f"{type(model).__name__} cannot capture its steps: {reason}, or leave out capture")
    model.captured = CapturedStep(model.device)
    model.finite.start_capture(model.device)


def _forget_values(trainer: Trainer) -> None:
    """Log what this batch computes only: Lightning repeats the latest value of a term that a batch leaves out.

    Values that are averaged over the epoch stay.
    """
    for value in trainer.fit_loop.epoch_loop._results.values():
        if value.meta.on_step and not value.meta.on_epoch:
            value.reset()


def hardware(model: LightningModule, world_size: int) -> str:
    """What the run computes on, such as "AMD EPYC (AVX2), 1 of 2 cores" or "4 x NVIDIA H100"."""
    name = name_of(model.device)
    if model.device.type == "cpu":
        name += f", {torch.get_num_threads()} of {os.cpu_count()} cores"
    return name if world_size == 1 else f"{world_size} x {name}"
