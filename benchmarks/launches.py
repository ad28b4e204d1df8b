"""How many operations a training step gives the device, beside a plain loop: `python -m benchmarks.launches`.

Small models wait on a GPU for their launches. No GPU is needed to count them: each operation of torch that is no view
and no allocation starts one kernel or a few, the same ones in both loops. Keyed draws count as on a GPU, where one
kernel makes a draw. Counted is a step in float32 on a few images.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks import speed
from benchmarks.environment import RESULTS, environment
from benchmarks.steps import Draws, Settings
from zoo.bench.driving import Program, cycle
from zoo.bench.flops import Operations
from zoo.engine import rng

__all__ = ["MOST", "Launches", "count"]

FORMS: list[tuple[str, Settings]] = [
    ("aae", Settings(28, 4)),
    ("aae", Settings(28, 4, labelled=4)),
    ("cyclegan", Settings(64, 1, options=(("base_channels", 32), ("num_blocks", 6)), unpaired=True)),
    ("dcgan", Settings(64, 4)),
    ("gan", Settings(28, 4)),
    ("infogan", Settings(28, 4)),
    ("infogan", Settings(28, 4, options=(("update", "simultaneous"),))),
    ("pixelrnn", Settings(28, 4)),
    ("pixelrnn", Settings(28, 4, options=(("layer", "row"),))),
    ("progressive_gan", Settings(64, 4, options=(("max_channels", 64),))),
    ("puzzlegan", Settings(64, 4, options=(("base_channels", 32),), patches=3)),
    ("stargan", Settings(64, 4, options=(("base_channels", 32), ("discriminator_layers", 5)))),
    ("text2image", Settings(64, 4, options=(("base_channels", 32),), sentences=256)),
    ("vae", Settings(28, 4)),
    ("wae", Settings(28, 4, options=(("base_channels", 32), ("pretraining_steps", 0)))),
    ("wae_gan", Settings(28, 4, options=(("base_channels", 32), ("pretraining_steps", 0)))),
]
"""What the table shows: every architecture that has a loop to compare with, at its usual depth."""

MOST = 1.15
"""Times the plain loop's operations that a step of the zoo may have."""

ALLOCATIONS = ("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided")
OTHERS = ("_unsafe_view", "lift_fresh", "_local_scalar_dense", "detach")
"""Start no kernel either."""

ON_GPU: dict[str, Callable[..., Tensor]] = {
    "bits": lambda counter, **_: counter + 1,
    "integers": lambda counter, start, high: counter % high,
    "uniform": lambda counter, **_: counter + 1,
    "normal": lambda counter, **_: counter + 1,
}
"""Stand for the kernels of `zoo.engine.keyed_kernels`: one operation each; the numbers do not matter."""


class Launches(TorchDispatchMode):
    """Counts operations that start kernels.

    Attributes:
        number: operations so far.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.number = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.partition("::")[2]
        self.number += not (func.is_view or func.namespace == "profiler" or name in ALLOCATIONS + OTHERS)
        return func(*args, **(kwargs or {}))


def count(architecture: str, settings: Settings) -> dict[str, float]:
    """Operations in a step of the zoo and of the plain loop, means over a cycle of the phases, and FLOPs.

    Args:
        architecture: name of a module of `benchmarks.steps`.
        settings: what is counted, on a CPU.
    """
    module = import_module(f"benchmarks.steps.{architecture}")
    torch.manual_seed(0)
    model = module.model(settings)
    batches = speed.Batches(model.image_shape, settings)
    steps = cycle(model)
    found: dict[str, float] = {}

    def program(model: Any) -> Program:
        draws, stream = Draws(), iter(batches)
        loop = module.plain(model, settings, lambda step: draws)
        yield steps
        for _ in range(steps):
            loop.step(next(stream))
        with (
            patch.object(rng, "_is_gpu", lambda device: True),
            patch.object(rng, "kernels", lambda: ON_GPU),
            Launches() as launches,
        ):
            yield steps
        found["zoo"] = launches.number / steps
        with Launches() as launches:
            for _ in range(steps):
                loop.step(next(stream))
        found["plain"] = launches.number / steps
        with Operations() as operations:
            yield steps
        found["gflop_per_image"] = operations.get_total_flops() / 1e9 / steps / settings.batch_size

    rng._table(torch.device("cpu"))  # made once in a run
    speed.fit(model, batches, settings, program)
    return found


def main(arguments: list[str] | None = None) -> None:
    """Count and write the row."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.launches",
        description="Count the operations of a training step of each architecture.",
    )
    parser.add_argument("--out", type=Path, default=RESULTS / "launches.json", help="file of the row")
    args = parser.parse_args(arguments)
    counts = []
    for architecture, settings in FORMS:
        found = count(architecture, settings)
        counts.append(
            {
                "architecture": architecture,
                "image_size": settings.image_size,
                "options": dict(settings.options) | ({"labelled": settings.labelled} if settings.labelled else {}),
                **found,
            }
        )
        words = f"{found['zoo']:.0f} and {found['plain']:.0f}, {found['gflop_per_image']:.3g} GFLOP an image"
        print(f"{architecture}, {settings.image_size} pixels: {words}", flush=True)
    speed.write({"benchmark": "launches", "counts": counts, **environment(torch.device("cpu"))}, args.out)


if __name__ == "__main__":
    main()
