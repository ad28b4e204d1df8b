"""Speed of an architecture's training step: `python -m benchmarks.speed dcgan`.

The zoo's step, as a Lightning Trainer runs it (loop, hooks and logging included), is compared with a plain PyTorch
loop of the same maths and options, with the textbook loop of the reference, and with the passes of its networks
alone. All run in one process, in turn, a few steps at a time, so that a change in the machine's load meets all of them;
the figures are medians over rounds, and ratios are medians of the ratios within a round.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from time import perf_counter
from types import ModuleType
from typing import Any, cast

import torch
from lightning.pytorch import LightningModule

from benchmarks.device_work import DeviceWork
from benchmarks.environment import RESULTS, environment, float32_settings
from benchmarks.steps import Draws, Loop, Settings
from zoo.base import GenerativeModel
from zoo.bench import driving
from zoo.bench.driving import Program
from zoo.bench.flops import Operations

LOOPS = ("zoo", "plain", "textbook", "networks")


def architectures() -> list[str]:
    """Names of the architectures that can be measured."""
    return sorted(p.stem for p in (Path(__file__).parent / "steps").glob("[!_]*.py"))


class Batches:
    """An endless stream of random images and labels that are in memory already, the same for every loop."""

    def __init__(self, shape: tuple[int, int, int], settings: Settings, dtype: torch.dtype = torch.float32) -> None:
        generator = torch.Generator().manual_seed(0)

        def batch(size: int) -> dict[str, Any]:
            names = ("image_a", "image_b") if settings.unpaired else ("image",)
            images = {n: torch.rand(size, *shape, generator=generator, dtype=dtype).mul_(2).sub_(1) for n in names}
            label = torch.randint(10, (size,), generator=generator)
            made: dict[str, Any] = {**images, "label": label}
            if settings.patches:
                patches = torch.rand(size, settings.patches, *shape, generator=generator, dtype=dtype).mul_(2).sub_(1)
                mask = torch.randint(2, (size, 1, *shape[1:]), generator=generator).to(dtype)
                made |= {"patches": patches, "mask": mask, "other": images["image"].roll(1, 0)}
            if settings.sentences:
                made |= {
                    f"{kind}_embedding": torch.randn(size, settings.sentences, generator=generator, dtype=dtype)
                    for kind in ("caption", "mismatched")
                }
            return {name: values.to(settings.device) for name, values in made.items()}

        self.batches = [batch(settings.batch_size) for _ in range(8)]
        if settings.labelled:
            self.batches = [b | {"labelled": batch(settings.labelled)} for b in self.batches]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        while True:
            for batch in self.batches:
                yield dict(batch)


def fit(model: GenerativeModel, batches: Batches, settings: Settings, program: Callable[[Any], Program]) -> None:
    """Train a model in a Trainer with a logger, as the program says."""
    precision = {"32": "32-true", "bf16": "bf16-mixed"}[settings.precision]
    driving.fit(model, batches, program, torch.device(settings.device), precision)


def synchronize(settings: Settings) -> None:
    """Wait for the device."""
    if settings.device == "cuda":
        torch.cuda.synchronize()


def build(module: ModuleType, name: str, model: GenerativeModel, settings: Settings) -> Loop:
    """One of the loops that the model is compared with, on random numbers of the same distributions."""
    draws = Draws(settings.device, cast(torch.dtype, model.dtype))
    loop: Loop = getattr(module, name)(model, settings, lambda step: draws)
    return loop


def measure(module: ModuleType, settings: Settings, rounds: int, steps: int) -> dict[str, Any]:
    """Seconds per step of every loop and round, FLOPs and kernels per step, and numbers of parameters."""
    torch.manual_seed(0)
    model: GenerativeModel = module.model(settings)
    batches = Batches(model.image_shape, settings)
    seconds: dict[str, list[float]] = {name: [] for name in LOOPS}
    flops: dict[str, int] = {}
    work: dict[str, dict[str, Any]] = {}
    float32: dict[str, Any] = {}
    captured = dict(settings.options).get("capture", False)

    def program(model: GenerativeModel) -> Program:
        loops = {name: build(module, name, model, settings) for name in LOOPS[1:]}
        stream = iter(batches)

        def run(name: str, count: int) -> None:
            products = torch.get_float32_matmul_precision()
            if name == "textbook":
                torch.set_float32_matmul_precision("highest")  # torch's default
            for _ in range(count):
                loops[name].step(next(stream))
            torch.set_float32_matmul_precision(products)

        yield 3 + 2 * captured  # a recording is no step
        float32.update(float32_settings())
        for name in loops:
            run(name, 3)
        for _ in range(rounds):
            synchronize(settings)
            start = perf_counter()
            yield steps
            synchronize(settings)
            seconds["zoo"].append((perf_counter() - start) / steps)
            for name in loops:
                start = perf_counter()
                run(name, steps)
                synchronize(settings)
                seconds[name].append((perf_counter() - start) / steps)
        if settings.device == "cuda":
            few = min(steps, 5)  # a cycle of every architecture
            with DeviceWork(few) as counted:
                yield few
            work["zoo"] = counted.per_step
            for name in loops:
                with DeviceWork(few) as counted:
                    run(name, few)
                work[name] = counted.per_step
        if settings.compile or captured:
            return
        with Operations() as counter:
            yield 1
        flops["zoo"] = counter.get_total_flops()
        for name in loops:
            with Operations() as counter:
                run(name, 1)
            flops[name] = counter.get_total_flops()

    fit(model, batches, settings, program)
    parameters = {name: sum(p.numel() for p in network.parameters()) for name, network in model.named_children()}
    return {"seconds": seconds, "flops": flops, "work": work, "parameters": parameters, "float32": float32}


def peak_memory(module: ModuleType, name: str, settings: Settings, steps: int = 3) -> float:
    """MiB that one loop adds to this process in a few steps; call it in a fresh process."""
    before = _peak_bytes(settings)
    model: GenerativeModel = module.model(settings)
    batches = Batches(model.image_shape, settings)
    if name == "zoo":

        def program(_: LightningModule) -> Program:
            yield steps

        fit(model, batches, settings, program)
    else:
        loop = build(module, name, model.to(settings.device), settings)
        del model
        stream = iter(batches)
        for _ in range(steps):
            loop.step(next(stream))
    # The kernel counts pages in batches, so that a peak that is hardly higher may read as lower.
    return max(0, _peak_bytes(settings) - before) / 2**20


def _peak_bytes(settings: Settings) -> int:
    if settings.device == "cuda":
        return torch.cuda.max_memory_allocated()
    try:
        # Not getrusage: a process started from this one inherits its peak there.
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def quartiles(values: list[float]) -> dict[str, float]:
    """Median, lower and upper quartile."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else 3 * values
    return {"median": middle, "lower": low, "upper": high}


