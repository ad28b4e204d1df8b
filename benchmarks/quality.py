"""Quality of a published checkpoint: `python -m benchmarks.quality dcgan-emoji32`.

Measures what the checkpoint's recipe measures and enters the values into its index entry, its card and the header of
its file, whose weights keep every bit. Each value has a row with that of the untrained model; a distance between sets
also has that of other real images, which is what a perfect model would reach with so many. Entry and row come from one
measurement.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
import yaml
from torch import Tensor, nn

import zoo
from benchmarks.environment import RESULTS, environment
from zoo import recipes
from zoo.callbacks.base import Grows
from zoo.callbacks.measures import IMAGE_METRICS, MEASURES
from zoo.pretrained import index, publish, verify
from zoo.pretrained.measures import FRECHET

SETS = ("frechet_distance", "image_metrics", "swd")
"""Measures that compare real images with as many of the model's."""
CONTROLS = ("identity", "real", "floor", "shuffled")
"""Options of measures whose value is none of the model."""
CHEAP = 60.0
"""Seconds that a value may take if three untrained models are to be measured too, where nobody asked for it."""


class Data(Protocol):
    """What is asked of a DataModule."""

    name: str

    def reference_batches(
        self, num_samples: int, chunk_size: int, *, split: str = ..., rank: int = ..., world_size: int = ...
    ) -> Any:
        """A fixed subset in chunks."""
        ...


class OtherImages(nn.Module):
    """Shows other real images of the same split as if they were generated.

    Args:
        data: DataModule.
        num_samples: how many; the split must have twice as many.
        split: the split.

    Raises:
        ValueError: the split has fewer.
    """

    def __init__(self, data: Data, num_samples: int, split: str = "train") -> None:
        super().__init__()
        self.place = nn.Parameter(torch.zeros(()))  # says where images are to be
        chunks = data.reference_batches(2 * num_samples, num_samples, split=split)
        self.images = next(batch["image"] for first, batch in chunks if first == num_samples)

    def real_and_fake(self, batch: dict[str, Any], *, seed: int, first: int) -> tuple[Tensor, Tensor]:
        """Real images of the batch, and as many others."""
        real: Tensor = batch["image"]
        index = torch.arange(first, first + len(real)) % len(self.images)
        return real, self.images[index].to(real.device)


def data_of(settings: dict[str, Any], **options: Any) -> Any:
    """The DataModule that an index entry names, ready for measuring.

    Args:
        settings: its `class` and `init_args`.
        options: arguments that replace those; None leaves them.
    """
    given = {key: value for key, value in options.items() if value is not None}
    return verify.data_module(settings | {"init_args": settings["init_args"] | given}, None)


