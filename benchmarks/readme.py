"""Writes benchmarks/README.md from the rows in benchmarks/results: `python -m benchmarks.readme`.

Values under different protocols never share a column: every protocol has a table of its own, and so has every
combination of architecture, image size, batch size and hardware whose speed was measured.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import tables
from benchmarks.bounds import LAUNCH_MICROSECONDS, PEAKS
from benchmarks.environment import RESULTS
from benchmarks.tables import BOUND_BATCH, Row

README = RESULTS.parent / "README.md"

HEAD = """# Benchmarks

Made by `python -m benchmarks.readme` from the rows in `results/`; nothing here is typed by hand.
"""

SPEED = """## Speed

`python -m benchmarks.speed <architecture>`. A training step of the zoo as a Lightning Trainer runs it (loop, hooks and
logging included), beside a plain PyTorch loop of the same maths and options, and beside the textbook loop of the
reference (float32, channels first, default Adam, the discriminator's weight gradients computed in the generator step
too). All in one process, in turn; medians over rounds, and ratios are medians of the ratios within a round, with their
quartiles. Kernels and GPU milliseconds: what a GPU runs in a step; where it is busy for less than the step takes, the
host bounds the speed. *Outside*: share of the zoo's time beyond the passes of its networks, measured the same way;
about 0 comes out on either side of 0. Peak memory is what the loop adds to a fresh process.
"""

LAUNCHES = """## Launches

`python -m benchmarks.launches`. Operations that a training step gives the device, beside the plain loop's: on a GPU
each is a kernel or a few, and small models wait for them. Counted without a GPU, in float32: views and allocations
are left out, and keyed draws count as on a GPU. With `capture` the host launches one graph for all of them.
"""

SAMPLING = """## Exact sampling

`python -m benchmarks.sampling <architecture>`. Models of exact likelihood draw sub-pixel by sub-pixel. The zoo's
samplers keep what they know; the naive sampler runs the whole model for every sub-pixel, and draws the same images. It
is timed over a few sub-pixels and scaled up. Medians over rounds.
"""

EXPORTS = """## Exported files

`python -m benchmarks.exports`. Every checkpoint in every function that it has, exported for any number of images: the
largest difference from the model over batches of 1 and 7, on inputs that the graph was not made with. Differences are
relative where values are above 1. `sample` is the same function as `generate`.
"""

BOUNDS = """## What bounds a step on a GPU

From the counts above. *Launching*: the host starts a kernel for each operation, in {launch:g} microseconds each,
whatever the batch; at least that, for an operation may be several kernels and bf16 adds casts (kernels/step in the rows
of speed). *Ideal*: a batch of {batch} at half of the GPU's peak in bf16 (TFLOP/s at the peak: {peaks}). The longer time
bounds the step. *Busy from*: the batch size from which arithmetic does; below it a step has time to give to larger
batches, `capture` or `compile`.
"""

QUALITY = """## Quality

`python -m benchmarks.quality <checkpoint>`. A value with several seeds is their mean, with their *deviation*. *Standard
error*: over the images that were measured. *Chance*: what knowing nothing gives. *Untrained*: the same model before
training, median over initial weights. *Other real images*: the distance of as many other real images, which a perfect
model would reach. *Parameters*: of the networks in the published file; its card has their widths. Every protocol has a
table of its own: values under different protocols cannot be compared.
"""

FINE_TUNING = """## Fine-tuning

`python -m benchmarks.fine_tuning`. Runs on the same pictures for as many steps, from a checkpoint and from nothing:
means with their deviations over the seeds. Values are of the last weights.
"""

SEEDS = """## Seeds of training

`python -m benchmarks.seeds`. One recipe trained with several seeds, under the paper's own objective and under the
variant's: means with their deviations over the seeds. Objectives and lengths were chosen by the validation images; the
test images were measured once, when a training ended. *Standard error*: of one run, over its validation images.
"""


def read(folder: Path = RESULTS) -> list[Row]:
    """All rows of a folder.

    Raises:
        ValueError: a file is no row; names it.
    """
    rows = []
    for path in sorted(folder.glob("*.json")):
        try:
            row = json.loads(path.read_text())
            row["benchmark"]
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{path} is no row of a benchmark: {error}") from error
        rows.append(row)
    return rows


def page(rows: Sequence[Row]) -> str:
    """The whole page."""
    parts = [HEAD]
    kinds = (
        ("quality", QUALITY, tables.quality),
        ("seeds", SEEDS, tables.seeds),
        ("fine_tuning", FINE_TUNING, tables.fine_tuning),
        ("sampling", SAMPLING, tables.sampling),
        ("speed", SPEED, tables.speed),
        ("launches", LAUNCHES, tables.launches),
        ("exports", EXPORTS, tables.exports),
    )
    for name, text, make in kinds:
        if chosen := [row for row in rows if row["benchmark"] == name]:
            parts += [text, make(chosen)]
        if name == "launches" and any("gflop_per_image" in c for row in chosen for c in row["counts"]):
            peaks = ", ".join(f"{name} {peak / 1e12:.0f}" for name, peak in PEAKS.items())
            parts += [BOUNDS.format(peaks=peaks, launch=LAUNCH_MICROSECONDS, batch=BOUND_BATCH), tables.bounds(chosen)]
    return "\n".join(parts)


def main(arguments: list[str] | None = None) -> None:
    """Write the page, or check that it is up to date."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.readme",
        description="Write benchmarks/README.md from the rows in benchmarks/results.",
        epilog="example: python -m benchmarks.readme --check",
    )
    parser.add_argument("--check", action="store_true", help="write nothing; fail if the page is not up to date")
    args = parser.parse_args(arguments)
    text = page(read())
    if not args.check:
        README.write_text(text)
    elif not README.exists() or README.read_text() != text:
        sys.exit(f"{README} does not follow from the rows: run python -m benchmarks.readme")


if __name__ == "__main__":
    main()
