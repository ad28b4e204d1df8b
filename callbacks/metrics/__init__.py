"""Metrics of generative models as torchmetrics Metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoo.engine.lazy import lazy_exports

if TYPE_CHECKING:
    from zoo.callbacks.metrics.bank import FeatureBank as FeatureBank
    from zoo.callbacks.metrics.class_score import ClassScore as ClassScore
    from zoo.callbacks.metrics.frechet import FrechetInfinity as FrechetInfinity
    from zoo.callbacks.metrics.frechet import FrechetMetric as FrechetMetric
    from zoo.callbacks.metrics.frechet import gaussian_distance as gaussian_distance
    from zoo.callbacks.metrics.kernel import KernelDistance as KernelDistance
    from zoo.callbacks.metrics.manifold import Authenticity as Authenticity
    from zoo.callbacks.metrics.manifold import DensityCoverage as DensityCoverage
    from zoo.callbacks.metrics.manifold import PrecisionRecall as PrecisionRecall
    from zoo.callbacks.metrics.paired import PairedSimilarity as PairedSimilarity
    from zoo.callbacks.metrics.patches import MaskIoU as MaskIoU
    from zoo.callbacks.metrics.patches import NearestPatch as NearestPatch

_EXPORTS = {
    "Authenticity": "zoo.callbacks.metrics.manifold",
    "ClassScore": "zoo.callbacks.metrics.class_score",
    "DensityCoverage": "zoo.callbacks.metrics.manifold",
    "FeatureBank": "zoo.callbacks.metrics.bank",
    "FrechetInfinity": "zoo.callbacks.metrics.frechet",
    "KernelDistance": "zoo.callbacks.metrics.kernel",
    "PrecisionRecall": "zoo.callbacks.metrics.manifold",
    "FrechetMetric": "zoo.callbacks.metrics.frechet",
    "MaskIoU": "zoo.callbacks.metrics.patches",
    "NearestPatch": "zoo.callbacks.metrics.patches",
    "PairedSimilarity": "zoo.callbacks.metrics.paired",
    "gaussian_distance": "zoo.callbacks.metrics.frechet",
}
__all__ = sorted(_EXPORTS)
__getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)
