from __future__ import annotations

import math
from typing import Any

import pytest

from tests.contract import Data, trainer
from zoo.base import Batch, SingleObjectiveModel, Terms
from zoo.nn.schedules import Decay


class Line(SingleObjectiveModel):
    """A model of one number, with a schedule."""

    def __init__(self, decay: Decay | dict[str, Any] | None = None) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.decay = Decay.of(decay)


@pytest.mark.parametrize(
    ("decay", "expected"),
    [
        (Decay("linear", constant=2, length=4), [1, 1, 1, 0.75, 0.5, 0.25, 0, 0]),
        (Decay("linear", length=4, final=0.5), [1, 0.875, 0.75, 0.625, 0.5, 0.5, 0.5, 0.5]),
        (Decay("linear", warmup=4, constant=9, length=1), [0.25, 0.5, 0.75, 1, 1, 1, 1, 1]),
        (Decay("exponential", length=2, final=0.25), [0.5**t for t in range(8)]),
        (Decay("milestones", milestones={2: 0.5, 5: 0.1}), [1, 1, 0.5, 0.5, 0.5, 0.1, 0.1, 0.1]),
        (Decay("repeated", every=3), [1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25]),
    ],
)
def test_factors_by_step(decay: Decay, expected: list[float]) -> None:
    assert [decay(t) for t in range(8)] == pytest.approx(expected)
    assert decay.follows_the_run is False


def test_a_fall_without_a_length_takes_the_whole_run() -> None:
    for decay in (Decay("linear"), Decay("exponential", final=0.01)):
        assert decay.follows_the_run
        assert (decay(0, 8), decay(8, 8)) == pytest.approx((1, decay.final))
        assert decay(1000, math.inf) == 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "cosine"}, "kind must be linear, exponential, milestones or repeated, not 'cosine'"),
        ({"kind": "exponential"}, "needs a final factor above 0"),
        ({"kind": "linear", "constant": -1}, "must be at least 0"),
        ({"kind": "repeated", "every": 0}, "every at least 1"),
        ({"kind": "linear", "lenght": 3}, "decay has no field 'lenght': take kind, unit"),
    ],
)
def test_fields_that_cannot_be_are_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Decay.of(fields)


def test_a_model_keeps_the_fields_that_differ_from_their_defaults() -> None:
    given = Decay("milestones", "epochs", milestones={3: 0.5})
    model = Line(given)
    kept = {"kind": "milestones", "unit": "epochs", "milestones": {3: 0.5}}
    assert model.hparams["decay"] == model.hparams_initial["decay"] == kept
    assert Line(**model.hparams).decay == given
    # Files in JSON hold names of strings.
    assert Decay.of(kept | {"milestones": {"3": 0.5}}) == given
    assert Line().hparams["decay"] is None


@pytest.mark.parametrize(
    ("decay", "expected"),
    [
        (None, [1, 1, 1, 1]),
        (Decay("linear"), [1, 0.75, 0.5, 0.25]),
        (Decay("linear", "epochs"), [1, 1, 0.5, 0.5]),
        (Decay("linear", length=2), [1, 0.5, 0, 0]),
    ],
)
def test_rates_in_a_run_of_two_epochs_of_two_steps(decay: Decay | None, expected: list[float]) -> None:
    import torch

    rates: list[float] = []

    class Falling(Line):
        def __init__(self) -> None:
            super().__init__(decay)
            self.weight = torch.nn.Parameter(torch.zeros(()))

        def objective(self, batch: Batch) -> Terms:
            rates.append(self.decayed(1.0, self.decay, self.batch_index))
            return {"loss": self.weight.square()}

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return self.adam(self.parameters(), 0.1)

    batches: list[Batch] = [{"image": torch.zeros(2, 1, 2, 2)}] * 2
    trainer(max_epochs=2).fit(Falling(), datamodule=Data(batches))
    assert rates == pytest.approx(expected)
