"""The ranges of all numeric options, checked in one place when a model, a DataModule or a callback is constructed."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Self

__all__ = ["CheckedOptions", "Range", "numeric_options", "range_of"]


@dataclass(frozen=True)
class Range:
    """An interval of numbers.

    Attributes:
        low: least number.
        high: largest number.
        whole: whole numbers only.
        above: `low` itself is left out.
        below: `high` itself is left out.
    """

    low: float
    high: float = math.inf
    whole: bool = False
    above: bool = False
    below: bool = False

    def __contains__(self, value: object) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        if not math.isfinite(value) or (self.whole and value != int(value)):
            return False
        return (self.low < value if self.above else self.low <= value) and (
            value < self.high if self.below else value <= self.high
        )

    def refuse(self, value: object) -> str:
        """What a value that is not in the range should be, and what it is."""
        kind = "a whole number " if self.whole and not isinstance(value, int) else ""
        if self.high == math.inf:
            return f"must be {kind}{'above' if self.above else 'at least'} {self.low:g}, not {value!r}"
        low, high = "(" if self.above else "[", ")" if self.below else "]"
        return (
            f"must lie in {low}{self.low:.12g}, {self.high:.12g}{high}{' and be whole' if kind else ''}, not {value!r}"
        )


COUNT = Range(1, whole=True)
FROM_ZERO = Range(0, whole=True)
SIDE = Range(1, 8192, whole=True)
WIDTH = Range(1, 2**20, whole=True)
POSITIVE = Range(0, above=True)
NOT_NEGATIVE = Range(0)
SHARE = Range(0, 1, below=True)
INSIDE = Range(0, 1, above=True, below=True)

RANGES: dict[str, Range] = {
    # Sizes and widths: beyond these no machine holds the networks.
    **dict.fromkeys(("image_size", "small_size", "load_size"), SIDE),
    **dict.fromkeys(("image_channels",), Range(1, 1024, whole=True)),
    **dict.fromkeys(
        (
            "base_channels",
            "channels",
            "discriminator_channels",
            "discriminator_features",
            "embedding_dim",
            "features",
            "fmap_base",
            "head_channels",
            "hidden_channels",
            "hidden_features",
            "latent_dim",
            "max_channels",
            "text_features",
        ),
        WIDTH,
    ),
    # Numbers of things.
    **dict.fromkeys(
        (
            "accumulate",
            "average",
            "batch_size",
            "capacity_steps",
            "categorical_codes",
            "columns",
            "crop",
            "discriminator_layers",
            "every_n_epochs",
            "every_n_steps",
            "frames",
            "gif_frames",
            "images",
            "labelled_batch_size",
            "max_codes",
            "max_length",
            "maxout_pieces",
            "n_critic",
            "num_blocks",
            "num_completions",
            "num_components",
            "num_heads",
            "num_images",
            "num_labelled",
            "num_layers",
            "num_noises",
            "num_patches",
            "num_rows",
            "num_samples",
            "num_walks",
            "penalty_every",
            "pools_per_process",
            "proposals",
            "step_every",
            "weight_epochs",
        ),
        COUNT,
    ),
    "num_classes": COUNT,
    **dict.fromkeys(
        (
            "CycleGAN.discriminator_layers",
            "head_layers",
            "max_shift",
            "minibatch_stddev_group",
            "num_continuous",
            "num_workers",
            "pool_size",
            "pretraining_steps",
            "looks",
            "val_orderings",
        ),
        FROM_ZERO,
    ),
    **dict.fromkeys(("num_levels", "steps", "Interpolation.columns", "Interpolation.frames"), Range(2, whole=True)),
    "LatentScatter.num_images": Range(2, whole=True),
    "num_levels": Range(2, 65536, whole=True),
    "seed": Range(0, 2**63 - 1, whole=True),
    # Rates, weights, shares.
    **dict.fromkeys(
        (
            "gradient_clip",
            "gradient_target",
            "limit",
            "prior_std",
            "weight_std",
        ),
        POSITIVE,
    ),
    **dict.fromkeys(
        (
            "adversarial_learning_rate",
            "beta",
            "capacity",
            "category_weight",
            "class_noise_std",
            "classification_learning_rate",
            "classification_weight",
            "continuous_weight",
            "cycle_weight",
            "discriminator_learning_rate",
            "diversity_weight",
            "gamma",
            "generator_learning_rate",
            "gif_seconds",
            "identity_ratio",
            "input_noise_std",
            "interpolation_weight",
            "learning_rate",
            "negative_slope",
            "penalty_weight",
            "reconstruction_learning_rate",
            "reconstruction_weight",
            "weight_decay",
        ),
        NOT_NEGATIVE,
    ),
    "diversity_limit": POSITIVE,
    "l1_weight": POSITIVE,
    "minutes": POSITIVE,
    "near": Range(0, 1),
    **dict.fromkeys(("betas", "ema_decay", "label_smoothing", "mismatch_weight", "test_share", "val_share"), SHARE),
    "share": INSIDE,
}
"""By the name of the option, which means the same everywhere, or by class and name where it does not."""


def range_of(kind: type, name: str) -> Range | None:
    """The range of an option of a class; None for options that are no numbers.

    Args:
        kind: the class.
        name: name of the option.
    """
    own = (RANGES.get(f"{base.__name__}.{name}") for base in kind.__mro__)
    return next((found for found in own if found is not None), RANGES.get(name))


class CheckedOptions:
    """A class whose numeric options are checked against their ranges before anything is built."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Refuse an option out of its range, in a line that names class, option, range and value."""
        for name, value in _given(cls, args, kwargs):
            if (allowed := range_of(cls, name)) is not None and value not in allowed:
                raise ValueError(f"{cls.__name__}: {name} {allowed.refuse(value)}")
        return super().__new__(cls)


@cache
def numeric_options(kind: type) -> frozenset[str]:
    """Options of the package's own constructors of a class that have a range.

    Args:
        kind: the class; a user's own class has those that it inherits.
    """
    names: set[str] = set()
    for base in kind.__mro__:
        if base.__module__.startswith("zoo.") and "__init__" in base.__dict__:
            names |= inspect.signature(base.__init__).parameters.keys()  # type: ignore[misc]
    return frozenset(name for name in names if range_of(kind, name) is not None)


def _given(kind: type, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """All numbers among the arguments, by the name of their option."""
    if args:
        try:
            kwargs = {**inspect.signature(kind).bind_partial(*args).arguments, **kwargs}
        except (TypeError, ValueError):  # the constructor will say so
            return
    for name in numeric_options(kind) & kwargs.keys():
        value = kwargs[name]
        if value is None or isinstance(value, str):
            continue  # an option that is off, or a path
        if isinstance(value, Mapping):
            yield from ((name, number) for number in value.values())
        elif isinstance(value, list | tuple):
            yield from ((name, number) for number in value)
        else:
            yield name, value
