"""Networks whose features metrics compare, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoo.engine.lazy import lazy_exports

if TYPE_CHECKING:
    from zoo.callbacks.extractors.base import Extractor as Extractor
    from zoo.callbacks.extractors.by_name import EXTRACTORS as EXTRACTORS
    from zoo.callbacks.extractors.by_name import features_of as features_of
    from zoo.callbacks.extractors.by_name import load_extractor as load_extractor
    from zoo.callbacks.extractors.efficientnet import EfficientNetLite0 as EfficientNetLite0
    from zoo.callbacks.extractors.inception import InceptionV3 as InceptionV3

_EXPORTS = {
    "EXTRACTORS": "zoo.callbacks.extractors.by_name",
    "EfficientNetLite0": "zoo.callbacks.extractors.efficientnet",
    "Extractor": "zoo.callbacks.extractors.base",
    "InceptionV3": "zoo.callbacks.extractors.inception",
    "features_of": "zoo.callbacks.extractors.by_name",
    "load_extractor": "zoo.callbacks.extractors.by_name",
}
__all__ = sorted(_EXPORTS)
__getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)
