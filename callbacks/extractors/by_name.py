"""Extractors by name, and the features that they find."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from zoo.callbacks.extractors.base import Extractor
from zoo.callbacks.extractors.classifier import ClassifierFeatures
from zoo.callbacks.extractors.dinov2 import DINOv2
from zoo.callbacks.extractors.efficientnet import EfficientNetLite0
from zoo.callbacks.extractors.inception import InceptionV3
from zoo.engine.devices import exact_kernels
from zoo.engine.files import nearest

__all__ = ["EXTRACTORS", "features_of", "load_extractor"]

EXTRACTORS: dict[str, Callable[[], Extractor]] = {
    "inception": InceptionV3,
    "dinov2": DINOv2,
    "efficientnet-lite0": EfficientNetLite0,
    "classifier-mnist28": partial(ClassifierFeatures, "classifier-mnist28"),
    "classifier-fashionmnist28": partial(ClassifierFeatures, "classifier-fashionmnist28"),
}
"""What makes each extractor; the names are those that `extractor` options take."""


def load_extractor(extractor: str | Path | nn.Module, inception_weights: str | Path | None = None) -> nn.Module:
    """The extractor that the arguments of a metric name.

    Args:
        extractor: a name in `EXTRACTORS`, the path of Inception's weights, or a module
            `(N, 3, H, W) in [-1, 1] -> (N, d)` with a `name`.
        inception_weights: path of Inception's weights; then `extractor` is not used.

    Raises:
        ValueError: an unknown extractor, or a module without a name.
        ModuleNotFoundError: a package of the extractor is not installed.
        OSError: its weights are not there and cannot be fetched.
    """
    if inception_weights is not None:
        return InceptionV3(inception_weights)
    if isinstance(extractor, nn.Module):
        if not isinstance(getattr(extractor, "name", None), str):
            raise ValueError(
                f"extractor {type(extractor).__name__} needs a `name` (a str), which goes into the protocol of its "
                "values"
            )
        return extractor
    if isinstance(extractor, str) and extractor in EXTRACTORS:
        return EXTRACTORS[extractor]()
    if isinstance(extractor, Path) or extractor.endswith(".pth"):
        return InceptionV3(extractor)
    known = f"take {', '.join(EXTRACTORS)}, a module with a `name`, or the path of Inception's weights (.pth)"
    raise ValueError(f"unknown extractor {extractor!r}: {nearest(extractor, EXTRACTORS, known)}")


def features_of(extractor: nn.Module, images: Tensor) -> Tensor:
    """Features of images rounded to 8 bits, as files hold real ones, in float32; grayscale is repeated.

    On CUDA nothing is computed with the shortcuts that change results.

    Shape:
        images: (N, 1 or 3, H, W) in [-1, 1]; output: (N, d).

    Raises:
        ValueError: the extractor returns something else.
    """
    images = ((images.float() + 1) * 127.5).round().clamp(0, 255) / 127.5 - 1
    if images.shape[1] == 1:
        images = images.expand(-1, 3, -1, -1)
    with torch.autocast(images.device.type, enabled=False), exact_kernels():
        features = extractor(images)
    if not isinstance(features, Tensor) or features.ndim != 2 or len(features) != len(images):
        shape = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
        raise ValueError(f"extractor {extractor.name} must return (N, d) features, not {shape}")
    return features
