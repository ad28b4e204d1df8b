"""Tables of benchmarks/README.md, one function for each kind of row."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

from benchmarks.bounds import PEAKS, arithmetic, launching
from zoo.pretrained import cards

__all__ = [
    "BOUND_BATCH",
    "Row",
    "bounds",
    "exports",
    "fine_tuning",
    "launches",
    "quality",
    "sampling",
    "seeds",
    "speed",
]

Row = dict[str, Any]

BOUND_BATCH = 64
"""Images in the steps whose bounds are told."""


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
