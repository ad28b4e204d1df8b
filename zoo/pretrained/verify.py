"""Published values: what a run measured, by which function with which arguments, and measuring it again."""

from __future__ import annotations

import ast
import contextlib
import importlib
import json
import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from zoo.callbacks.base import Result
from zoo.callbacks.measures import MEASURES
from zoo.engine.devices import name_of
from zoo.pretrained import cards, entry_of, load
from zoo.pretrained.measures import FRECHET, configured_measures
from zoo.pretrained.trust import Trust, check_trusted

if TYPE_CHECKING:
    import torch

    from zoo.base import GenerativeModel

__all__ = [
    "LOCAL",
    "PLACES",
    "Measurement",
    "Verification",
    "data_module",
    "measured",
    "measurements",
    "portable",
    "verify",
]

SEEDS = 5
"""Seeds over which a published value is a mean."""
RELATIVE = 1e-3
"""What other processors and versions may change; the same processor changes a tenth of it."""
# Arguments of a DataModule that name places of a machine, and all those that do not change the data.
PLACES = ("data_dir", "data_dir_b", "cache_dir")
LOCAL = (*PLACES, "num_workers", "seed", "batch_size", "labelled_batch_size")


class Measurement(NamedTuple):
    """What a run measured of its model: by what, with which arguments, and all (step, value) of each metric.

    A measure that gives a single value has its history under the name "".
    """

    measure: str
    arguments: dict[str, Any]
    histories: dict[str, list[list[Any]]] = {}  # noqa: RUF012


def measurements(saved: dict[str, Any], config: dict[str, Any]) -> Iterator[Measurement]:
    """All that a run measured.

    Args:
        saved: its checkpoint.
        config: its configuration.
    """
    for measure, arguments, callback, identity in configured_measures(config):
        state = _state(saved["callbacks"], callback, identity)
        kept = state.get("metrics") or {"": state}
        histories = {name: [list(pair) for pair in of.get("history", [])] for name, of in kept.items()}
        yield Measurement(measure, arguments, histories)


def _state(states: dict[str, Any], kind: str, identity: dict[str, Any]) -> dict[str, Any]:
    """State of a callback among those of a checkpoint, whatever the order of its arguments."""
    for key, state in states.items():
        with contextlib.suppress(ValueError, SyntaxError):
            if key.startswith(f"{kind}{{") and ast.literal_eval(key.removeprefix(kind)) == identity:
                found: dict[str, Any] = state
                return found
    return {}


def portable(arguments: dict[str, Any]) -> dict[str, Any]:
    """Arguments of a measure without paths of the publisher's: each verifier has their own.

    Args:
        arguments: those of a `Measurement`.
    """
    kept = {k: v for k, v in arguments.items() if k != "inception_weights"}
    if other := kept.get("other_arguments"):  # of a second data set
        kept["other_arguments"] = {k: v for k, v in other.items() if k not in LOCAL}
    return kept


def measured(
    model: GenerativeModel,
    data: Any,
    measurement: Measurement,
    *,
    seeds: Sequence[int] | None = None,
    selected: str | None = None,
) -> list[dict[str, Any]]:
    """Measure now: metrics of an index entry, one for each value that the measure gives.

    The value of a measure that draws is the mean over seeds, with their deviation.

    Args:
        model: the model.
        data: its DataModule.
        measurement: the measure, its arguments and the histories of its metrics.
        seeds: seeds of what the measure draws; None for five, or one where nothing is drawn.
        selected: split by whose values the options were chosen; the protocol says so.

    Raises:
        ValueError: there is no such measure, or its protocol depends on the seed.
    """
    measure, arguments, histories = measurement
    if measure not in MEASURES:
        raise ValueError(f"a published value is of the measure {measure!r}, which this version does not have")
    function, first = MEASURES[measure], arguments.get("seed", 0)
    seeds = seeds or [*range(first, first + (SEEDS if function.draws else 1))]
    runs = []
    for seed in seeds:
        found: Any = function(model, data, **arguments | {"seed": seed})
        runs.append([found] if isinstance(found, Result) else list(found))
    metrics = []
    for results in zip(*runs, strict=True):
        if len({result.protocol for result in results}) > 1:
            raise ValueError(f"{measure} has another protocol for each seed: {results[0].protocol}")
        metrics.append({"name": results[0].metric, "measure": measure} | _numbers(results, seeds, function.unit))
        protocol = results[0].protocol
        metrics[-1]["protocol"] = f"{protocol[:-1]}, selected={selected}]" if selected else protocol
        history = histories.get(results[0].metric) or (histories.get("") if len(metrics) == 1 else None)
        metrics[-1] |= {"arguments": portable(arguments), "history": history or []}
        metrics[-1]["hardware"] = name_of(next(model.parameters()).device)
    return metrics


def _numbers(results: Sequence[Result], seeds: Sequence[int], unit: str) -> dict[str, Any]:
    """The value of several seeds, and what is known of how much it varies."""
    values, last = [result.value for result in results], results[-1]
    numbers: dict[str, Any] = {"value": statistics.fmean(values)} | ({"unit": unit} if unit else {})
    if len(values) > 1:
        numbers |= {"seeds": dict(zip(map(str, seeds), values, strict=True)), "deviation": statistics.stdev(values)}
    if last.error is not None and math.isfinite(last.error):  # a single image has none
        numbers["standard_error"] = statistics.fmean(result.error or 0.0 for result in results)
    numbers |= {k: v for k, v in (("chance", last.chance), ("count", last.count)) if v is not None}
    return numbers | {"tolerance": _tolerance(numbers)}


