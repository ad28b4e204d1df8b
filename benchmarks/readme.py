"""Writes benchmarks/README.md from the rows in benchmarks/results: `python -m benchmarks.readme`.

Values under different protocols never share a column: every protocol has a table of its own, and so has every
combination of architecture, image size, batch size and hardware whose speed was measured.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from benchmarks.bounds import LAUNCH_MICROSECONDS, PEAKS, arithmetic, launching
from benchmarks.environment import RESULTS
from zoo.pretrained import cards

README = RESULTS.parent / "README.md"

Row = dict[str, Any]

BOUND_BATCH = 64
"""Images in the steps whose bounds are told."""

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


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; all columns but the first are aligned to the right."""
    lines = [header, [":--"] + ["--:"] * (len(header) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _without_empty_columns(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table of the columns that any row fills."""
    kept = [i for i in range(len(header)) if any(line[i] for line in lines)]
    return markdown([header[i] for i in kept], [[line[i] for i in kept] for line in lines])


def hardware(row: Row) -> str:
    """The machine in words."""
    machine = row["hardware"]
    cpu = f"{machine['cpu']}, {machine['cores']} cores ({machine['capability']})"
    if "gpu" not in machine:
        return cpu
    versions, exact = row["versions"], not row["float32"]["convolutions_in_tf32"]
    software = f"driver {versions['driver']}, cuDNN {versions['cudnn']}, "
    software += f"float32 convolutions in {'float32' if exact else 'TF32'}"
    return f"{machine['gpu']} ({software}); {cpu}"


def origin(row: Row) -> str:
    """Commit and versions in words."""
    versions = row["versions"]
    return f"commit {row['commit']}, torch {versions['torch']}, lightning {versions['lightning']}"


def _ratio(row: Row, name: str) -> str:
    ratio = row["zoo_over"][name]
    return f"**{ratio['median']:.2f}** ({ratio['lower']:.2f} to {ratio['upper']:.2f})"


def _options(row: Row) -> str:
    settings = row["settings"]
    words = [{"32": "float32", "bf16": "bf16-mixed"}[settings["precision"]]]
    words += [name for name in ("channels_last", "compile") if settings[name]]
    words += [f"{name}={value}" for name, value in settings.get("options", {}).items()]
    return ", ".join(words)


def speed(rows: Iterable[Row]) -> str:
    """Tables of speed, one per architecture, size, batch and machine."""

    def key(row: Row) -> tuple[str, ...]:
        settings = row["settings"]
        size = f"{settings['image_size']}x{settings['image_size']}, batch {settings['batch_size']}"
        return row["architecture"], size, f"{settings['threads']} threads", hardware(row)

    header = ["options", "zoo images/s", "plain", "textbook", "zoo / plain", "zoo / textbook"]
    header += ["GFLOP/step", "textbook's", "kernels/step", "plain's", "GPU ms/step", "peak MiB", "textbook's"]
    header += ["outside", "commit"]
    parts = []
    for title, grouped in groupby(sorted(rows, key=lambda row: (key(row), _options(row))), key):
        group, lines = list(grouped), []
        for row in group:
            loops = row["loops"]
            cells = [
                _options(row),
                *(f"{loops[name]['images_per_second']:.0f}" for name in ("zoo", "plain", "textbook")),
            ]
            cells += [_ratio(row, "plain"), _ratio(row, "textbook")]
            pairs = [("gflop_per_step", "zoo"), ("gflop_per_step", "textbook")]
            pairs += [("kernels_per_step", "zoo"), ("kernels_per_step", "plain"), ("gpu_milliseconds_per_step", "zoo")]
            pairs += [("peak_memory_mib", "zoo"), ("peak_memory_mib", "textbook")]
            for field, name in pairs:
                form = ".2f" if field.startswith("gpu") else ".0f"
                cells.append(format(loops[name][field], form) if field in loops[name] else "")
            cells += [f"{row['share_outside_networks']:.1%}", row["commit"]]
            lines.append(cells)
        parameters = ", ".join(f"{name} {n:,}" for name, n in group[0]["parameters"].items())
        parts.append(f"### {title[0]}, {title[1]}\n\nOn {title[3]}, {title[2]}. Parameters: {parameters}.\n")
        parts.append(_without_empty_columns(header, lines))
    return "\n".join(parts)


def launches(rows: Iterable[Row]) -> str:
    """A table of the operations of a step."""
    header = ["architecture", "pixels", "zoo", "plain", "zoo / plain"]
    parts = []
    for row in rows:
        lines = [
            [
                _form(c),
                str(c["image_size"]),
                f"{c['zoo']:.0f}",
                f"{c['plain']:.0f}",
                f"**{c['zoo'] / c['plain']:.2f}**",
            ]
            for c in row["counts"]
        ]
        parts += [f"With {origin(row)}.\n", markdown(header, lines)]
    return "\n".join(parts)


def exports(rows: Iterable[Row]) -> str:
    """A table of the differences of exported files."""
    parts = []
    for row in rows:
        lines = [
            [
                found["checkpoint"],
                f"`{found['function']}`",
                *(f"{found[form]['difference']:.1e}" for form in ("onnx", "torch_export")),
                *(f"{found[form]['bytes'] / 2**20:.1f}" for form in ("onnx", "torch_export")),
            ]
            for found in row["exports"]
        ]
        runtime = f"onnxruntime {row['versions']['onnxruntime']}"
        parts.append(f"With {origin(row)}, {runtime}, on {hardware(row)}.\n")
        header = ["checkpoint", "function", "onnxruntime", "torch.export", "ONNX MiB", "program MiB"]
        parts.append(markdown(header, lines))
    return "\n".join(parts)


def sampling(rows: Iterable[Row]) -> str:
    """One table of sampling speed per machine."""
    header = ["architecture", "images", "drawn together", "images/s", "naive", "zoo / naive", "commit"]
    parts = []

    def key(row: Row) -> tuple[str, str]:
        return hardware(row), f"{row['settings']['threads']} threads"

    def order(row: Row) -> tuple[Any, ...]:
        return key(row), row["architecture"], str(row["settings"]["options"]), row["settings"]["batch_size"]

    for machine, group in groupby(sorted(rows, key=order), key):
        lines = []
        for row in group:
            settings = row["settings"]
            words = [row["architecture"], *(f"{name}={value}" for name, value in settings["options"].items())]
            lines.append(
                [
                    ", ".join(words),
                    "x".join(map(str, settings["image_shape"])),
                    str(settings["batch_size"]),
                    f"{row['cached']['images_per_second']:.1f}",
                    f"{row['naive']['images_per_second']:.3f}",
                    f"**{row['ratio']:.0f}**",
                    row["commit"],
                ]
            )
        parts.append(f"On {', '.join(machine)}.\n")
        parts.append(markdown(header, lines))
    return "\n".join(parts)


def bounds(rows: Iterable[Row]) -> str:
    """A table of what bounds the steps, for rows that have FLOPs."""
    header = ["architecture", "pixels", "GFLOP/image", "operations", "launching, ms"]
    header += [f"{what}, {name}" for name in PEAKS for what in ("ideal ms", "bound by", "busy from")]
    lines = []
    for count in (count for row in rows for count in row["counts"] if "gflop_per_image" in count):
        host, gflop = launching(count["zoo"]), count["gflop_per_image"]
        line = [_form(count), str(count["image_size"]), f"{gflop:.3g}", f"{count['zoo']:.0f}", f"{host:.2f}"]
        for peak in PEAKS.values():
            ideal = arithmetic(gflop * BOUND_BATCH, peak)
            busy = math.ceil(host / arithmetic(gflop, peak))
            line += [f"{ideal:.3g}", "launching" if host > ideal else "arithmetic", f"{busy:,}"]
        lines.append(line)
    return markdown(header, lines)


def _form(count: dict[str, Any]) -> str:
    return ", ".join([count["architecture"], *(f"{name}={value}" for name, value in count["options"].items())])


def quality(rows: Iterable[Row]) -> str:
    """Tables of quality, one per protocol."""
    parts = []
    header = ["checkpoint", "value", "standard error", "chance", "seeds", "deviation", "untrained", "value / untrained"]
    header += ["other real images", "parameters", "recipe", "seconds", "measured with"]
    for protocol, group in groupby(
        sorted(rows, key=lambda row: (row["protocol"], row["slug"])), lambda r: r["protocol"]
    ):
        lines = [_quality_cells(row) for row in group]
        parts.append(f"### `{protocol}`\n")
        parts.append(_without_empty_columns(header, lines))
    return "\n".join(parts)


def _quality_cells(row: Row) -> list[str]:
    def number(name: str, form: str | None = None) -> str:
        value = row.get(name)
        if value is None:
            return ""
        return format(value, form) if form else cards.value(row | {"value": value})

    return [
        row["slug"],
        f"**{number('value')}**",
        number("standard_error"),
        number("chance"),
        ", ".join(row["seeds"]),
        number("deviation"),
        number("untrained"),
        number("over_untrained", ".0%"),
        number("other_real_images"),
        number("parameters", ","),
        row["recipe"] or "",
        f"{row['seconds']:.0f}",
        f"{origin(row)}; {hardware(row)}",
    ]


def seeds(rows: Iterable[Row]) -> str:
    """A table for each measure, the settings of a recipe one below the other."""
    header = ["recipe", "objective", "validation", "standard error", "test", "seeds, test", "chance", "steps"]
    header += ["minutes", "trained with"]
    parts = []

    def key(row: Row) -> tuple[str, str]:
        return row["metric"], row["data"]

    for (metric, data), group in groupby(sorted(rows, key=lambda r: (*key(r), r["recipe"], r["objective"])), key):
        parts += [f"### {metric}, {data}\n", _without_empty_columns(header, [_seeds_cells(row) for row in group])]
    return "\n".join(parts)


def _short(number: float | None) -> str:
    return "" if number is None else f"{number:,.0f}" if abs(number) >= 100 else f"{number:.3g}"


def fine_tuning(rows: Iterable[Row]) -> str:
    """A table for each comparison: a line for each start."""
    parts = []
    for row in rows:
        lines = [
            [start, ", ".join(next(iter(values.values()))["seeds"])]
            + [" ± ".join(_short(values[name][k]) for k in ("value", "deviation")) for name in row["protocols"]]
            for start, values in row["starts"].items()
        ]
        seconds = f"{min(row['training_seconds'])} to {max(row['training_seconds'])} seconds"
        parts.append(
            f"{row['architecture']}, {row['data']}: {row['steps']:,} steps, {row['images']:,} images, {seconds} of "
            f"training, {row['precision']}; with {origin(row)}, on {hardware(row)}.\n"
        )
        parts.append(markdown(["start", "seeds", *row["protocols"]], lines))
        parts += [f"- `{protocol}`" for protocol in row["protocols"].values()] + [""]
    return "\n".join(parts)


def _seeds_cells(row: Row) -> list[str]:
    def number(value: float | None) -> str:
        return "" if value is None else cards.value(row | {"value": value})

    def spread(part: dict[str, Any]) -> str:
        return " ± ".join(number(part[name]) for name in ("value", "deviation") if part[name] is not None)

    return [
        row["recipe"],
        row["objective"],
        f"**{spread(row['validation'])}**",
        number(row["standard_error"]),
        spread(row["test"]),
        ", ".join(f"{seed}: {number(value)}" for seed, value in row["test"]["seeds"].items()),
        number(row["chance"]),
        f"{row['steps']:,}",
        ", ".join(f"{seconds / 60:.0f}" for seconds in row["training_seconds"]),
        f"{origin(row)}; {hardware(row)}",
    ]


def page(rows: Sequence[Row]) -> str:
    """The whole page."""
    parts = [HEAD]
    kinds = (
        ("quality", QUALITY, quality),
        ("seeds", SEEDS, seeds),
        ("fine_tuning", FINE_TUNING, fine_tuning),
        ("sampling", SAMPLING, sampling),
        ("speed", SPEED, speed),
        ("launches", LAUNCHES, launches),
        ("exports", EXPORTS, exports),
    )
    for name, text, make in kinds:
        if chosen := [row for row in rows if row["benchmark"] == name]:
            parts += [text, make(chosen)]
        if name == "launches" and any("gflop_per_image" in c for row in chosen for c in row["counts"]):
            peaks = ", ".join(f"{name} {peak / 1e12:.0f}" for name, peak in PEAKS.items())
            parts += [BOUNDS.format(peaks=peaks, launch=LAUNCH_MICROSECONDS, batch=BOUND_BATCH), bounds(chosen)]
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
