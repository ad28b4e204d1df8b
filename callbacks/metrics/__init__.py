"""Metrics of generative models as torchmetrics Metrics, and the networks whose features they compare."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.callbacks.metrics.extractors import EfficientNetLite0 as EfficientNetLite0
    from zoo.callbacks.metrics.extractors import InceptionV3 as InceptionV3
    from zoo.callbacks.metrics.frechet import FrechetMetric as FrechetMetric
    from zoo.callbacks.metrics.frechet import gaussian_distance as gaussian_distance
    from zoo.callbacks.metrics.paired import PairedSimilarity as PairedSimilarity
    from zoo.callbacks.metrics.patches import MaskIoU as MaskIoU
    from zoo.callbacks.metrics.patches import NearestPatch as NearestPatch

_EXPORTS = {
    "EfficientNetLite0": "zoo.callbacks.metrics.extractors",
    "FrechetMetric": "zoo.callbacks.metrics.frechet",
    "InceptionV3": "zoo.callbacks.metrics.extractors",
    "MaskIoU": "zoo.callbacks.metrics.patches",
    "NearestPatch": "zoo.callbacks.metrics.patches",
    "PairedSimilarity": "zoo.callbacks.metrics.paired",
    "gaussian_distance": "zoo.callbacks.metrics.frechet",
}
__all__ = sorted(_EXPORTS)


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'zoo.callbacks.metrics' has no attribute {name!r}")
    return getattr(import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return __all__
