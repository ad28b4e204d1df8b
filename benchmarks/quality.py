"""Quality of a published checkpoint: `python -m benchmarks.quality dcgan-emoji32`.

Computes the Fréchet distance of the checkpoint's samples to its training images, that of the same model
untrained, and that of other real images, which is what a perfect model would reach with so many images. Writes one row.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

import zoo
from benchmarks.environment import RESULTS, environment
from callbacks.frechet_distance import frechet_distance
from zoo.pretrained import index

SPLIT = "train"


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
    module, _, name = settings["class"].rpartition(".")
    given = {key: value for key, value in options.items() if value is not None}
    data = getattr(import_module(module), name)(**settings["init_args"] | given)
    data.prepare_data()
    data.setup()
    return data


def untrained(model: Any, seed: int) -> Any:
    """The same model before any training."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return type(model)(**model.hparams)


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
        description="Fréchet distance of a published checkpoint, as a row in benchmarks/results.",
        epilog="example: python -m benchmarks.quality dcgan-emoji32 --seeds 0 1 2",
    )
    add = result.add_argument
    add("slug", help="name of the checkpoint; `zoo list` names them all")
    add("--data-dir", help="folder of the data set, where the package does not carry it")
    add("--cache-dir", help="folder of decoded images")
    add("--num-samples", type=int, default=2048, help="images on each side")
    add("--seeds", type=int, nargs="+", default=[0], help="seeds of the samples")
    add("--untrained-seeds", type=int, nargs="*", default=[0, 1, 2], help="seeds of initial weights to compare with")
    add("--device", default="cpu")
    add("--out", type=Path, help="file of the row; default: quality-<slug>.json in benchmarks/results")
    return result


def main(arguments: list[str] | None = None) -> None:
    """Measure, print and write a row."""
    args = parser().parse_args(arguments)
    start = time.monotonic()
    device = torch.device(args.device)
    try:
        model, entry = published(args.slug, device)
        data = data_of(entry["data"], data_dir=args.data_dir, cache_dir=args.cache_dir)
        measured = measure(
            model,
            data,
            num_samples=args.num_samples,
            seeds=args.seeds,
            untrained_seeds=args.untrained_seeds,
            device=device,
        )
    except (OSError, ValueError, LookupError) as error:
        sys.exit(f"benchmarks.quality: {error}")
    row = {
        "benchmark": "quality",
        "slug": args.slug,
        "architecture": type(model).__name__,
        "recipe": entry["recipe"],
        "data": data.name,
        **measured,
        "seconds": round(time.monotonic() - start, 1),
        **environment(device),
    }
    print(json.dumps(row))
    out = args.out or RESULTS / f"quality-{args.slug}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(row, indent=2) + "\n")


if __name__ == "__main__":
    main()
