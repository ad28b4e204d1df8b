"""Quality of a published checkpoint: `python -m benchmarks.quality dcgan-emoji32`.

Computes what the checkpoint was published with, and the same of the model untrained; a row for each measure. The row of
the Fréchet distance also has that of other real images, which is what a perfect model would reach with so many images.
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
from torch import Tensor, nn

import zoo
from benchmarks.environment import RESULTS, environment
from zoo.callbacks.base import Grows
from zoo.callbacks.measures import frechet_distance
from zoo.pretrained import index, verify

SPLIT = "train"
CHEAP = 60.0
"""Seconds that a measurement may take if the untrained model is to be measured too, where nobody asked for it."""


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
    """

    def __init__(self, data: Data, num_samples: int) -> None:
        super().__init__()
        chunks = data.reference_batches(2 * num_samples, num_samples, split=SPLIT)
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


def measure(
    model: Any, data: Data, *, num_samples: int, seeds: Sequence[int], untrained_seeds: Sequence[int], **options: Any
) -> dict[str, Any]:
    """Values of a model, of its untrained form and of other real images, under one protocol.

    Args:
        model: a loaded checkpoint.
        data: DataModule with the real images.
        num_samples: images on each side.
        seeds: seeds of the samples, a value for each.
        untrained_seeds: seeds of initial weights, a value for each.
        options: further options of `frechet_distance`.
    """
    protocols: set[str] = set()

    def distance(network: nn.Module, seed: int = 0) -> float:
        result = frechet_distance(network, data, num_samples=num_samples, split=SPLIT, seed=seed, **options)
        if not isinstance(network, OtherImages):
            protocols.add(result.protocol)
        return float(result.value)

    values = [distance(model, seed) for seed in seeds]
    before = [distance(untrained(model, seed)) for seed in untrained_seeds]
    try:
        floor = distance(OtherImages(data, num_samples))
    except ValueError:  # the split has fewer images than twice the number
        floor = None
    (protocol,) = protocols
    row: dict[str, Any] = {
        "metric": protocol.partition("[")[0],
        "protocol": protocol,
        "value": statistics.median(values),
        "seeds": dict(zip(map(str, seeds), values, strict=True)),
        "other_real_images": floor,
    }
    if before:
        row["untrained"] = statistics.median(before)
        row["untrained_seeds"] = dict(zip(map(str, untrained_seeds), before, strict=True))
        row["over_untrained"] = row["value"] / row["untrained"]
    return row


def remeasure(
    model: Any, data: Any, metric: dict[str, Any], *, seeds: Sequence[int] | None, untrained_seeds: Sequence[int] | None
) -> dict[str, Any]:
    """Values of a model and of its untrained form by another measure than the Fréchet distance, under one protocol.

    Args:
        model: a loaded checkpoint.
        data: its DataModule.
        metric: the entry's metric, with `measure` and `arguments`.
        seeds: seeds of what the measure draws, a value for each; None takes the published one.
        untrained_seeds: seeds of initial weights, a value for each; None takes 0, 1 and 2 if that takes no minutes.
    """
    arguments = metric["arguments"]
    seeds = [arguments.get("seed", 0)] if seeds is None else seeds

    def value(network: Any, seed: int) -> dict[str, Any]:
        return verify.measured(network, data, metric["measure"], arguments | {"seed": seed})

    start = time.monotonic()
    measured = [value(model, seed) for seed in seeds]
    if untrained_seeds is None:
        untrained_seeds = (0, 1, 2) if (time.monotonic() - start) / len(seeds) < CHEAP else ()
    row: dict[str, Any] = {
        "metric": measured[0]["name"],
        "unit": measured[0].get("unit", ""),
        "protocol": measured[0]["protocol"],
        "value": statistics.median(found["value"] for found in measured),
        "seeds": {str(seed): found["value"] for seed, found in zip(seeds, measured, strict=True)},
    }
    device = next(model.parameters()).device
    before = {str(seed): value(untrained(model, seed).to(device), seeds[0])["value"] for seed in untrained_seeds}
    if before:
        row |= {"untrained": statistics.median(before.values()), "untrained_seeds": before}
    return row


