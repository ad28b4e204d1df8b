"""Every numeric option of every model, DataModule and callback is refused out of its range, by name."""

from __future__ import annotations

import copy
import inspect
import math
import pickle
from collections.abc import Iterator
from typing import Any

import pytest

import zoo
from zoo import callbacks, datamodules
from zoo.engine.ranges import RANGES, Range, numeric_options, range_of

KINDS: dict[str, type] = {
    name: kind
    for module, names in ((zoo, zoo.ARCHITECTURES), (datamodules, datamodules.__all__), (callbacks, callbacks.__all__))
    for name in names
    if inspect.isclass(kind := getattr(module, name)) and hasattr(kind, "__new__") and numeric_options(kind)
}


def declared(kind: type) -> Iterator[inspect.Parameter]:
    """Parameters of a class's own constructor and of those that it passes options to."""
    for base in kind.__mro__:
        if base.__module__.startswith("zoo.") and "__init__" in base.__dict__:
            yield from inspect.signature(base.__init__).parameters.values()  # type: ignore[misc]


def outside(allowed: Range) -> list[Any]:
    """Values that are not in a range."""
    values: list[Any] = [allowed.low - 1, math.nan, math.inf, True]
    values += [allowed.low] if allowed.above else []
    values += [allowed.high if allowed.below else allowed.high + 1] if allowed.high < math.inf else []
    return values + ([allowed.low + 0.5] if allowed.whole else [])


@pytest.mark.parametrize("name", KINDS)
def test_numbers_out_of_range_are_refused(name: str) -> None:
    kind = KINDS[name]
    for option in numeric_options(kind):
        allowed = range_of(kind, option)
        assert allowed is not None
        for value in outside(allowed):
            with pytest.raises(ValueError, match=rf"^{name}: {option} must ") as caught:
                kind(**{option: value})
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", KINDS)
def test_every_numeric_option_has_a_range(name: str) -> None:
    for parameter in declared(KINDS[name]):
        words = set(str(parameter.annotation).replace("[", " ").replace("]", " ").replace(",", " ").split())
        if words & {"int", "float"}:
            assert range_of(KINDS[name], parameter.name) is not None, parameter


def test_every_range_is_of_an_option() -> None:
    known = {option for kind in KINDS.values() for option in numeric_options(kind)}
    assert {name.rpartition(".")[2] for name in RANGES} <= known


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((0,), {}), "DCGAN: image_size must lie in [1, 8192], not 0"),
        (((32, 3, 0), {}), "DCGAN: latent_dim must lie in [1, 1048576], not 0"),
        (((), {"ema_decay": 2}), "DCGAN: ema_decay must lie in [0, 1), not 2"),
        (((), {"betas": (0.5, 1.0)}), "DCGAN: betas must lie in [0, 1), not 1.0"),
        (((), {"accumulate": 1.5}), "DCGAN: accumulate must be a whole number at least 1, not 1.5"),
    ],
)
def test_messages(arguments: Any, message: str) -> None:
    args, kwargs = arguments
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        zoo.DCGAN(*args, **kwargs)
    assert str(caught.value) == message


def test_options_of_a_users_own_class_are_its_own() -> None:
    class Mine(zoo.DCGAN):
        def __init__(self, share: float = 5.0, **options: Any) -> None:
            super().__init__(8, base_channels=4, **options)
            self.share = share

    assert Mine(share=7.0).share == 7.0
    with pytest.raises(ValueError, match=r"^Mine: latent_dim must"):
        Mine(latent_dim=0)


def test_copies_need_no_arguments() -> None:
    model = zoo.DCGAN(8, base_channels=4)
    assert copy.deepcopy(model).hparams == model.hparams
    assert pickle.loads(pickle.dumps(model)).hparams == model.hparams
