"""A measurement inside a fit, in the Trainer that users wait for."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger

from zoo.engine.quiet import silenced
from zoo.engine.stopping import Stopped

__all__ = ["Driver", "Endless", "Program", "cycle", "fit", "skip_pretraining"]

Program = Generator[int, None, None]
"""A measurement: where it yields k, the Trainer runs k steps."""


class Driver(Callback):
    """Runs a measurement inside a fit: the program goes on whenever the steps that it asked for are done.

    So the time that passes at a `yield` is all that a user of the Trainer waits for: fetching batches, hooks, logging.

    Args:
        program: makes the program of the model.
    """

    def __init__(self, program: Callable[[Any], Program]) -> None:
        self.program = program

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the program."""
        self.running = self.program(pl_module)
        self.left = next(self.running)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Hand over when the steps are done; stop when the program is."""
        self.left -= 1
        if self.left == 0:
            self.left = next(self.running, 0)
            trainer.should_stop = self.left == 0


class _FromHere(Callback):
    """A fit starts with the buffers that the model had before: networks that grow stay at their stage."""

    def __init__(self, model: LightningModule) -> None:
        self.buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Where a checkpoint would have been read."""
        now = dict(pl_module.named_buffers())
        for name in self.buffers.keys() & now.keys():
            now[name].copy_(self.buffers[name])


class Endless:
    """The same batches again and again.

    Args:
        batches: the batches.
    """

    def __init__(self, batches: Sequence[Any]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[Any]:
        while True:
            for batch in self.batches:
                yield dict(batch) if isinstance(batch, dict) else batch


def fit(
    model: LightningModule,
    batches: Iterable[Any],
    program: Callable[[Any], Program],
    device: torch.device,
    precision: str = "32-true",
) -> None:
    """Train a model silently, in a Trainer with a logger, as a program says. Nothing is kept.

    Args:
        model: the model; its training starts at the stage at which it is.
        batches: enough batches for the program.
        program: makes the program of the model.
        device: where to train.
        precision: as in Lightning.
    """
    kind = {"cuda": "gpu"}.get(device.type, device.type)
    with tempfile.TemporaryDirectory() as folder, silenced("lightning.pytorch", "lightning.fabric"):
        trainer = Trainer(
            accelerator=kind,
            devices=[device.index or 0] if kind == "gpu" else 1,
            precision=cast(Any, precision),
            benchmark=device.type == "cuda",  # as `zoo fit` has it
            max_steps=10**9,  # rates that follow the run stay at its start
            logger=CSVLogger(folder),
            default_root_dir=folder,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[_FromHere(model), Driver(program)],
        )
        try:
            trainer.fit(model, batches)
        except SystemExit as end:
            if trainer.interrupted and not isinstance(end, Stopped):  # Lightning's answer to Ctrl-C
                raise KeyboardInterrupt from end
            raise


def cycle(model: Any) -> int:
    """Number of batches after which a training repeats itself: every phase has stepped, every penalty was there.

    Args:
        model: the model.
    """
    every = [*getattr(model, "step_every", {}).values(), getattr(model, "penalty_every", 1)]
    return math.lcm(*every) * int(getattr(model, "accumulate", 1))


def skip_pretraining(model: Any) -> None:
    """Let a training begin with its own objective.

    Args:
        model: the model.
    """
    if "pretraining_steps" in model.hparams:
        model.hparams["pretraining_steps"] = 0
