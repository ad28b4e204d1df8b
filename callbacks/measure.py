"""Measures beside the Fréchet distance while a model trains."""

from __future__ import annotations

import difflib
import inspect
from typing import Any, Literal, get_args, get_origin, get_type_hints

from lightning.pytorch import LightningModule, Trainer

from zoo.callbacks import base, measures
from zoo.callbacks.base import Result
from zoo.callbacks.measures import HIGHER_IS_BETTER, MEASURES
from zoo.callbacks.measuring import MeasuringCallback

__all__ = ["Measure"]

# What each measure asks of a model, and some of a DataModule: looked at before a run, not after it.
NEEDS = {
    "auroc": base.Scores,
    "beta_vae_metric": base.Encodes,
    "bits_per_dim": base.GivesLogProb,
    "caption_accuracy": base.ComparesSets,
    "class_error": base.Classifies,
    "cycle_error": base.Translates,
    "domain_accuracy": base.Translates,
    "elbo": base.GivesLogWeights,
    "iw_nll": base.GivesLogWeights,
    "knn": base.Encodes,
    "linear_probe": base.Encodes,
    "mask_iou": base.Assembles,
    "mig": base.Encodes,
    "ms_ssim": base.Samples,
    "nll": base.GivesLogProb,
    "noise_diversity": base.ComparesSets,
    "paired_l1": base.Translates,
    "paired_lpips": base.Translates,
    "paired_psnr": base.Translates,
    "paired_ssim": base.Translates,
    "parzen": base.Samples,
    "patch_error": base.Assembles,
    "r_precision": base.ComparesSets,
    "retrieval": base.Retrieves,
    "swd": base.ComparesSets,
    "translation_fd": base.Translates,
}
NEED_FACTORS = ("beta_vae_metric", "mig")


class Measure(MeasuringCallback):
    """Measures a value of the model by name, such as "class_error": see `zoo.callbacks.measures`.

    The value is logged under its name and printed with its protocol; the functions in `zoo.callbacks.measures` give the
    same value without a Trainer.

    Args:
        measure: a name in `zoo.callbacks.measures.MEASURES`.
        options: further arguments of the measure, such as {"matching": "hungarian"}.
        every_n_epochs: a value after each of so many epochs; None for none.
        every_n_steps: a value after each of so many training steps; None for none.
        at_start: a value of the untrained model.
        at_end: a value of the trained model.
        split: of the real images.
        num_samples: how many; None for what is usual for the measure.
        seed: seed of what the measure draws.

    Raises:
        ValueError: there is no such measure or option; at the start of a fit, no DataModule that an option names.
        TypeError: at the start of a fit, if the model or the DataModule lacks what the measure needs.
    """

    def __init__(
        self,
        measure: str,
        options: dict[str, Any] | None = None,
        every_n_epochs: int | None = None,
        every_n_steps: int | None = None,
        *,
        at_start: bool = False,
        at_end: bool = True,
        split: str = "test",
        num_samples: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(every_n_epochs, every_n_steps, at_start=at_start, at_end=at_end)
        if measure not in MEASURES:
            close = difflib.get_close_matches(measure, MEASURES, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"take one of {', '.join(MEASURES)}"
            raise ValueError(f"there is no measure {measure!r}: {hint}")
        known = set(inspect.signature(MEASURES[measure]).parameters) - {"model", "datamodule"}
        if unknown := sorted(set(options or {}) - known):
            raise ValueError(f"{measure} has no option {unknown[0]!r}: it has {', '.join(sorted(known))}")
        for name, hint in get_type_hints(MEASURES[measure]).items():
            value = (options or {}).get(name)
            if name in (options or {}) and get_origin(hint) is Literal and value not in get_args(hint):
                raise ValueError(f"{measure}: {name} must be one of {', '.join(get_args(hint))}, not {value!r}")
        self.measure = measure
        self.arguments = {"split": split, "num_samples": num_samples, "seed": seed, **(options or {})}
        self.higher_is_better = HIGHER_IS_BETTER[measure]

    @property
    def state_key(self) -> str:
        """Tells several of these callbacks apart in a checkpoint."""
        return self._generate_state_key(measure=self.measure, **self.arguments)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check model and data before any time is spent."""
        if stage != "fit":
            return
        asker, datamodule = f"Measure({self.measure})", getattr(trainer, "datamodule", None)
        base.require(pl_module, NEEDS[self.measure], asker)
        base.require(datamodule, base.HasReference, asker)
        if self.measure in NEED_FACTORS:
            base.require(datamodule, base.HasFactors, asker)
        if NEEDS[self.measure] is base.Assembles:
            base.require(datamodule, base.HasPatches, asker)
        if NEEDS[self.measure] is base.Translates:
            base.require(datamodule, base.HasTranslations, asker)
        if self.measure == "nll":
            measures.check_orderings(pl_module, self.arguments.get("num_orderings"))
        if self.measure == "auroc":
            chosen = {name: self.arguments[name] for name in ("other", "other_arguments") if name in self.arguments}
            unusual = measures.unusual_images(datamodule, **chosen)
            if trainer.is_global_zero:
                unusual.prepare_data()  # files that are missing should not be missed after the run

    def evaluate(self, trainer: Trainer, model: LightningModule) -> Result:
        """The value now."""
        return MEASURES[self.measure](model, trainer.datamodule, **self.arguments)  # type: ignore[attr-defined]
