"""Values over seeds, and whether two of them differ by more than their deviations."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

__all__ = ["COSTS", "RULE", "Cost", "cost", "differs", "direction", "spread"]

RULE = (
    "Two means differ where their distance exceeds 2 √(a² + b²), with a and b their standard deviations over at least "
    "two seeds each."
)


class Cost(NamedTuple):
    """What a run took or reached, known without a protocol.

    Attributes:
        label: head of its column.
        hint: what it counts.
        better: whether a lower or a higher value is better; None where that is no question.
        scale: the shown number is the fact divided by this.
    """

    label: str
    hint: str
    better: str | None
    scale: float = 1.0


COSTS = {
    "training_images_per_second": Cost("train img/s", "training images a second, loading included", "higher"),
    "training_seconds": Cost("seconds", "seconds of training, without measurements", None),
    "images": Cost("images", "training images that were seen, with repetitions", None),
    "peak_memory_bytes": Cost("peak MiB", "peak memory: the GPU's, on a CPU the whole process's", "lower", 2**20),
    "parameters": Cost("parameters", "parameters of all networks, without copies that hold averages", None),
    "flops_per_image": Cost("MFLOP/img", "millions of operations that training takes for an image", None, 1e6),
}
"""Facts of a run, in the order of columns."""


def cost(name: str, facts: Mapping[str, Any]) -> float | None:
    """A fact of a run as a number; None where it is not known.

    Args:
        name: one of `COSTS`.
        facts: the content of `run.json`.
    """
    value = facts.get(name)
    if name == "parameters" and value:
        return float(sum(count for network, count in value.items() if not network.endswith("_ema")))
    if name == "training_seconds" and value is None:
        value = facts.get("seconds")  # of runs from before the two were told apart
    return None if value is None else float(value)


def spread(seeds: Sequence[int | None], values: Sequence[float]) -> dict[str, Any]:
    """Mean and standard deviation over seeds; both None if a value is not finite, the deviation also of a single seed.

    Args:
        seeds: the seeds.
        values: the value of each.
    """
    is_finite = all(map(math.isfinite, values))
    return {
        "mean": statistics.fmean(values) if is_finite else None,
        "deviation": statistics.stdev(values) if is_finite and len(values) > 1 else None,
        "seeds": list(seeds),
        "values": [value if math.isfinite(value) else None for value in values],
    }


def differs(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool | None:
    """Whether two means differ by more than their deviations, as `RULE` says; None where a deviation is not known.

    Args:
        a: a `spread`.
        b: another one.
    """
    if a["deviation"] is None or b["deviation"] is None:
        return None
    return bool(abs(a["mean"] - b["mean"]) > 2 * math.hypot(a["deviation"], b["deviation"]))


@cache
def direction(metric: str) -> tuple[str | None, str]:
    """Whether a lower or a higher value is better, and its unit; (None, "") for a metric that is not known here.

    Args:
        metric: name of the metric, or one of `COSTS`.
    """
    from zoo.callbacks.measures import IMAGE_METRICS, MEASURES

    if metric in COSTS:
        return COSTS[metric].better, ""
    if metric in MEASURES:
        return MEASURES[metric].better, MEASURES[metric].unit
    known = {name: kind.better for own, kind in IMAGE_METRICS.items() for name in (own, kind.inception)}
    return known.get(metric), ""
