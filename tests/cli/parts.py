"""What the tests of the command line share: a tiny model, tiny data, and ways to run and to kill a command."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo import DCGAN
from zoo.cli.main import main
from zoo.datamodules.base import ImageDataModule, ImageSet

SIZE = 8
TINY = [
    "--model=tests.cli.parts.Watched",
    "--data=tests.cli.parts.Noise",
    "--trainer.accelerator=cpu",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--trainer.log_every_n_steps=2",
]
"""A run of a second, as settings."""


class Noise(ImageDataModule):
    """Random images, 40 to train on: 5 batches of 8 in an epoch."""

    def __init__(self, image_size: int = SIZE, batch_size: int = 8, num_workers: int = 0, seed: int | None = None):
        super().__init__(image_size=image_size, batch_size=batch_size, num_workers=num_workers, seed=seed)

    def open(self) -> dict[str, ImageSet]:
        random = np.random.default_rng(0)
        return {
            split: ImageSet([random.integers(0, 256, (count, 3, self.image_size, self.image_size), np.uint8)])
            for split, count in (("train", 40), ("val", 12), ("test", 10))
        }


class Watched(DCGAN):
    """A tiny DCGAN that looks at validation data too."""

    def __init__(self, image_size: int = SIZE, base_channels: int = 4, learning_rate: float = 2e-4):
        super().__init__(image_size, 3, 4, base_channels, learning_rate=learning_rate)

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        torch.rand(3)  # as a careless metric would
        self.log("val/logit", self.discriminator(batch["image"]).mean())


def command(*args: Any) -> int:
    """Exit code of the command in this process."""
    try:
        result = main([str(arg) for arg in args])
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return result or 0


def die() -> None:
    """As kill -9 does."""
    os.kill(os.getpid(), signal.SIGKILL)


def die_in_training(step: int) -> None:
    """Before the training batch after so many."""
    inner = Watched.training_step

    def training_step(self: Watched, batch: Any, batch_idx: int) -> None:
        if self.trainer.global_step == step:
            die()
        inner(self, batch, batch_idx)

    Watched.training_step = training_step  # type: ignore[method-assign]


def die_in_validation(step: int) -> None:
    """In the validation after so many steps."""
    inner = Watched.validation_step

    def validation_step(self: Watched, batch: Any, batch_idx: int) -> None:
        if self.trainer.global_step == step and batch_idx == 1:
            die()
        inner(self, batch, batch_idx)

    Watched.validation_step = validation_step  # type: ignore[method-assign]


def die_in_writing(step: int) -> None:
    """When the checkpoint after so many steps is half written."""
    inner = torch.save

    def save(checkpoint: dict[str, Any], file: Any, **options: Any) -> None:
        if checkpoint["global_step"] == step:
            file.write(b"PK\x03\x04 half a checkpoint")
            file.flush()
            die()
        inner(checkpoint, file, **options)

    torch.save = save  # type: ignore[assignment]


def run(place: str, where: str, step: int, args: list[str]) -> int:
    """The command in a process of its own (pass this function to `on_ranks` or `spawn`).

    Args:
        place: the current folder.
        where: "training", "validation", "writing", or "" to live on.
        step: when to die there.
        args: arguments of the command.
    """
    torch.set_num_threads(1)
    os.chdir(place)
    if where:
        globals()[f"die_in_{where}"](step)
    return command(*args)


def checkpoint(path: Path) -> dict[str, Any]:
    """The checkpoint of a run folder."""
    return dict(torch.load(path / "checkpoints" / "last.ckpt", map_location="cpu", weights_only=True))


def same(a: Any, b: Any, key: str = "") -> None:
    """Assert that two nested values are equal, bit for bit."""
    if isinstance(a, Tensor):
        assert torch.equal(a, b), key
    elif isinstance(a, dict):
        assert list(a) == list(b), key
        for name in a:
            same(a[name], b[name], f"{key}.{name}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), key
        for i, pair in enumerate(zip(a, b, strict=True)):
            same(*pair, f"{key}.{i}")
    else:
        assert a == b, key


def the_line(err: str) -> str:
    """The message of a failed command, after a check that it is one line."""
    lines = [line for line in err.splitlines() if line.startswith("zoo: error: ")]
    assert len(lines) == 1, err
    assert "Traceback" not in err
    assert not re.search(r"^usage:", err, re.M), err
    return lines[0].removeprefix("zoo: error: ")
