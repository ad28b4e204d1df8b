"""The parts that DataModules are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoo.engine.lazy import lazy_exports

if TYPE_CHECKING:
    from zoo.datamodules.base.image_set import Batch as Batch
    from zoo.datamodules.base.image_set import ImageSet as ImageSet
    from zoo.datamodules.base.module import DataOptions as DataOptions
    from zoo.datamodules.base.module import ImageDataModule as ImageDataModule
    from zoo.datamodules.base.translation import TranslationTask as TranslationTask

_EXPORTS = {
    "Batch": "zoo.datamodules.base.image_set",
    "DataOptions": "zoo.datamodules.base.module",
    "ImageDataModule": "zoo.datamodules.base.module",
    "ImageSet": "zoo.datamodules.base.image_set",
    "TranslationTask": "zoo.datamodules.base.translation",
}
__all__ = sorted(_EXPORTS)

# Lazy, because the processes that render emoji are to start without torch.
__getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)
