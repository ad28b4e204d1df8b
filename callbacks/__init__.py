"""Monitoring of generative models in training: sample grids, Fréchet distance, latent walks.

A callback asks of a model only the methods that its Protocol in `callbacks.base` names, and leaves the run as it was:
with and without it the final weights are the same, bit for bit.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from callbacks.completion import Completion as Completion
    from callbacks.frechet_distance import FrechetDistance as FrechetDistance
    from callbacks.interpolation import Interpolation as Interpolation
    from callbacks.latent_scatter import LatentScatter as LatentScatter
    from callbacks.latent_traversal import LatentTraversal as LatentTraversal
    from callbacks.measure import Measure as Measure
    from callbacks.patch_sheet import PatchSheet as PatchSheet
    from callbacks.prompt_sheet import PromptSheet as PromptSheet
    from callbacks.reconstruction import Reconstruction as Reconstruction
    from callbacks.sample_grid import SampleGrid as SampleGrid
    from callbacks.translation_sheet import TranslationSheet as TranslationSheet

_EXPORTS = {
    "Completion": "callbacks.completion",
    "FrechetDistance": "callbacks.frechet_distance",
    "Interpolation": "callbacks.interpolation",
    "LatentScatter": "callbacks.latent_scatter",
    "LatentTraversal": "callbacks.latent_traversal",
    "Measure": "callbacks.measure",
    "PatchSheet": "callbacks.patch_sheet",
    "PromptSheet": "callbacks.prompt_sheet",
    "Reconstruction": "callbacks.reconstruction",
    "SampleGrid": "callbacks.sample_grid",
    "TranslationSheet": "callbacks.translation_sheet",
}
__all__ = sorted(_EXPORTS)


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'callbacks' has no attribute {name!r}")
    return getattr(import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return __all__
