"""Runs that are killed again and again, anywhere, and end as if nothing had happened.

    python -m tests.cli.kills [--kills 20] [--ranks 1 2] [MODEL ...]

Each process of a chain is killed with SIGKILL at a drawn event: before or after an optimizer's step, a logged row, a
picture, the renaming of a file, the end of a batch, of an epoch, of training, or when a checkpoint is half written. The
last three kills of a chain lie in the last batch, in the pictures at the end of training and in the last checkpoint.
Then weights, optimizers, pictures, animation and metrics.csv must be those of a run that nobody killed, byte for byte.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as mp
from lightning.pytorch import Callback
from lightning.pytorch.loops import _EvaluationLoop
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from tests.cli.parts import Noise, Watched, checkpoint, command, die, same
from tests.ranks import on_ranks
from zoo import DCGAN
from zoo.callbacks import SampleGrid, TranslationSheet
from zoo.cli.reporting import MetricsFile, RunCheckpoint
from zoo.datamodules.base import Batch, ImageSet
from zoo.engine import background, files
from zoo.engine.boundary import BoundaryEpochLoop, BoundaryFitLoop
from zoo.engine.loop import ExactTraining

STEPS = 40
RUN = [
    "fit",
    "--trainer.accelerator=cpu",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--trainer.log_every_n_steps=2",
    f"--trainer.max_steps={STEPS}",
    "--checkpoint_every=2",
]
OFTEN = "--trainer.callbacks.every_n_steps=3"
SAMPLES = ["--trainer.callbacks+=SampleGrid", OFTEN, "--trainer.callbacks.num_samples=4"]
SHEET = ["--trainer.callbacks+=TranslationSheet", OFTEN]
NOISE = ["--data=tests.cli.parts.Noise"]
MODELS = {
    "dcgan-ema": ["--model=tests.cli.kills.Averaged", *NOISE, *SAMPLES],
    "vae": [
        *("--model=VAE", "--model.image_size=8", "--model.image_channels=3", "--model.hidden_features=[8]"),
        *(*NOISE, *SAMPLES),
    ],
    "stargan": [
        *("--model=StarGAN", "--model.image_size=8", "--model.base_channels=4", "--model.num_blocks=1"),
        *("--model.discriminator_layers=2", "--model.n_critic=2", "--model.attributes=[big, red]"),
        *("--data=tests.cli.kills.Attributed", *SHEET),
    ],
    "cyclegan": [
        *("--model=CycleGAN", "--model.image_size=8", "--model.base_channels=2", "--model.num_blocks=1"),
        *("--model.discriminator_layers=1", "--model.pool_size=9", "--data=tests.cli.kills.Twins", *SHEET),
    ],
    "progressive-gan": ["--model=tests.cli.test_resume_growing.Growing", *NOISE, "--data.batch_size=4", *SAMPLES],
    "nade": [
        *("--model=NADE", "--model.image_size=8", "--model.image_channels=3", "--model.hidden_features=6"),
        *(*NOISE, *SAMPLES),
    ],
}


class Averaged(Watched):
    """A tiny DCGAN with an average, whose generator steps in every third batch."""

    def __init__(self) -> None:
        DCGAN.__init__(self, 8, 3, 4, 4, ema_decay=0.9, step_every={"generator": 3})


class Attributed(Noise):
    """Random images with two attributes."""

    def open(self) -> dict[str, ImageSet]:
        self.class_names = {"attributes": ["big", "red"]}
        splits = super().open()
        for images in splits.values():
            number = torch.arange(len(images))
            images.fields = {"attributes": torch.stack([number % 2, number // 2 % 2], 1).float()}
        return splits


class Both(ImageSet):
    """Images, and their negatives as another domain."""

    def batch(self, *args: Any, **options: Any) -> Batch:
        image = super().batch(*args, **options)["image"]
        return {"image_a": image, "image_b": -image}


class Twins(Noise):
    """Random images of two domains."""

    def open(self) -> dict[str, ImageSet]:
        return {name: Both(images.arrays) for name, images in super().open().items()}


# Dying ----------------------------------------------------------------------------------------------------------------

EVENTS: list[tuple[Any, str]] = [
    (ExactTraining, "on_train_batch_end"),
    (MetricsFile, "log_metrics"),
    (_EvaluationLoop, "run"),
    (RunCheckpoint, "_save"),
    (background.Background, "_run"),
    (RunCheckpoint, "on_train_end"),
    (BoundaryEpochLoop, "on_advance_end"),
    (BoundaryFitLoop, "on_advance_end"),
    (BoundaryFitLoop, "on_run_end"),
    (files, "_keep"),
]


def before_and_after(owner: Any, name: str, event: Callable[..., None]) -> None:
    """Call `event` before and after a function."""
    inner = getattr(owner, name)

    def wrapped(*args: Any, **options: Any) -> Any:
        event(owner, name, args)
        result = inner(*args, **options)
        event(owner, name, args)
        return result

    setattr(owner, name, wrapped)


def die_at(count: int, mark: Path) -> None:
    """Die at an event, counted from now."""
    left = [count]

    def event(owner: Any, name: str, args: Any) -> None:
        left[0] -= 1
        if left[0] <= 0:  # of two threads that count
            mark.write_text(f"{getattr(owner, '__name__', owner)}.{name}")
            die()

    for owner, name in EVENTS:
        before_and_after(owner, name, event)
    for register in (register_optimizer_step_pre_hook, register_optimizer_step_post_hook):
        register(lambda optimizer, args, options: event(type(optimizer), "step", args))
    save = torch.save

    def half(saved: Any, file: Any, **options: Any) -> None:
        left[0] -= 1
        if left[0] <= 0:  # of two threads that count
            file.write(b"PK\x03\x04 half a checkpoint")
            file.flush()
            mark.write_text("torch.save")
            die()
        save(saved, file, **options)

    torch.save = half  # type: ignore[assignment]


def die_in(place: str, mark: Path) -> None:
    """Die in the last batch, in the pictures at the end of training, or in the last checkpoint."""

    def at_once(owner: Any, name: str, args: Any) -> None:
        mark.write_text(place)
        die()

    if place == "last batch":
        is_last: list[bool] = [False]
        before_and_after(
            ExactTraining,
            "on_train_batch_start",
            lambda owner, name, args: is_last.append(args[1].global_step == STEPS - 1),
        )
        register_optimizer_step_post_hook(
            lambda optimizer, args, options: at_once(None, "", ()) if is_last[-1] else None
        )
    elif place == "pictures":
        for callback in (SampleGrid, TranslationSheet):
            inner = callback.on_train_end

            def drawn(self: Callback, *args: Any, inner: Any = inner) -> None:
                inner(self, *args)
                at_once(None, "", args)

            callback.on_train_end = drawn  # type: ignore[method-assign]
    else:
        before_and_after(RunCheckpoint, "_save", lambda owner, name, args: args[0].finished and at_once(None, "", ()))


def killed(place: str, args: list[str], seed: int, rank: int, where: str) -> int:
    """The command in a process that dies if it is the rank in question; others leave with it."""
    torch.set_num_threads(1)
    os.chdir(place)
    if int(os.environ["RANK"]) == rank:
        mark = Path(place, "mark")
        die_in(where, mark) if where else die_at(random.Random(seed).randrange(4, 40), mark)
    code = command(*args)
    if code:  # another rank is dead: its launcher need not wait
        os._exit(code)
    return code


# The proof ------------------------------------------------------------------------------------------------------------


def contents(run: Path) -> dict[str, bytes]:
    """Pictures, animation and log of a run."""
    paths = [*(run / "samples").iterdir(), run / "metrics.csv"]
    return {path.name: path.read_bytes() for path in sorted(paths)}


def prove(model: str, ranks: int, kills: int, place: Path, log: Callable[[str], object]) -> list[str]:
    """Kill a run so many times, and compare its end with that of a run that nobody killed.

    Args:
        model: a name in `MODELS`.
        ranks: number of processes.
        kills: number of kills, at least 3.
        place: an empty folder.
        log: told of each kill.

    Returns:
        Where the processes died.
    """
    args = [*RUN, *MODELS[model], *([f"--trainer.devices={ranks}"] if ranks > 1 else [])]
    if ranks > 1 and model != "progressive-gan":
        args.append("--data.batch_size=4")
    assert on_ranks(ranks, killed, str(place), [*args, "--name=straight"], 0, -1, "") == [0] * ranks
    straight, run, mark = place / "runs/straight", place / "runs/run", place / "mark"
    draw = random.Random(zlib.crc32(f"{model}-{ranks}".encode()))
    deaths: list[str] = []
    placed = ["last batch", "pictures", "last checkpoint"]
    attempts = 0
    while len(deaths) < kills:
        attempts += 1
        assert attempts < 3 * kills, "the chain makes no progress"
        where = placed[len(deaths) - kills] if len(deaths) >= kills - 3 else ""
        rank = 0 if where in ("pictures", "last checkpoint") else draw.randrange(ranks)
        mark.unlink(missing_ok=True)
        try:
            on_ranks(ranks, killed, str(place), [*args, "--name=run"], draw.randrange(2**31), rank, where)
        except mp.ProcessExitedException:
            assert mark.exists(), "a process failed by itself"
        else:  # it came to its end before all kills were done: another chain takes the rest
            assert not where, f"nothing died in {where}"
            compare(run, straight)
            shutil.rmtree(run)
            continue
        deaths.append(f"{mark.read_text()} on rank {rank}")
        log(deaths[-1])
    assert on_ranks(ranks, killed, str(place), [*args, "--name=run"], 0, -1, "") == [0] * ranks
    compare(run, straight)
    return deaths


def compare(run: Path, straight: Path) -> None:
    """Both runs have come to the same end."""
    ours, theirs = checkpoint(run), checkpoint(straight)
    for saved in (ours, theirs):
        assert saved["global_step"] == STEPS
        assert saved["finished"]
        saved["zoo"].pop("seconds")
        saved["callbacks"]["RunSummary"].pop("seconds")
    same(ours, theirs)
    left, right = contents(run), contents(straight)
    assert left.keys() == right.keys()
    for name, content in right.items():
        assert left[name] == content, name
    assert not list(run.rglob("*.tmp"))


def main() -> None:
    """Prove it for the models and numbers of ranks that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL", help=", ".join(MODELS))
    parser.add_argument("--kills", type=int, default=20, help="kills of each chain (20)")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2], help="numbers of processes (1 2)")
    options = parser.parse_args()
    for model in options.models or MODELS:
        for ranks in options.ranks:
            start = time.monotonic()
            with tempfile.TemporaryDirectory() as place:
                deaths = prove(model, ranks, options.kills, Path(place), lambda _: None)
            took = time.monotonic() - start
            print(f"{model} on {ranks}: {len(deaths)} kills, identical ({took:.0f} s): {', '.join(deaths)}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
