"""Metrics of generative models as torchmetrics Metrics, and the networks whose features they compare."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from callbacks.metrics.extractors import EfficientNetLite0 as EfficientNetLite0
    from callbacks.metrics.extractors import InceptionV3 as InceptionV3
    from callbacks.metrics.frechet import FrechetMetric as FrechetMetric
    from callbacks.metrics.frechet import gaussian_distance as gaussian_distance
    from callbacks.metrics.paired import PairedSimilarity as PairedSimilarity
    from callbacks.metrics.patches import MaskIoU as MaskIoU
    from callbacks.metrics.patches import NearestPatch as NearestPatch

_EXPORTS = {
    "EfficientNetLite0": "callbacks.metrics.extractors",
    "FrechetMetric": "callbacks.metrics.frechet",
    "InceptionV3": "callbacks.metrics.extractors",
    "MaskIoU": "callbacks.metrics.patches",
    "NearestPatch": "callbacks.metrics.patches",
    "PairedSimilarity": "callbacks.metrics.paired",
    "gaussian_distance": "callbacks.metrics.frechet",
}
__all__ = sorted(_EXPORTS)


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'callbacks.metrics' has no attribute {name!r}")
    return getattr(import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return __all__
