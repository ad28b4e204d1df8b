"""Published values: what a run measured, by which function with which arguments, and measuring it again."""

from __future__ import annotations

import ast
import contextlib
import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from zoo.callbacks.measure import Measure
from zoo.callbacks.measures import MEASURES
from zoo.pretrained import cards, entry_of, load

if TYPE_CHECKING:
    import torch

    from zoo.base import GenerativeModel

__all__ = ["Measurement", "Verification", "data_module", "measured", "measurements", "portable", "verify"]

FRECHET = "frechet_distance"
# Arguments of a DataModule that do not change the data.
LOCAL = ("data_dir", "data_dir_b", "cache_dir", "num_workers", "seed", "batch_size", "labelled_batch_size")


class Measurement(NamedTuple):
    """What a run measured of its model: by what, with which arguments, and all (step, value)."""

    measure: str
    arguments: dict[str, Any]
    history: list[list[Any]]


def measurements(saved: dict[str, Any], config: dict[str, Any]) -> Iterator[Measurement]:
    """All that a run measured.

    Args:
        saved: its checkpoint.
        config: its configuration.
    """
    callbacks = config["trainer"]["callbacks"] or []
    for callback in callbacks if isinstance(callbacks, list) else [callbacks]:
        settings = callback.get("init_args", {})
        kind = callback["class_path"].rpartition(".")[2]
        # A module of the user's own as extractor is not at hand where the value is verified.
        if kind == "FrechetDistance" and isinstance(settings.get("extractor", ""), str):
            # A configuration holds the options that were given, those of earlier versions hold all.
            options = ("num_samples", "extractor", "inception_weights", "split", "seed", "chunk_size")
            defaults = MEASURES[FRECHET].__signature__.parameters
            measure, arguments = FRECHET, {k: settings.get(k, defaults[k].default) for k in options}
            identity = {"extractor": "inception" if arguments["inception_weights"] else arguments["extractor"]}
        elif kind == "Measure":
            own = Measure(**settings)
            measure, arguments = own.measure, own.arguments
            identity = {"measure": measure, **arguments}
        else:
            continue
        state = _state(saved["callbacks"], kind, identity)
        yield Measurement(measure, arguments, [list(pair) for pair in state.get("history", [])])


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


def measured(model: GenerativeModel, data: Any, measure: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Measure now: the metric of an index entry, but for its arguments and history.

    Args:
        model: the model.
        data: its DataModule.
        measure: name of the measure.
        arguments: those of the measure.

    Raises:
        ValueError: there is no such measure.
    """
    if measure not in MEASURES:
        raise ValueError(f"a published value is of the measure {measure!r}, which this version does not have")
    result, percent = MEASURES[measure](model, data, **arguments), MEASURES[measure].unit == "%"
    # Other processors round convolutions differently; 1 % is far more than that, and far less than a seed's worth.
    # Of a small error 1 % would be less than a single image.
    tolerance = max(0.01 * abs(result.value), 0.2 if percent else 0.0)
    return {
        "name": result.metric,
        "measure": measure,
        "value": result.value,
        **({"unit": "%"} if percent else {}),
        "protocol": result.protocol,
        "tolerance": tolerance,
    }


def data_module(settings: dict[str, Any], data_dir: str | None) -> Any:
    """The DataModule of a checkpoint, ready for measuring.

    Args:
        settings: its `class` and `init_args`.
        data_dir: folder of the data set; None leaves it to the class.

    Raises:
        ValueError: it is not one of this package.
    """
    module, _, name = settings["class"].rpartition(".")
    if f"{module}.".partition("zoo.datamodules.")[0]:
        raise ValueError(f"the data class {settings['class']!r} is not of the package zoo.datamodules")
    folder = {} if data_dir is None else {"data_dir": data_dir}
    data = getattr(importlib.import_module(module), name)(**settings["init_args"], **folder)
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
) -> list[Verification]:
    """Measure all published values of a checkpoint again.

    Args:
        slug: name of the checkpoint.
        data_dir: folder of the data set, where the package does not carry it.
        device: where to compute.
        inception_weights: path of FID's weights, where a published value is FID.

    Raises:
        LookupError: there is no such checkpoint.
        ValueError: nothing was published, this installation measures something else, or FID's weights are missing.
    """
    entry = entry_of(slug)
    if not entry["metrics"]:
        raise ValueError(f"{slug} was published without a measured value: there is nothing to verify")
    if inception_weights is None and any(m["name"] == "fid" for m in entry["metrics"]):
        raise ValueError(f"a published value of {slug} is FID: give the path of its inception_weights")
    model = load(slug, device=device)
    data = data_module(entry["data"], data_dir)
    results = []
    for metric in entry["metrics"]:
        measure, arguments = metric.get("measure", FRECHET), metric["arguments"]
        if measure == FRECHET:
            arguments = arguments | {"inception_weights": inception_weights if metric["name"] == "fid" else None}
        now = measured(model, data, measure, arguments)
        if now["protocol"] != metric["protocol"]:
            raise ValueError(
                f"{slug} was measured as {metric['protocol']}, this installation measures {now['protocol']}"
            )
        values = metric["value"], now["value"], metric["tolerance"]
        results.append(Verification(metric["name"], *values, metric["protocol"], metric.get("unit", "")))
    return results