def file_names(slug: str, metrics: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Names of the files of the metrics' rows; that of the Fréchet distance is named after the checkpoint alone."""
    given: dict[str, int] = {}
    for metric in metrics:
        name = f"quality-{slug}" if is_distance(metric) else f"quality-{slug}-{metric['name']}"
        given[name] = given.get(name, 0) + 1
        yield f"{name}.json" if given[name] == 1 else f"{name}-{given[name]}.json"


def is_distance(metric: dict[str, Any]) -> bool:
    """Whether a metric of an index entry is a Fréchet distance."""
    return bool(metric.get("measure", verify.FRECHET) == verify.FRECHET)


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
        description="Measures of a published checkpoint, each as a row in benchmarks/results.",
        epilog="example: python -m benchmarks.quality dcgan-emoji32 --seeds 0 1 2",
    )
    add = result.add_argument
    add("slug", help="name of the checkpoint; `zoo list` names them all")
    add("--data-dir", help="folder of the data set, where the package does not carry it")
    add("--cache-dir", help="folder of decoded images")
    add("--metrics", nargs="+", help="names of the metrics to measure; default: all that were published")
    add("--num-samples", type=int, default=2048, help="images on each side of a Fréchet distance")
    add("--seeds", type=int, nargs="+", help="seeds of samples and draws; default: 0, or the published one")
    add(
        "--untrained-seeds",
        type=int,
        nargs="*",
        help="seeds of initial weights to compare with; default: 0 1 2, or none where a measurement takes minutes",
    )
    add("--device", default="cpu")
    add("--out-dir", type=Path, default=RESULTS, help="folder of the rows; default: benchmarks/results")
    return result


def main(arguments: list[str] | None = None) -> None:
    """Measure, print and write rows."""
    args = parser().parse_args(arguments)
    device = torch.device(args.device)
    try:
        model, entry = published(args.slug, device)
        chosen = choose(args.slug, entry, args.metrics)
        data = data_of(entry["data"], data_dir=args.data_dir, cache_dir=args.cache_dir)
        for name, metric in chosen:
            start = time.monotonic()
            if is_distance(metric):
                measured = measure(
                    model,
                    data,
                    num_samples=args.num_samples,
                    seeds=args.seeds or [0],
                    untrained_seeds=[0, 1, 2] if args.untrained_seeds is None else args.untrained_seeds,
                    device=device,
                )
            else:
                measured = remeasure(model, data, metric, seeds=args.seeds, untrained_seeds=args.untrained_seeds)
            row = {
                "benchmark": "quality",
                "slug": args.slug,
                "architecture": type(model).__name__,
                "parameters": entry["parameters"],
                "recipe": entry["recipe"],
                "data": data.name,
                **measured,
                "seconds": round(time.monotonic() - start, 1),
                **environment(device),
            }
            print(json.dumps(row))
            args.out_dir.mkdir(parents=True, exist_ok=True)
            (args.out_dir / name).write_text(json.dumps(row, indent=2) + "\n")
    except (OSError, ValueError, LookupError, TypeError) as error:
        sys.exit(f"benchmarks.quality: {error}")


def choose(slug: str, entry: dict[str, Any], names: Sequence[str] | None) -> list[tuple[str, dict[str, Any]]]:
    """File names and metrics of an entry that are to be measured.

    Args:
        slug: name of the checkpoint.
        entry: its index entry.
        names: names of metrics; None for all.

    Raises:
        ValueError: nothing, or nothing of that name, was published.
    """
    # FID needs weights that do not come with the package.
    metrics = [metric for metric in entry["metrics"] if metric["name"] != "fid"]
    known = [metric["name"] for metric in metrics]
    if not metrics:
        raise ValueError(f"{slug} was published without a value that can be measured here")
    if unknown := sorted(set(names or []) - set(known)):
        raise ValueError(f"{slug} was not published with {unknown[0]!r}: take of {', '.join(dict.fromkeys(known))}")
    pairs = zip(file_names(slug, metrics), metrics, strict=True)
    return [(name, metric) for name, metric in pairs if names is None or metric["name"] in names]


if __name__ == "__main__":
    main()