def _tolerance(numbers: dict[str, Any]) -> float:
    """Largest difference that a verification accepts.

    Two of the counted images, which a rounding error may have moved over the border; a thousandth of what is not
    counted, of the rest to 100 where it is a percentage; three deviations of what is drawn.
    """
    whole = 100.0 if numbers.get("unit") == "%" else 1.0
    if "count" in numbers:
        least = 2 * whole / numbers["count"]
    else:
        least = RELATIVE * (max(100 - numbers["value"], 0.1) if "unit" in numbers else abs(numbers["value"]))
    return float(max(least, 3 * numbers.get("deviation", 0.0)))


def data_module(settings: dict[str, Any], data_dir: str | None, trust: Trust = ()) -> Any:
    """The DataModule of a checkpoint, ready for measuring.

    Args:
        settings: its `class` and `init_args`.
        data_dir: folder of the data set; None leaves it to the class.
        trust: names of packages whose classes may be built: see `zoo.load`.

    Raises:
        ValueError: it is not one of this package, nor of a trusted one; or it cannot be imported.
    """
    path = str(settings["class"])
    check_trusted(path, "the checkpoint's data", trust)
    module, _, name = path.rpartition(".")
    if f"{module}.".startswith("zoo.") and not f"{module}.".startswith("zoo.datamodules."):
        raise ValueError(f"the data class {path!r} is not of the package zoo.datamodules")
    try:
        kind = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"the data class {path} cannot be imported: {error}") from error
    folder = {} if data_dir is None else {"data_dir": str(data_dir)}
    data = kind(**{**settings["init_args"], **folder})
    data.prepare_data()
    data.setup()
    return data


@dataclass(frozen=True)
class Verification:
    """A published value and a new measurement.

    Attributes:
        name: name of the metric.
        published: published value.
        measured: value measured now.
        tolerance: largest difference that is accepted.
        protocol: what both mean.
        unit: "%" or nothing.
    """

    name: str
    published: float
    measured: float
    tolerance: float
    protocol: str
    unit: str = ""

    @property
    def passed(self) -> bool:
        """Whether the two agree."""
        return abs(self.published - self.measured) <= self.tolerance

    def __str__(self) -> str:
        verdict = "agrees" if self.passed else "DIFFERS"
        metric = {"value": self.published, "unit": self.unit}
        return (
            f"{verdict}: {self.name} {cards.value(metric, self.measured)} measured, {cards.value(metric)} published "
            f"(tolerance {cards.value(metric, self.tolerance)})  {self.protocol}"
        )


def verify(
    slug: str,
    *,
    data_dir: str | None = None,
    device: str | torch.device = "cpu",
    inception_weights: str | None = None,
    trust: Trust = (),
) -> list[Verification]:
    """Measure all published values of a checkpoint again.

    Args:
        slug: name or address of the checkpoint: see `zoo.load`.
        data_dir: folder of the data set, where the package does not carry it.
        device: where to compute.
        inception_weights: path of FID's weights, where a published value is FID.
        trust: names of packages whose classes may be built: see `zoo.load`.

    Raises:
        LookupError: there is no such checkpoint.
        ValueError: nothing was published, this installation measures something else, or FID's weights are missing.
    """
    entry = entry_of(slug)
    if not entry.get("metrics"):
        raise ValueError(f"{slug} was published without a measured value: there is nothing to verify")
    if inception_weights is None and any(m["name"] == "fid" for m in entry["metrics"]):
        raise ValueError(f"a published value of {slug} is FID: give the path of its inception_weights")
    model = load(slug, device=device, trust=trust)
    data = data_module(entry["data"], data_dir, trust)
    results: list[Verification] = []
    groups: dict[str, tuple[Measurement, list[dict[str, Any]]]] = {}  # a measure may give several values
    for metric in entry["metrics"]:
        measure, arguments = metric.get("measure", FRECHET), metric["arguments"]
        if measure == FRECHET:
            arguments = arguments | {"inception_weights": inception_weights if metric["name"] == "fid" else None}
        key = json.dumps([measure, arguments], sort_keys=True, default=str)
        groups.setdefault(key, (Measurement(measure, arguments), []))[1].append(metric)
    for measurement, metrics in groups.values():
        seeds = [measurement.arguments.get("seed", 0)]
        found = measured(model, data, measurement, seeds=seeds, selected=entry.get("selected"))
        results += [_compared(slug, metric, found) for metric in metrics]
    return results


def _compared(slug: str, metric: dict[str, Any], found: list[dict[str, Any]]) -> Verification:
    """A published metric and the new one of its name.

    Raises:
        ValueError: this installation measures something else.
    """
    now = next((other for other in found if other["name"] == metric["name"]), found[0])
    if now["protocol"] != metric["protocol"]:
        raise ValueError(f"{slug} was measured as {metric['protocol']}, this installation measures {now['protocol']}")
    tolerance = metric["tolerance"]
    if metric.get("hardware") == now["hardware"] and not {"count", "deviation"} & metric.keys():
        tolerance /= 10  # what made the value rounds alike
    return Verification(
        metric["name"], metric["value"], now["value"], tolerance, metric["protocol"], metric.get("unit", "")
    )
