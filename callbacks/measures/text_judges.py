"""A judge of images and sentences that no generator was trained to please: a frozen sentence encoder.

The encoder knows no images. So an image stands for the sentences of the real training images that are most like it, by
features of a network that was trained on photographs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.callbacks.extractors import features_of, load_extractor
from zoo.callbacks.measures.evaluation import Evaluation
from zoo.callbacks.measures.real_features import RealFeatures
from zoo.nn.text import SentenceEncoder

__all__ = ["NeighborRetriever"]

CHUNK = 64
"""Images whose features are computed at a time."""


class NeighborRetriever(nn.Module):
    """Embeds an image as the mean embedding of the sentences of its nearest training images.

    Args:
        at: its data give the training images and their sentences, from which the retriever takes at most `most`.
        extractor: name of the features in which images are near.
        neighbors: number of nearest images.
        most: most training images.

    Raises:
        ModuleNotFoundError: the sentence encoder's package is not installed.
    """

    def __init__(
        self, at: Evaluation, *, extractor: str = "efficientnet-lite0", neighbors: int = 5, most: int = 5000
    ) -> None:
        super().__init__()
        self.sentences = SentenceEncoder()
        self.extractor = load_extractor(extractor).to(at.device)
        self.neighbors = neighbors
        count = min(most, len(at.data.split("train")))
        captions, images = [], []
        for _, batch in at.data.reference_batches(count, CHUNK, split="train"):
            captions += batch["caption"]
            images.append(batch["image"])
        self.features = self._known(images, f"{at.data.name}-train-{count}", at)
        self.embeddings = self.sentences(captions).to(at.device)
        self.label = f"sentence@{self.sentences.digest()}-of-{neighbors}-nearest-of-{count}-by-{extractor}"

    def _known(self, images: Sequence[Tensor], name: str, at: Evaluation) -> Tensor:
        """Features of the training images; rank zero keeps them for the next time."""
        kept = RealFeatures(None, self.extractor, name, CHUNK, None)
        count = sum(len(part) for part in images)
        rows = kept.load(images[0], count)
        if rows is None:
            rows = torch.cat([self._features(part.to(at.device)).cpu() for part in images])
            if at.rank == 0:
                kept.save(rows)
        return rows.to(at.device)

    def _features(self, images: Tensor) -> Tensor:
        """Features of a chunk, padded to its full size, so that they do not depend on its number of images."""
        padded = torch.cat([images, images[-1:].expand(-len(images) % CHUNK, *images.shape[1:])])
        return torch.cat([features_of(self.extractor, part) for part in padded.split(CHUNK)])[: len(images)]

    def encode(self, images: Tensor) -> Tensor:
        """Embeddings of images.

        Shape:
            images: (N, 3, H, W) in [-1, 1]; output: (N, d), of norm 1.
        """
        near = torch.cdist(self._features(images), self.features).topk(self.neighbors, largest=False).indices
        return F.normalize(self.embeddings[near].mean(1), dim=1)

    def encode_text(self, captions: Sequence[str]) -> Tensor:
        """Embeddings of sentences.

        Shape:
            output: (N, d), of norm 1.
        """
        embedded: Tensor = self.sentences(captions)
        return embedded.to(self.embeddings.device)
