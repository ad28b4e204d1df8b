"""The Fréchet distance while a model trains."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule, Trainer

from zoo.callbacks.base import Result, evaluating
from zoo.callbacks.base.measuring import MeasuringCallback
from zoo.callbacks.extractors import EfficientNetLite0, load_extractor
from zoo.callbacks.measures.frechet import frechet_distance

__all__ = ["FrechetDistance"]


class FrechetDistance(MeasuringCallback):
    """Measures the Fréchet distance while a model trains; logs `fd`, or `fid` with Inception weights.

    The values are those of `zoo.callbacks.measures.frechet_distance`. The best checkpoint can follow them:
    `ModelCheckpoint(monitor="fd")`, with `every_n_train_steps` or `every_n_epochs` as here.

    Args:
        every_n_epochs: epochs between values; None measures at no epoch.
        every_n_steps: training steps between values; None measures at no step.
        at_start: measure the untrained model.
        at_end: measure the trained model.
        options: those of `frechet_distance`: num_samples, extractor, inception_weights, num_real, statistics, split,
            seed, chunk_size, cache_dir, resolution.

    Raises:
        TypeError: at the start of a fit, if the model or the DataModule lacks a method, or a resolution is given and
            the model does not grow.
        ValueError: there is no such option; at the start of a fit, if an option has no such value.
        ModuleNotFoundError: at the start of a fit, if the extractor's packages are not installed.
    """

    def __init__(
        self,
        every_n_epochs: int | None = None,
        every_n_steps: int | None = None,
        *,
        at_start: bool = False,
        at_end: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(every_n_epochs, every_n_steps, at_start=at_start, at_end=at_end)
        frechet_distance.check_options(options)
        self.options = options
        extractor = self.options.setdefault("extractor", EfficientNetLite0.name)
        name = "inception" if self.options.get("inception_weights") else getattr(extractor, "name", extractor)
        self._key = {"extractor": name}
        if self.options.get("resolution") is not None:
            self._key["resolution"] = str(self.options["resolution"])

    @property
    def state_key(self) -> str:
        """Tells several of these callbacks apart in a checkpoint."""
        return self._generate_state_key(**self._key)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check model, data and extractor before any time is spent."""
        if stage == "fit":
            frechet_distance.check(pl_module, getattr(trainer, "datamodule", None), **self.options)
            with evaluating(pl_module, 0):  # building a network draws random numbers
                network = load_extractor(self.options["extractor"], self.options.pop("inception_weights", None))
            self.options["extractor"] = network

    def evaluate(self, trainer: Trainer, model: LightningModule) -> Result:
        """Measure now."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        progress = trainer.progress_bar_callback is not None
        return frechet_distance(model, data, device=None, progress=progress, **self.options)
