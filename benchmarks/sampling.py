"""Speed of exact sampling against the naive sampler's: `python -m benchmarks.sampling PixelRNN`.

Both samplers draw the same images from the same random numbers; weights are random, as speed does not depend on them.
The naive sampler runs the whole model for every sub-pixel. All sub-pixels cost the same: its time for the first ones is
scaled up to the whole image.
"""

from __future__ import annotations

import argparse
import inspect
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch

import zoo
from benchmarks.environment import RESULTS, environment
from benchmarks.speed import option
from zoo.base.autoregressive import AutoregressiveModel

__all__ = ["main", "measure"]


def architectures() -> list[str]:
    """Names of the architectures that have both samplers."""
    return [
        name
        for name in zoo.ARCHITECTURES
        if issubclass(getattr(zoo, name), AutoregressiveModel)
        and "naive" in inspect.signature(getattr(zoo, name).sample).parameters
    ]


class Enough(Exception):
    """Ends the naive sampler early."""


def synchronize(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure(model: AutoregressiveModel, n: int, rounds: int, sub_pixels: int) -> dict[str, Any]:
    """Seconds per batch of images with either sampler.

    Args:
        model: the model.
        n: images per batch.
        rounds: times that each sampler is timed; the median counts.
        sub_pixels: number of sub-pixels over which the naive sampler is timed in each round.
    """
    device = model.device
    total = torch.Size(model.image_shape).numel()
    sub_pixels = min(sub_pixels, total)
    seconds: dict[str, list[float]] = {"cached": [], "naive": []}
    forward = model.logits
    model.sample(n, seed=0)  # warm
    for seed in range(rounds):
        synchronize(device)
        start = time.perf_counter()
        model.sample(n, seed=seed)
        synchronize(device)
        seconds["cached"].append(time.perf_counter() - start)

        times: list[float] = []

        def timed(x: torch.Tensor, times: list[float] = times) -> torch.Tensor:
            synchronize(device)
            times.append(time.perf_counter())
            if len(times) > sub_pixels:
                raise Enough
            return forward(x)

        model.logits = timed  # type: ignore[method-assign]
        try:
            model.sample(n, seed=seed, naive=True)
            times.append(time.perf_counter())  # the whole image
        except Enough:
            pass
        finally:
            del model.logits  # the class's own again
        seconds["naive"].append((times[-1] - times[0]) / (len(times) - 1) * total)
    ratios = [naive / cached for cached, naive in zip(seconds["cached"], seconds["naive"], strict=True)]
    return {
        **{
            name: {"seconds": statistics.median(values), "images_per_second": n / statistics.median(values)}
            for name, values in seconds.items()
        },
        "ratio": statistics.median(ratios),
        "ratios": [round(ratio, 1) for ratio in ratios],
        "timed_sub_pixels": sub_pixels,
        "sub_pixels": total,
    }


def parser() -> argparse.ArgumentParser:
    """Command-line options."""
    result = argparse.ArgumentParser(
        prog="python -m benchmarks.sampling",
        description="Speed of a model's exact sampler against the naive one's.",
        epilog="example: python -m benchmarks.sampling PixelRNN --option layer=row --batch-size 16 256",
    )
    add = result.add_argument
    add("architecture", choices=architectures())
    add("--batch-size", type=int, nargs="+", default=[16], help="images drawn together; several are measured in turn")
    add("--option", action="append", default=[], metavar="NAME=VALUE", help="argument of the model; may be repeated")
    add("--device", choices=["cpu", "cuda"], default="cpu")
    add("--threads", type=int, help="threads of torch; default: as many as it takes itself")
    add("--rounds", type=int, default=3, help="times that each sampler has its turn")
    add("--sub-pixels", type=int, default=40, help="number over which the naive sampler is timed")
    add("--out", type=Path, default=RESULTS, help="folder of the rows")
    return result


def main(arguments: list[str] | None = None) -> None:
    """Measure, print and write a row for each batch size."""
    args = parser().parse_args(arguments)
    if args.device == "cuda" and not torch.cuda.is_available():
        parser().error("--device cuda: this torch sees no CUDA device; take --device cpu")
    if args.threads:
        torch.set_num_threads(args.threads)
    options = dict(map(option, args.option))
    torch.manual_seed(0)
    model = getattr(zoo, args.architecture)(**options).to(args.device)
    for n in args.batch_size:
        found = measure(model, n, args.rounds, args.sub_pixels)
        row = {
            "benchmark": "sampling",
            "architecture": args.architecture,
            "settings": {
                "image_shape": list(model.image_shape),
                "batch_size": n,
                "device": args.device,
                "threads": torch.get_num_threads(),
                "options": options,
            },
            **found,
            **environment(torch.device(args.device)),
        }
        print(
            f"{args.architecture}, {n} images: {found['cached']['images_per_second']:.1f} images/s, "
            f"{found['ratio']:.0f} times the naive sampler's {found['naive']['images_per_second']:.3f}"
        )
        words = [f"{name}={value}" for name, value in options.items()]
        out = args.out / "-".join(["sampling", args.architecture.lower(), f"b{n}", *words, f"{args.device}.json"])
        out.write_text(json.dumps(row, indent=2) + "\n")
        print(f"row: {out}")


if __name__ == "__main__":
    main()
