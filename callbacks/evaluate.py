"""Several metrics of generated images while a model trains, from one pass over them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from torch import nn

from zoo.callbacks.base import Result, evaluating
from zoo.callbacks.base.measuring import MeasuringCallback
from zoo.callbacks.extractors import load_extractor
from zoo.callbacks.measures.image_metrics import IMAGE_METRICS, USUAL, chosen, image_metrics

__all__ = ["Evaluate"]


class Evaluate(MeasuringCallback):
    """Compares generated images with real ones while a model trains, by several metrics of the same features.

    The values are those of `zoo.callbacks.measures.image_metrics`, logged under the metrics' names: with Inception's
    features fid, kid and is, with any others fd, kd and cs. The best checkpoint can follow any of them:
    `ModelCheckpoint(monitor="fd")`, with `every_n_train_steps` or `every_n_epochs` as here.

    Args:
        metrics: names in `zoo.callbacks.measures.IMAGE_METRICS`; `best` is of the first.
        extractor: as for `image_metrics`.
        split: split of the real images.
        num_samples: number of generated images; None for as many as the split has, at most 10,000 (50,000 with
            Inception).
        seed: seed of the generated images.
        options: further options of `image_metrics`: num_real, statistics, chunk_size, cache_dir, resolution.
        schedule: those of `MeasuringCallback`.

    Raises:
        ValueError: there is no such metric or option; at the start of a fit, if an option has no such value.
        TypeError: at the start of a fit, if the model or the DataModule lacks a method.
        ModuleNotFoundError: at the start of a fit, if the extractor's packages are not installed.
    """

    measure = image_metrics.name

    def __init__(
        self,
        metrics: Sequence[str] = USUAL,
        *,
        extractor: str | nn.Module | None = None,
        split: str = "train",
        num_samples: int | None = None,
        seed: int = 0,
        options: dict[str, Any] | None = None,
        **schedule: Any,
    ) -> None:
        super().__init__(**schedule)
        names, wanted = chosen(metrics, extractor)
        image_metrics.check_options(options or {})
        self.arguments = {
            "metrics": names,
            "extractor": wanted,
            "split": split,
            "num_samples": num_samples,
            "seed": seed,
            **(options or {}),
        }
        self.higher_is_better = IMAGE_METRICS[names[0]].better == "higher"
        self._name = getattr(wanted, "name", str(wanted))

    @property
    def identity(self) -> dict[str, Any]:
        """What tells several of these callbacks apart."""
        return {k: v for k, v in {**self.arguments, "extractor": self._name}.items() if k != "cache_dir"}

    @property
    def state_key(self) -> str:
        """Name in a checkpoint."""
        return self._generate_state_key(**self.identity)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check model, data and extractor before any time is spent."""
        if stage == "fit":
            image_metrics.check(pl_module, getattr(trainer, "datamodule", None), **self.arguments)
            with evaluating(pl_module, 0):  # building a network draws random numbers
                self.arguments["extractor"] = load_extractor(self.arguments["extractor"])

    def evaluate(self, trainer: Trainer, model: LightningModule) -> list[Result]:
        """Measure now."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        progress = trainer.progress_bar_callback is not None
        return image_metrics(model, data, progress=progress, **self.arguments)
