"""Metrics of generative models as torchmetrics Metrics, and the networks whose features they compare."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoo.engine.lazy import lazy_exports

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
__getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)
