"""What `zoo bench speed` does."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from zoo.cli.usage import Parser, UsageError

if TYPE_CHECKING:
    import torch

    from zoo.bench.speed import Speed

__all__ = ["speed"]

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")
EXPLAINED = """
train, make: images per second of training and of making images (* of given images, not of noise), batches of random
numbers that are on the device already. memory: most that training held, of CUDA's allocator, or growth of the process's
resident set on a CPU. outside: share of a step that is neither an objective nor a backward pass: the loop, logging,
optimizers, averages. FLOPs: of training, per image. Settings are those of the named recipe; networks that grow have
grown, pretraining is left out.
"""


def speed(parser: Parser, arguments: list[str]) -> None:
    """Time architectures on this machine, a line for each."""
    add = parser.add_argument
    add("--only", help="architectures or recipes, separated by commas (all architectures)")
    add(
        "--device",
        default="auto",
        choices=("auto", "cpu", "cuda", "mps"),
        help="where to compute (a GPU if there is one)",
    )
    add("--precision", default="32-true", choices=PRECISIONS, help="of training, as in Lightning (32-true)")
    add("--seconds", type=float, default=5.0, help="least time of each measurement (5)")
    add("--json", action="store_true", help="print everything as JSON")
    parser.description = f"{parser.description}\n{EXPLAINED}"
    options = parser.parse_args(arguments)
    if not 0 < options.seconds < float("inf"):
        raise UsageError(f"--seconds must be above 0, not {options.seconds:g}")
    from zoo.bench.speed import choose, forms, time_form, warm_up
    from zoo.cli.quiet import quiet

    quiet()
    chosen = forms() if options.only is None else choose(options.only)
    device = _device(options.device)
    machine = _machine(device, options.precision)
    rows: list[Speed] = []
    failed: dict[str, str] = {}
    if not options.json:
        print(", ".join(f"{name} {value}" for name, value in machine.items()))
        print(_line(*HEAD), flush=True)
    warm_up(device, options.precision)
    for form in chosen:
        try:
            rows.append(time_form(form, device, options.precision, options.seconds))
        except Exception as error:
            failed[form.recipe] = (str(error) or type(error).__name__).splitlines()[0]
            if not options.json:
                print(f"{form.architecture} ({form.recipe}) failed: {failed[form.recipe]}", flush=True)
            continue
        if not options.json:
            print(_line(*_cells(rows[-1])), flush=True)
    if options.json:
        found = {"machine": machine, "seconds": options.seconds, "rows": [asdict(r) for r in rows], "failed": failed}
        print(json.dumps(found, indent=1))
    if failed:
        raise RuntimeError(f"{len(failed)} of {len(chosen)} failed: {', '.join(failed)}")


def _device(name: str) -> torch.device:
    """The device, if it is there."""
    import torch

    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        name = next(kind for kind in ("cuda", "mps", "cpu") if there[kind])
    if not there[name]:
        raise UsageError(f"--device {name}: there is none here: take --device cpu")
    return torch.device(name)


def _machine(device: torch.device, precision: str) -> dict[str, Any]:
    """What the values depend on beside the code."""
    import lightning
    import torch

    import zoo
    from zoo.engine.devices import name_of

    return {
        "device": name_of(device),
        "threads": torch.get_num_threads(),
        "precision": precision,
        "torch": str(torch.__version__),
        "lightning": lightning.__version__,
        "generative-zoo": zoo.__version__,
        "python": platform.python_version(),
    }


# The table ------------------------------------------------------------------------------------------------------------

HEAD = ("architecture", "recipe", "image", "batch", "train/s", "make/s", "memory", "outside", "parameters", "FLOPs")
WIDTHS = (25, 34, 9, 5, 9, 9, 9, 7, 10, 6)


def _line(*cells: str) -> str:
    pairs = list(zip(cells, WIDTHS, strict=True))
    return "  ".join(
        [f"{cell:<{width}}" for cell, width in pairs[:2]] + [f"{cell:>{width}}" for cell, width in pairs[2:]]
    )


def _cells(row: Speed) -> list[str]:
    """A row as text; what was not measured is empty."""
    made, memory, outside = row.sampling_images_per_second, row.peak_memory_bytes, row.outside_passes
    return [
        row.architecture,
        row.recipe,
        "x".join(map(str, row.image)),
        str(row.batch_size),
        _short(row.training_images_per_second),
        "" if made is None else _short(made) + ("" if row.made_by == "sample" else "*"),
        "" if memory is None else f"{memory / 2**20:,.0f} MiB",
        "" if outside is None else f"{outside:.0%}",
        _short(row.parameters),
        _short(row.flops_per_image),
    ]


def _short(number: float) -> str:
    """Three digits and a unit."""
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.3g}"