def untrained(model: Any, seed: int) -> Any:
    """The same model before any training; one that grows is as large as the given one."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        fresh = type(model)(**model.hparams)
    grows = isinstance(model, Grows)
    if grows:
        for name in ("stage", "alpha"):
            getattr(fresh.generator_ema, name).copy_(getattr(model.generator_ema, name))
    return fresh


def wanted(entry: dict[str, Any]) -> list[verify.Measurement]:
    """What a checkpoint is to be measured by: what its recipe measures now, or else what it was published with.

    Args:
        entry: its index entry.
    """
    old: dict[str, dict[str, list[list[Any]]]] = {}
    for metric in entry["metrics"]:
        old.setdefault(_key_of(metric), {})[metric["name"]] = metric.get("history", [])
    if entry["recipe"] in recipes.list_recipes():
        config = yaml.safe_load(recipes.find(entry["recipe"]).read_text())
        asked = [(m.measure, verify.portable(m.arguments)) for m in verify.measurements({"callbacks": {}}, config)]
    else:
        asked = [(m.get("measure", FRECHET), m["arguments"]) for m in entry["metrics"]]
    unique = {_key(measure, arguments): (measure, arguments) for measure, arguments in asked}
    return [verify.Measurement(*pair, old.get(key, {})) for key, pair in unique.items()]


def _key(measure: str, arguments: dict[str, Any]) -> str:
    return json.dumps([measure, arguments], sort_keys=True)


def measure(
    model: Any,
    data: Any,
    measurement: verify.Measurement,
    *,
    selected: str | None = None,
    seeds: Sequence[int] | None = None,
    untrained_seeds: Sequence[int] | None = None,
    known: Sequence[dict[str, Any]] = (),
) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Metrics of an index entry, each with a row: the value, that of the untrained model and of other real images.

    Args:
        model: a loaded checkpoint.
        data: its DataModule.
        measurement: what is measured.
        selected: split by whose values the options were chosen.
        seeds: seeds of what the measure draws; None for those of `zoo.pretrained.verify.measured`.
        untrained_seeds: seeds of initial weights, a value for each; None takes 0, 1 and 2, or fewer where a value
            takes minutes.
        known: the model's metrics, where they were measured before; none are measured now.
    """
    start, options = time.monotonic(), {"selected": selected}
    metrics = [*known] or verify.measured(model, data, measurement, seeds=seeds, **options)
    each = (time.monotonic() - start) / len(metrics[0].get("seeds", [0]))
    first, arguments = [seeds[0] if seeds else measurement.arguments.get("seed", 0)], measurement.arguments
    is_set = measurement.measure in SETS
    if untrained_seeds is None:
        untrained_seeds = (0, 1, 2) if each < CHEAP else (0,) if is_set else ()
    if any(arguments.get(name) for name in CONTROLS):
        untrained_seeds = ()  # those are no values of the model
    device = next(model.parameters()).device
    before = {
        str(seed): verify.measured(untrained(model, seed).to(device), data, measurement, seeds=first, **options)
        for seed in untrained_seeds
    }
    floor = other_real_images(data, measurement, first) if is_set else []
    rows = []
    for i, metric in enumerate(metrics):
        row = {"metric": metric["name"], "unit": metric.get("unit", ""), "protocol": metric["protocol"]}
        row |= {"value": metric["value"], "seeds": metric.get("seeds", {str(first[0]): metric["value"]})}
        row |= {key: metric[key] for key in ("deviation", "standard_error", "chance", "count") if key in metric}
        if is_set:
            row["other_real_images"] = floor[i]["value"] if floor else None
        if before:
            values = {seed: found[i]["value"] for seed, found in before.items()}
            row |= {"untrained": statistics.median(values.values()), "untrained_seeds": values}
            kinds = {name: kind for m, kind in IMAGE_METRICS.items() for name in (m, kind.inception)}
            better = getattr(kinds.get(metric["name"]), "better", MEASURES[measurement.measure].better)
            metric |= {"untrained": row["untrained"], "better": better}
        rows.append((metric, row))
    return rows


