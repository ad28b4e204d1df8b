from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch

from tests.contract import Data, trainer
from zoo.nn.schedules import Decay
from zoo.vae import VAE


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"kind": "linear", "length": 4}, [1, 0.75, 0.5, 0.25, 0, 0]),
        ({"kind": "linear", "length": 2, "constant": 3, "final": 0.5}, [1, 1, 1, 1, 0.75, 0.5]),
        ({"kind": "linear", "length": 10, "warmup": 2}, [0.5, 0.9, 0.8, 0.7, 0.6, 0.5]),
        ({"kind": "exponential", "final": 0.01, "length": 2}, [1, 0.1, 0.01, 0.001, 1e-4, 1e-5]),
        ({"kind": "milestones", "milestones": {2: 0.5, 4: 0.1}}, [1, 1, 0.5, 0.5, 0.1, 0.1]),
        ({"kind": "repeated", "divisor": 2.0, "every": 2}, [1, 1, 0.5, 0.5, 0.25, 0.25]),
    ],
)
def test_factors_by_hand(fields: dict[str, Any], expected: list[float]) -> None:
    decay = Decay(**fields)
    assert [decay(t) for t in range(6)] == pytest.approx(expected)


def test_without_a_length_the_fall_takes_the_whole_run() -> None:
    assert Decay("linear")(3, 12) == 0.75
    assert Decay("exponential", final=0.01)(6, 12) == pytest.approx(0.1)
    assert Decay("exponential", final=0.01)(6, math.inf) == 1


def test_a_schedule_comes_back_from_json() -> None:
    decay = Decay("milestones", unit="epochs", milestones={30: 0.5})
    assert Decay.of(json.loads(json.dumps(decay.fields()))) == decay
    assert Decay.of(decay) is decay
    assert Decay.of(None) is None


def test_wrong_schedules_are_named() -> None:
    for fields, message in (
        ({"kind": "cosine"}, "kind must be linear, exponential, milestones or repeated, not 'cosine'"),
        ({"kind": "exponential"}, "needs a final factor above 0"),
        ({"kind": "linear", "length": -1}, "must be at least 0"),
    ):
        with pytest.raises(ValueError, match=message):
            Decay(**fields)


@pytest.mark.parametrize("unit", ["steps", "epochs"])
def test_a_model_with_one_objective_has_the_rates_of_its_schedule(unit: Any) -> None:
    decay = Decay("milestones", unit=unit, milestones={1: 0.5, 2: 0.1})
    model = VAE(8, 1, 3, hidden_features=(4,), decay=decay)
    rates = []

    class Watch(VAE):
        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            rates.append(self.trainer.optimizers[0].param_groups[0]["lr"])
            return super().training_step(batch, batch_idx)

    model.__class__ = Watch
    trainer(max_epochs=3).fit(model, datamodule=Data([{"image": 2 * torch.rand(2, 1, 8, 8) - 1}] * 2))
    assert rates == pytest.approx(
        [1e-3, 5e-4, 1e-4, 1e-4, 1e-4, 1e-4] if unit == "steps" else [1e-3, 1e-3, 5e-4, 5e-4, 1e-4, 1e-4]
    )
    assert VAE(**model.hparams).decay == decay
    assert type(model.hparams["decay"]) is dict


def test_a_field_that_does_not_exist_is_named() -> None:
    with pytest.raises(ValueError, match="decay has no field 'lenght': take kind, unit, "):
        Decay.of({"kind": "linear", "lenght": 3})


def test_a_model_keeps_the_fields_that_differ_from_their_defaults() -> None:
    model = VAE(8, 1, 3, hidden_features=(4,), decay=Decay("linear", "epochs", length=3))
    expected = {"kind": "linear", "unit": "epochs", "length": 3}
    assert model.hparams["decay"] == model.hparams_initial["decay"] == expected