def summary(measured: dict[str, Any], batch_size: int) -> dict[str, Any]:
    """Figures of a measurement: those of each loop, and the zoo's ratio to each other one."""
    seconds = measured["seconds"]
    loops: dict[str, dict[str, Any]] = {}
    for name, values in seconds.items():
        loops[name] = {
            "images_per_second": round(batch_size / statistics.median(values), 1),
            "milliseconds_per_step": {k: round(1000 * v, 2) for k, v in quartiles(values).items()},
        }
        if name in measured["flops"]:
            loops[name]["gflop_per_step"] = measured["flops"][name] / 1e9
        loops[name] |= measured.get("work", {}).get(name, {})
    ratios = {
        name: {
            k: round(v, 4) for k, v in quartiles([b / a for a, b in zip(seconds["zoo"], values, strict=True)]).items()
        }
        for name, values in seconds.items()
        if name in ("plain", "textbook")
    }
    inside = [b / a for a, b in zip(seconds["zoo"], seconds["networks"], strict=True)]
    return {
        "loops": loops,
        "zoo_over": ratios,
        "share_outside_networks": round(1 - statistics.median(inside), 4),
        "parameters": measured["parameters"],
    }


def table(row: dict[str, Any]) -> str:
    """A row as a table to read."""
    head = f"{'loop':<10}{'images/s':>10}{'ms/step':>10}{'GFLOP/step':>12}{'kernels':>9}{'GPU ms':>9}"
    lines = [f"{head}{'peak MiB':>10}{'zoo is x':>10}"]
    for name, loop in row["loops"].items():
        ratio = row["zoo_over"].get(name, {}).get("median", "")
        flops = f"{loop['gflop_per_step']:.2f}" if "gflop_per_step" in loop else ""
        lines.append(
            f"{name:<10}{loop['images_per_second']:>10}{loop['milliseconds_per_step']['median']:>10}"
            f"{flops:>12}{loop.get('kernels_per_step', ''):>9}{loop.get('gpu_milliseconds_per_step', ''):>9}"
            f"{loop.get('peak_memory_mib', ''):>10}{ratio:>10}"
        )
    parameters = ", ".join(f"{name} {n:,}" for name, n in row["parameters"].items())
    lines.append(
        f"outside the networks: {row['share_outside_networks']:.1%} of the zoo's time; parameters: {parameters}"
    )
    return "\n".join(lines)


def file_name(architecture: str, settings: Settings) -> str:
    """Name of a row's file: the settings that tell it from other rows."""
    words = [architecture, f"{settings.image_size}px", f"b{settings.batch_size}", f"fp{settings.precision}"]
    words = ["bf16" if word == "fpbf16" else word for word in words]
    words += [word for word in ("channels_last", "compile") if getattr(settings, word)]
    words += [f"{name}={value}" for name, value in settings.options]
    words += [f"labelled{settings.labelled}"] * bool(settings.labelled)
    words += [f"patches{settings.patches}"] * bool(settings.patches)
    words += [f"sentences{settings.sentences}"] * bool(settings.sentences)
    return "-".join(["speed", *words, settings.device]) + ".json"


