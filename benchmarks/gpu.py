"""The rows of a GPU in one command and one process: `python -m benchmarks.gpu`.

Each row is one of `benchmarks.speed --device cuda`, without peak memory, in turns short enough that all rows take a few
minutes. A row that fails is reported, and the others go on.
"""

from __future__ import annotations

import argparse
import logging
import sys
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Literal

import torch

from benchmarks import speed
from benchmarks.environment import RESULTS
from benchmarks.steps import Settings

Row = tuple[str, Settings, int]
"""Architecture, settings, steps in a turn."""

PRECISIONS: tuple[Literal["bf16", "32"], ...] = ("bf16", "32")

EAGER: list[Row] = [
    ("dcgan", Settings(64, 128), 50),
    ("dcgan", Settings(64, 2048), 20),
    ("gan", Settings(28, 100, channels_last=False), 50),
    ("aae", Settings(28, 100, channels_last=False), 50),
    ("vae", Settings(28, 100, channels_last=False), 50),
    ("stargan", Settings(128, 16, channels_last=False), 20),
    ("cyclegan", Settings(256, 1, channels_last=False, unpaired=True), 10),
    ("progressive_gan", Settings(64, 16), 20),
    ("pixelrnn", Settings(28, 16, channels_last=False), 4),
]


def rows() -> list[Row]:
    """All rows: bf16, float32, then what can be compiled, and small models whose steps are captured."""
    both: list[Row] = [
        (name, replace(settings, device="cuda", precision=precision), steps)
        for precision in PRECISIONS
        for name, settings, steps in EAGER
    ]
    compiled: list[Row] = [
        (name, replace(settings, compile=True), steps) for name, settings, steps in both if name == "dcgan"
    ]
    captured: list[Row] = [
        (name, replace(settings, options=(("capture", True),)), steps)
        for name, settings, steps in both
        if name in ("gan", "aae", "vae") or (name == "dcgan" and settings.batch_size == 128)
    ]
    return both + compiled + captured


def main(arguments: list[str] | None = None) -> None:
    """Measure and write the rows that fit into the time."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description="Write the speed rows of a GPU.",
        epilog="example: python -m benchmarks.gpu --seconds 150 --only dcgan",
    )
    parser.add_argument("--seconds", type=float, default=150, help="no row starts later than this")
    parser.add_argument("--rounds", type=int, default=3, help="times that every loop has its turn")
    parser.add_argument("--only", nargs="+", metavar="ARCHITECTURE", help="these architectures alone")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the rows")
    args = parser.parse_args(arguments)
    chosen = [row for row in rows() if not args.only or row[0] in args.only]
    if any(settings.device == "cuda" for _, settings, _ in chosen) and not torch.cuda.is_available():
        parser.error("this torch sees no CUDA device")
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    start, failed = monotonic(), 0
    for name, settings, steps in chosen:
        path = args.out / speed.file_name(name, settings)
        if monotonic() - start > args.seconds:
            print(f"no time left for {path.name}", flush=True)
            continue
        begun = monotonic()
        try:
            row = speed.row_of(name, settings, args.rounds, steps)
        except Exception as error:  # the other rows are worth having
            failed += 1
            print(f"{path.name}: {type(error).__name__}: {str(error).splitlines()[:1]}", flush=True)
            continue
        speed.write(row, path)
        print(f"\n{path.name} ({monotonic() - begun:.0f} s)\n{speed.table(row)}", flush=True)
    if failed:
        sys.exit(f"{failed} rows failed")


if __name__ == "__main__":
    main()
