"""What bounds a training step on a GPU, launches or arithmetic: `python -m benchmarks.bounds`, which needs no GPU.

A step is run on the CPU in bf16-mixed under the settings of a row of `benchmarks.speed`. Its operations are counted as
kernels: each that computes or copies as one, a convolution's backward pass as one for each gradient, a keyed draw as
the one that it is on a GPU. A GPU takes more where one operation is several kernels; rows of a GPU have its own count.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import replace
from functools import wraps
from importlib import import_module
from typing import Any
from unittest.mock import patch

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks import speed
from benchmarks.environment import RESULTS, environment
from benchmarks.steps import Settings
from zoo.engine import rng

__all__ = ["LAUNCH_MICROSECONDS", "PEAKS", "Launches", "bound"]

PEAKS = {"H200": 790e12, "A100": 312e12}
"""Dense bf16 products in FLOPs a second. H200: four fifths of the 989e12 in NVIDIA's data sheet (2024); A100: all of the
312e12 in NVIDIA's data sheet (2021)."""

LAUNCH_MICROSECONDS = 4.0
"""Time in which the host starts a kernel."""

STEPS = 5  # a cycle of every architecture
DRAWS = ("uniform", "normal", "integers", "ranks", "keep_mask")
FREE = ("detach", "alias", "empty", "new_empty", "empty_like", "_local_scalar_dense", "lift_fresh", "_unsafe_view")


class Launches(TorchDispatchMode):
    """Counts the operations that are kernels on a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self._is_drawing = False

    def __enter__(self) -> Launches:
        self._patches = ExitStack()
        for name in DRAWS:
            self._patches.enter_context(patch.object(rng, name, self._drawn(getattr(rng, name))))
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._patches.close()

    def _drawn(self, draw: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(draw)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self._is_drawing = True
            self.count += 1
            try:
                return draw(*args, **kwargs)
            finally:
                self._is_drawing = False

        return wrapped

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if not (self._is_drawing or func.is_view or name in FREE):
            made = sum(value is not None for value in result) if name == "convolution_backward" else 1
            self.count += made
        return result


def bound(gflop: float, kernels: float, peak: float) -> tuple[float, float, str]:
    """Milliseconds of launches, and of arithmetic at half the peak, and which of the two bounds a step.

    Args:
        gflop: of a step, in 1e9.
        kernels: of a step.
        peak: FLOPs a second.
    """
    launches, arithmetic = kernels * LAUNCH_MICROSECONDS / 1e3, gflop * 1e9 / (peak / 2) * 1e3
    return launches, arithmetic, "launches" if launches > arithmetic else "arithmetic"


def count(architecture: str, settings: Settings) -> dict[str, Any]:
    """The row of an architecture.

    Args:
        architecture: name of a module of `benchmarks.steps`.
        settings: of a row of `benchmarks.speed`.
    """
    module = import_module(f"benchmarks.steps.{architecture}")
    settings = replace(settings, precision="bf16")
    torch.manual_seed(0)
    model = module.model(settings)
    launches, operations = Launches(), speed.Operations()

    def program(_: Any) -> speed.Program:
        yield STEPS  # optimizers make their states
        with launches:
            yield STEPS
        with operations:
            yield STEPS

    speed.fit(model, speed.Batches(model.image_shape, settings), settings, program)
    names = ("image_size", "batch_size", "channels_last", "labelled", "patches", "sentences")
    return {
        "benchmark": "bounds",
        "architecture": architecture,
        "settings": {name: getattr(settings, name) for name in names} | {"options": dict(settings.options)},
        "gflop_per_step": operations.get_total_flops() / STEPS / 1e9,
        "kernels_per_step": math.ceil(launches.count / STEPS),
        **environment(torch.device("cpu")),
    }


def settings_of(rows: Iterable[dict[str, Any]]) -> dict[str, Settings]:
    """Settings for each architecture: those of its first row on a CPU.

    Args:
        rows: rows of `benchmarks.speed`.
    """
    found = {"wae_gan": Settings(28, 100, channels_last=False, options=(("base_channels", 32),))}
    for row in rows:
        given = dict(row["settings"])
        if given["device"] == "cpu" and row["architecture"] not in found:
            options = tuple((k, tuple(v) if isinstance(v, list) else v) for k, v in given.pop("options", {}).items())
            known = {name: value for name, value in given.items() if name in Settings.__dataclass_fields__}
            found[row["architecture"]] = Settings(**known, options=options)
    return found


def main(arguments: list[str] | None = None) -> None:
    """Count, and write a row for each architecture."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bounds",
        description="What bounds a training step on a GPU: launches or arithmetic.",
        epilog="example: python -m benchmarks.bounds vae dcgan",
    )
    parser.add_argument("architectures", nargs="*", help="which ones (all)")
    chosen = parser.parse_args(arguments).architectures or speed.architectures()
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    given = settings_of(json.loads(path.read_text()) for path in sorted(RESULTS.glob("speed-*.json")))
    for architecture in chosen:
        row = count(architecture, given[architecture])
        speed.write(row, RESULTS / f"bounds-{architecture}.json")
        gflop, kernels = row["gflop_per_step"], row["kernels_per_step"]
        print(f"{architecture}: {gflop:.2f} GFLOP and {kernels} kernels a step", flush=True)


if __name__ == "__main__":
    main()