def row_of(architecture: str, settings: Settings, rounds: int, steps: int) -> dict[str, Any]:
    """The row of one measurement, without peak memory.

    Args:
        architecture: name of a module of `benchmarks.steps`.
        settings: what is measured.
        rounds: times that every loop has its turn.
        steps: steps in a turn.
    """
    # Lightning sets this, and then each step of a plain loop's optimizer loads NVML to look for a GPU.
    os.environ.pop("PYTORCH_NVML_BASED_CUDA_CHECK", None)
    measured = measure(import_module(f"benchmarks.steps.{architecture}"), settings, rounds, steps)
    row = {
        "benchmark": "speed",
        "architecture": architecture,
        "settings": {k: v for k, v in asdict(settings).items() if k != "options"}
        | {"options": dict(settings.options)}
        | {"threads": torch.get_num_threads(), "rounds": rounds, "steps_per_round": steps},
        **summary(measured, settings.batch_size),
        **environment(torch.device(settings.device)),
    }
    return row | {"float32": measured["float32"]} if settings.device == "cuda" else row


def write(row: dict[str, Any], path: Path) -> None:
    """Write a row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(row, indent=2) + "\n")


def parser() -> argparse.ArgumentParser:
    """Command-line options."""
    result = argparse.ArgumentParser(
        prog="python -m benchmarks.speed",
        description="Speed of an architecture's training step next to a plain loop and the textbook loop.",
        epilog="example: python -m benchmarks.speed dcgan --precision bf16 --threads 2",
    )
    add = result.add_argument
    add("architecture", choices=architectures())
    add("--image-size", type=int, default=64)
    add("--batch-size", type=int, default=64)
    add("--precision", choices=["32", "bf16"], default="32", help="of the zoo and of the plain loop")
    add("--channels-last", action=argparse.BooleanOptionalAction, default=True, help="for the zoo and the plain loop")
    add("--compile", action="store_true", help="torch.compile the networks of the zoo and of the plain loop")
    add("--device", choices=["cpu", "cuda"], default="cpu")
    add("--threads", type=int, help="threads of torch; default: as many as it takes itself")
    add("--option", action="append", default=[], metavar="NAME=VALUE", help="argument of the model; may be repeated")
    add("--labelled", type=int, default=0, help="labelled images with each batch, for semi-supervised models")
    add("--patches", type=int, default=0, help="patches of each image, for models that are made of them")
    add("--sentences", type=int, default=0, help="length of embeddings, for models that draw sentences")
    add("--rounds", type=int, default=10, help="times that every loop has its turn")
    add("--steps", type=int, help="steps in a turn; default: 3, and 50 on a GPU")
    add("--memory", action=argparse.BooleanOptionalAction, default=True, help="peak memory, in a process per loop")
    add("--out", type=Path, help="file of the row; default: a name made of the settings in benchmarks/results")
    add("--only-memory-of", choices=LOOPS, help=argparse.SUPPRESS)
    return result


def option(text: str) -> tuple[str, Any]:
    """A model's argument, written NAME=VALUE; the value is JSON, or else a word."""
    name, equals, value = text.partition("=")
    if not equals:
        parser().error(f"--option {text}: write NAME=VALUE, such as update=simultaneous")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


def main(arguments: list[str] | None = None) -> None:
    """Measure, print and write a row."""
    arguments = sys.argv[1:] if arguments is None else arguments
    args = parser().parse_args(arguments)
    if args.device == "cuda" and not torch.cuda.is_available():
        parser().error("--device cuda: this torch sees no CUDA device; take --device cpu")
    args.steps = args.steps or {"cpu": 3, "cuda": 50}[args.device]
    if args.threads:
        torch.set_num_threads(args.threads)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    module = import_module(f"benchmarks.steps.{args.architecture}")
    settings = Settings(
        args.image_size,
        args.batch_size,
        args.precision,
        args.channels_last,
        args.compile,
        device=args.device,
        options=tuple(map(option, args.option)),
        labelled=args.labelled,
        unpaired=getattr(module, "UNPAIRED", False),
        patches=args.patches,
        sentences=args.sentences,
    )
    if args.only_memory_of:
        print(peak_memory(module, args.only_memory_of, settings))
        return

    row = row_of(args.architecture, settings, args.rounds, args.steps)
    if args.memory:
        for name in LOOPS[:3]:
            command = [sys.executable, "-m", "benchmarks.speed", *arguments, "--only-memory-of", name]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            row["loops"][name]["peak_memory_mib"] = round(float(done.stdout.split()[-1]))
    print(table(row))
    out = args.out or RESULTS / file_name(args.architecture, settings)
    write(row, out)
    print(f"row: {out}")


if __name__ == "__main__":
    main()
