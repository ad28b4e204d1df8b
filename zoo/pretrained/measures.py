"""What the callbacks of a configuration measure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from zoo.callbacks.evaluate import Evaluate
from zoo.callbacks.measure import Measure
from zoo.callbacks.measures import MEASURES

__all__ = ["FRECHET", "Configured", "configured_measures"]

FRECHET = "frechet_distance"


class Configured(NamedTuple):
    """A measure that a callback takes.

    Attributes:
        measure: name of the measure.
        arguments: its arguments.
        callback: name of the callback's class.
        identity: what tells the callback from others of its class in a checkpoint.
    """

    measure: str
    arguments: dict[str, Any]
    callback: str
    identity: dict[str, Any]


def configured_measures(config: dict[str, Any]) -> Iterator[Configured]:
    """All that the callbacks of a configuration measure.

    A distance that is measured along the way is left out where `Evaluate` measures the same at the end.

    Args:
        config: the configuration of a run.
    """
    callbacks = config["trainer"]["callbacks"] or []
    callbacks = callbacks if isinstance(callbacks, list) else [callbacks]
    kinds = [callback["class_path"].rpartition(".")[2] for callback in callbacks]
    for kind, callback in zip(kinds, callbacks, strict=True):
        settings = callback.get("init_args", {})
        # A module of the user's own as extractor is not at hand where the value is verified.
        if not isinstance(settings.get("extractor") or "", str):
            continue
        if kind == "FrechetDistance" and ("Evaluate" not in kinds or settings.get("resolution")):
            # A configuration holds the options that were given, those of earlier versions hold all.
            options = ("num_samples", "extractor", "inception_weights", "split", "seed", "chunk_size")
            defaults = MEASURES[FRECHET].__signature__.parameters
            arguments = {k: settings.get(k, defaults[k].default) for k in options}
            name = "inception" if arguments["inception_weights"] else arguments["extractor"]
            yield Configured(FRECHET, arguments, kind, {"extractor": name})
        elif kind in ("Measure", "Evaluate"):
            own: Any = Measure(**settings) if kind == "Measure" else Evaluate(**settings)
            yield Configured(own.measure, own.arguments, kind, own.identity)