def other_real_images(data: Data, measurement: verify.Measurement, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """The metrics of other real images in place of the model's; none where the split has not twice as many."""
    function = MEASURES[measurement.measure]
    split = measurement.arguments.get("split") or function.split
    try:
        whole = min(10_000, len(data.split(split))) if hasattr(data, "split") else 0  # the usual number
        others = OtherImages(data, measurement.arguments.get("num_samples") or function.num_samples or whole, split)
    except (ValueError, StopIteration):
        return []
    return verify.measured(others, data, measurement, seeds=seeds)  # type: ignore[arg-type]


def file_names(slug: str, metrics: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Names of the files of the metrics' rows; that of the Fréchet distance is named after the checkpoint alone."""
    given: dict[str, int] = {}
    for metric in metrics:
        is_distance = metric.get("measure", FRECHET) == FRECHET
        name = f"quality-{slug}" if is_distance else f"quality-{slug}-{metric['name']}"
        given[name] = given.get(name, 0) + 1
        yield f"{name}.json" if given[name] == 1 else f"{name}-{given[name]}.json"


def published(slug: str, device: torch.device) -> tuple[Any, dict[str, Any]]:
    """A published model and its index entry.

    Raises:
        LookupError: there is none of that name.
    """
    model = zoo.load(slug, device=device)
    if (entry := index().get(slug)) is None:
        raise LookupError(f"{slug} is not published: make it so with `zoo publish`, or take one of `zoo list`")
    return model, entry


def parser() -> argparse.ArgumentParser:
    """Command-line options."""
    result = argparse.ArgumentParser(
        prog="python -m benchmarks.quality",
        description="Measure a published checkpoint by what its recipe measures, and enter the values into its index "
        "entry, its card, the header of its file, and rows in benchmarks/results.",
        epilog="example: python -m benchmarks.quality dcgan-emoji32",
    )
    add = result.add_argument
    add("slug", help="name of the checkpoint; `zoo list` names them all")
    add("--data-dir", help="folder of the data set, where the package does not carry it")
    add("--cache-dir", help="folder of decoded images")
    add("--measures", nargs="+", help="names of the measures; default: all. The values of others stay")
    add("--selected", choices=("val", "test"), help="split by whose values options or checkpoint were chosen")
    add(
        "--keep",
        action="store_true",
        help="keep the values that `zoo publish` has just measured, and measure untrained models and other images only",
    )
    add("--seeds", type=int, nargs="+", help="seeds of samples and draws; default: five where a measure draws")
    add(
        "--untrained-seeds",
        type=int,
        nargs="*",
        help="seeds of initial weights to compare with; default: 0 1 2, or fewer where a value takes minutes",
    )
    add("--device", default="cpu")
    add("--dry-run", action="store_true", help="print the rows and write nothing")
    add("--out-dir", type=Path, default=RESULTS, help="folder of the rows; default: benchmarks/results")
    return result


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, and write values and rows."""
    args = parser().parse_args(arguments)
    device = torch.device(args.device)
    try:
        model, entry = published(args.slug, device)
        selected = args.selected or entry.get("selected")
        asked = wanted(entry)
        chosen = choose(args.slug, asked, args.measures)
        data = data_of(entry["data"], data_dir=args.data_dir, cache_dir=args.cache_dir)
        rows: dict[str, dict[str, Any] | None] = {}
        metrics: list[dict[str, Any]] = []
        for measurement in asked:
            start = time.monotonic()
            key = _key(measurement.measure, measurement.arguments)
            known = [dict(m) for m in entry["metrics"] if _key_of(m) == key]
            if measurement not in chosen:
                metrics, rows = metrics + known, rows | {m["protocol"]: None for m in known}
                continue
            options = {"seeds": args.seeds, "untrained_seeds": args.untrained_seeds, "selected": selected}
            found = measure(model, data, measurement, **options, known=known if args.keep else ())
            for metric, row in found:
                metrics.append(metric)
                rows[metric["protocol"]] = {
                    "benchmark": "quality",
                    "slug": args.slug,
                    "architecture": type(model).__name__,
                    "parameters": entry["parameters"],
                    "recipe": entry["recipe"],
                    "data": data.name,
                    **row,
                    "seconds": round((time.monotonic() - start) / len(found), 1),
                    **environment(device),
                }
                print(json.dumps(rows[metric["protocol"]]), flush=True)
        if not args.dry_run:
            publish.republish(args.slug, metrics, selected=selected)
            write_rows(args.slug, metrics, rows, args.out_dir)
    except (OSError, ValueError, LookupError, TypeError) as error:
        sys.exit(f"benchmarks.quality: {error}")


def _key_of(metric: dict[str, Any]) -> str:
    return _key(metric.get("measure", FRECHET), metric["arguments"])


def write_rows(slug: str, metrics: list[dict[str, Any]], rows: dict[str, dict[str, Any] | None], folder: Path) -> None:
    """Write the rows of a checkpoint; those of values that are no longer published go.

    Args:
        slug: name of the checkpoint.
        metrics: all its metrics.
        rows: rows by protocol; None for one that stays as it is.
        folder: folder of the rows.
    """
    names = dict(zip(file_names(slug, metrics), metrics, strict=True))
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob(f"quality-{slug}*.json"):
        if path.name not in names and json.loads(path.read_text())["slug"] == slug:
            path.unlink()
    for name, metric in names.items():
        if (row := rows[metric["protocol"]]) is not None:
            (folder / name).write_text(json.dumps(row, indent=2) + "\n")


def choose(slug: str, asked: Sequence[verify.Measurement], names: Sequence[str] | None) -> list[verify.Measurement]:
    """The measurements of given names.

    Args:
        slug: name of the checkpoint.
        asked: all its measurements.
        names: names of measures; None for all.

    Raises:
        ValueError: there is nothing, or nothing of that name.
    """
    known = [m.measure for m in asked]
    if not asked:
        raise ValueError(f"{slug} has nothing that is measured")
    if unknown := sorted(set(names or []) - set(known)):
        raise ValueError(f"{slug} is not measured by {unknown[0]!r}: take of {', '.join(dict.fromkeys(known))}")
    return [m for m in asked if names is None or m.measure in names]


if __name__ == "__main__":
    main()
