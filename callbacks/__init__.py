"""Monitoring of generative models in training: sample grids, Fréchet distance, latent walks.

A callback asks of a model only the methods that its Protocol in `zoo.callbacks.base` names, and leaves the run as it
was: with and without it the final weights are the same, bit for bit.
"""

from __future__ import annotations

if __name__ != "zoo.callbacks":
    raise ImportError(
        "generative-zoo's callbacks are imported as `zoo.callbacks`: `from zoo.callbacks import SampleGrid`"
    )

from typing import TYPE_CHECKING

from zoo.engine.lazy import lazy_exports

if TYPE_CHECKING:
    from zoo.callbacks.budget import Budget as Budget
    from zoo.callbacks.completion import Completion as Completion
    from zoo.callbacks.evaluate import Evaluate as Evaluate
    from zoo.callbacks.frechet_distance import FrechetDistance as FrechetDistance
    from zoo.callbacks.interpolation import Interpolation as Interpolation
    from zoo.callbacks.latent_scatter import LatentScatter as LatentScatter
    from zoo.callbacks.latent_traversal import LatentTraversal as LatentTraversal
    from zoo.callbacks.measure import Measure as Measure
    from zoo.callbacks.patch_sheet import PatchSheet as PatchSheet
    from zoo.callbacks.prompt_sheet import PromptSheet as PromptSheet
    from zoo.callbacks.reconstruction import Reconstruction as Reconstruction
    from zoo.callbacks.sample_grid import SampleGrid as SampleGrid
    from zoo.callbacks.translation_sheet import TranslationSheet as TranslationSheet

_EXPORTS = {
    "Budget": "zoo.callbacks.budget",
    "Completion": "zoo.callbacks.completion",
    "Evaluate": "zoo.callbacks.evaluate",
    "FrechetDistance": "zoo.callbacks.frechet_distance",
    "Interpolation": "zoo.callbacks.interpolation",
    "LatentScatter": "zoo.callbacks.latent_scatter",
    "LatentTraversal": "zoo.callbacks.latent_traversal",
    "Measure": "zoo.callbacks.measure",
    "PatchSheet": "zoo.callbacks.patch_sheet",
    "PromptSheet": "zoo.callbacks.prompt_sheet",
    "Reconstruction": "zoo.callbacks.reconstruction",
    "SampleGrid": "zoo.callbacks.sample_grid",
    "TranslationSheet": "zoo.callbacks.translation_sheet",
}
__all__ = sorted(_EXPORTS)
__getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)
