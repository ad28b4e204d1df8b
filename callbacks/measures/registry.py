"""The decorator that makes a measure of a function, and all measures by name.

A measure of your own takes an `Evaluation` and its own options, and returns the value with its protocol:

    @measure(needs=Samples, better="higher", num_samples=1000)
    def brightness(at: Evaluation, *, threshold: float = 0.0) -> Result:
        \"""Share of the samples' pixels above a threshold.\"""
        metric = at.in_float64(MeanMetric())
        for first, n in at.draws():
            metric.update((at.model.sample(n, seed=at.seed, first=first) > threshold).float())
        return at.result(metric.compute(), threshold=threshold, samples=at.num_samples)

Then `brightness(model, datamodule)` measures, and so does the callback `Measure("brightness")`.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable
from typing import Any, Generic, Literal, TypeVar, get_args, get_origin, get_type_hints

from zoo.callbacks.base import (
    Assembles,
    ComparesSets,
    HasReference,
    Result,
    Samples,
    evaluating,
    require_protocol,
)
from zoo.callbacks.measures.evaluation import Evaluation
from zoo.engine.files import nearest

__all__ = ["MEASURES", "MeasureFunction", "find_measure", "measure"]


R = TypeVar("R", bound=Result | list[Result])


class MeasureFunction(Generic[R]):
    """A measure: a function of a model and a DataModule that needs no Trainer, and gives a value or several.

    Attributes:
        name: name of the measure.
        needs: Protocol of the model.
        data_needs: Protocol of the DataModule, in addition to `HasReference`.
        better: whether a lower or a higher value is better.
        unit: "%" for percentages, else nothing.
        split: usual split of the images.
        num_samples: usual number of images or draws; None for all images.
        draws: whether the value depends on the seed.
    """

    def __init__(
        self,
        function: Callable[..., R],
        needs: type,
        better: Literal["lower", "higher"],
        unit: Literal["", "%"],
        data_needs: type,
        split: str,
        num_samples: int | None,
        check: Callable[..., None] | None,
        draws: bool,
    ) -> None:
        functools.update_wrapper(self, function)
        self.__doc__ = _documented(function)
        self.name, self.function = function.__name__, function
        self.needs, self.data_needs, self.better, self.unit = needs, data_needs, better, unit
        self.split, self.num_samples, self._check = split, num_samples, check
        self.draws = draws or needs in DRAWING
        own = list(inspect.signature(function).parameters.values())[1:]
        kind = inspect.Parameter.KEYWORD_ONLY
        common = [
            inspect.Parameter("model", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=Any),
            inspect.Parameter("datamodule", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=Any),
            inspect.Parameter("split", kind, default=split, annotation=str),
            inspect.Parameter("num_samples", kind, default=num_samples, annotation=int | None),
            inspect.Parameter("seed", kind, default=0, annotation=int),
        ]
        self.__signature__ = inspect.Signature(
            [*common, *own], return_annotation=get_type_hints(function).get("return", Result)
        )

    def __call__(
        self,
        model: Any,
        datamodule: Any,
        *,
        split: str | None = None,
        num_samples: int | None = None,
        seed: int = 0,
        **options: Any,
    ) -> R:
        """Measure. The model and all random generators are left as they were; every rank must call this.

        Args:
            model: the model.
            datamodule: the DataModule.
            split: split of the images; None for the usual one.
            num_samples: number of images or draws; None for the usual one.
            seed: seed of what the measure draws.
            options: those of the measure.

        Raises:
            TypeError: the model or the DataModule lacks a method that the measure needs.
            ValueError: there is no such option, or an option has no such value.
        """
        at = self.check(model, datamodule, split=split, num_samples=num_samples, seed=seed, **options)
        with evaluating(model, seed):
            return self.function(at, **options)

    def check(
        self,
        model: Any,
        datamodule: Any,
        *,
        split: str | None = None,
        num_samples: int | None = None,
        seed: int = 0,
        **options: Any,
    ) -> Evaluation:
        """Refuse what cannot be measured before any time is spent; arguments and errors as for the call."""
        self.check_options(options)
        require_protocol(model, self.needs, self.name)
        require_protocol(datamodule, HasReference, self.name)
        require_protocol(datamodule, self.data_needs, self.name)
        number = self.num_samples if num_samples is None else num_samples
        at = Evaluation(self.name, model, datamodule, self.split if split is None else split, number, seed)
        if self._check is not None:
            self._check(at, **options)
        return at

    def check_options(self, options: dict[str, Any]) -> None:
        """Refuse options that the measure does not have.

        Raises:
            ValueError: there is no such option, or an option has no such value.
        """
        known = self.__signature__.parameters.keys() - {"model", "datamodule"}
        if unknown := sorted(options.keys() - known):
            raise ValueError(f"{self.name} has no option {unknown[0]!r}: {nearest(unknown[0], sorted(known))}")
        hints = get_type_hints(self.function)
        for name, value in options.items():
            choices = get_args(hints.get(name)) if get_origin(hints.get(name)) is Literal else (value,)
            if value not in choices:
                raise ValueError(f"{self.name}: {name} must be one of {', '.join(choices)}, not {value!r}")


DRAWING = (Assembles, ComparesSets, Samples)
"""What of a model takes a seed by which a value moves; `log_weights` are averaged over hundreds of draws per image."""

MEASURES: dict[str, MeasureFunction[Any]] = {}
"""All measures by name."""


COMMON = """
    model: the model.
    datamodule: the DataModule.
    split: split of the images.
    num_samples: number of images or draws; None for the usual number of the measure.
    seed: seed of what the measure draws."""


def _documented(function: Callable[..., Any]) -> str:
    """Docstring of a measure, with the arguments that all measures have."""
    text, _, own = inspect.cleandoc(function.__doc__ or "").partition("\n\nArgs:")
    return f"{text}\n\nArgs:{COMMON}{own}"


def find_measure(name: str) -> MeasureFunction[Any]:
    """A measure by name; one of your own by the path of its function, such as my_measures.sharpness.

    Raises:
        ValueError: there is none of that name.
    """
    module, _, own = name.rpartition(".")
    if module:
        try:
            found = getattr(importlib.import_module(module), own)
        except (ImportError, AttributeError) as error:
            raise ValueError(f"the measure {name} cannot be imported: {error}") from error
        if not isinstance(found, MeasureFunction):
            raise ValueError(f"{name} is no measure: decorate it with `@measure(...)` of zoo.callbacks.measures")
        return found
    if name not in MEASURES:
        raise ValueError(f"there is no measure {name!r}: {nearest(name, sorted(MEASURES))}")
    return MEASURES[name]


def measure(
    *,
    needs: type,
    better: Literal["lower", "higher"],
    unit: Literal["", "%"] = "",
    data_needs: type = HasReference,
    split: str = "test",
    num_samples: int | None = None,
    check: Callable[..., None] | None = None,
    draws: bool = False,
) -> Callable[[Callable[..., R]], MeasureFunction[R]]:
    """Make a measure of a function of an `Evaluation` and options, and enter it into `MEASURES` under its name.

    Args:
        needs: Protocol of the model.
        better: whether a lower or a higher value is better.
        unit: "%" for percentages.
        data_needs: Protocol of the DataModule, in addition to `HasReference`.
        split: usual split of the images.
        num_samples: usual number of images or draws; None for all images.
        check: called with the `Evaluation` and the given options before any time is spent; refuses what does not fit.
        draws: the measure itself draws by the seed, though the model does not.

    Raises:
        ValueError: there is another measure of that name.
    """

    def decorated(function: Callable[..., R]) -> MeasureFunction[R]:
        made = MeasureFunction(function, needs, better, unit, data_needs, split, num_samples, check, draws)
        before = MEASURES.get(made.name)
        if before is not None and before.__module__ != made.__module__:
            raise ValueError(f"there is a measure {made.name!r} already, in {before.__module__}: take another name")
        MEASURES[made.name] = made
        return made

    return decorated
