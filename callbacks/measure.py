"""Measures while a model trains."""

from __future__ import annotations

from typing import Any, cast

from lightning.pytorch import LightningModule, Trainer

from zoo.callbacks.base import Result
from zoo.callbacks.base.measuring import MeasuringCallback
from zoo.callbacks.measures import find_measure

__all__ = ["Measure"]


class Measure(MeasuringCallback):
    """Measures a value of the model by name, such as "class_error": see `zoo.callbacks.measures`.

    The value is logged under its name and printed with its protocol; the functions in `zoo.callbacks.measures` give the
    same value without a Trainer.

    Args:
        measure: a name in `zoo.callbacks.measures.MEASURES`.
        options: further arguments of the measure, such as {"matching": "hungarian"}.
        split: split of the images.
        num_samples: number of images or draws; None for the usual number of the measure.
        seed: seed of what the measure draws.
        schedule: those of `MeasuringCallback`.

    Raises:
        ValueError: there is no such measure or option; at the start of a fit, no DataModule that an option names.
        TypeError: at the start of a fit, if the model or the DataModule lacks what the measure needs.
    """

    def __init__(
        self,
        measure: str,
        options: dict[str, Any] | None = None,
        *,
        split: str = "test",
        num_samples: int | None = None,
        seed: int = 0,
        **schedule: Any,
    ) -> None:
        super().__init__(**schedule)
        self.function = find_measure(measure)
        self.function.check_options(options or {})
        self.measure = measure
        self.arguments = {"split": split, "num_samples": num_samples, "seed": seed, **(options or {})}
        self.higher_is_better = self.function.better == "higher"

    @property
    def identity(self) -> dict[str, Any]:
        """What tells several of these callbacks apart."""
        return {"measure": self.measure, **self.arguments}

    @property
    def state_key(self) -> str:
        """Name in a checkpoint."""
        return self._generate_state_key(**self.identity)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check model and data before any time is spent."""
        if stage == "fit":
            self.function.check(pl_module, getattr(trainer, "datamodule", None), **self.arguments)

    def evaluate(self, trainer: Trainer, model: LightningModule) -> Result | list[Result]:
        """Measure now."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        return cast("Result | list[Result]", self.function(model, data, **self.arguments))
