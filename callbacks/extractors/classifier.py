"""Features of this package's own classifiers of digits and clothes, of which networks of photographs know little."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F

from zoo.callbacks.extractors.base import Extractor
from zoo.pretrained.loading import load

__all__ = ["ClassifierFeatures"]


class ClassifierFeatures(Extractor):
    """The layer before the last of a published `zoo.Classifier` of gray images of 28 pixels.

    Images of 32 pixels lose the border of 2 pixels with which the DataModules pad them; those of other sides are
    resized.

    Args:
        slug: name of the checkpoint.
    """

    resize = "28-or-32-without-border-else-antialias-bilinear-28"

    def __init__(self, slug: str) -> None:
        super().__init__()
        network = cast(nn.Sequential, self.frozen(cast(nn.Module, load(slug).network)))
        head = cast(nn.Linear, network[-1])
        self.network, self.head, self.name = network[:-1], head, slug
        self.num_features, self.num_classes = head.in_features, head.out_features

    def forward(self, x: Tensor) -> Tensor:
        """Features of images; colors are averaged.

        Shape:
            x: (N, 3, H, W) in [-1, 1]; output: (N, d).
        """
        x = x.mean(1, keepdim=True)
        if x.shape[2:] == (32, 32):
            x = x[..., 2:-2, 2:-2]
        elif x.shape[2:] != (28, 28):
            x = F.interpolate(x, (28, 28), mode="bilinear", antialias=True)
        return cast(Tensor, self.network(x))

    def logits(self, features: Tensor) -> Tensor:
        """Logits of the classifier's classes.

        Shape:
            features: (N, d); output: (N, K).
        """
        return cast(Tensor, self.head(features))
