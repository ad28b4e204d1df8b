"""Text encoder: a network that maps a sentence to a vector that fits the images that it describes.

The encoder of sentences (t) and one of images (v) are trained together, so that an image fits its own sentence better
than those of other classes:

    minimize  E max(0, 1 + v_n . t_m - v_n . t_n) + E max(0, 1 + v_m . t_n - v_n . t_n)    (m of another class)

Reed, Akata, Lee and Schiele, "Learning Deep Representations of Fine-grained Visual Descriptions", CVPR 2016, arXiv
1605.05395. The character-level network is `zoo.nn.text.CharEncoder`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from zoo.base import Batch, SingleObjectiveModel, Terms, inference
from zoo.engine.cross_rank import all_gather_rows
from zoo.nn.schedules import Decay
from zoo.nn.text import CharEncoder

__all__ = ["TextEncoder", "joint_embedding_loss"]


def joint_embedding_loss(anchor: Tensor, own: Tensor, others: Tensor, same: Tensor, margin: float = 1.0) -> Tensor:
    """mean max(0, margin + a_n . o_m - a_n . p_n) over n, and over all m that are not of the class of n.

    Args:
        anchor: embeddings a_n of images (or of sentences).
        own: embeddings p_n of their sentences (or images).
        others: embeddings o_m of all sentences (or images).
        same: whether n and m are of the same class.
        margin: how much better the own one must fit.

    Shape:
        anchor, own: (N, D); others: (M, D); same: (N, M) bool; output: scalar.
    """
    similarity = anchor @ others.T
    right = (anchor * own).sum(1, keepdim=True)
    hinge = F.relu(margin + similarity - right) * ~same
    return (hinge.sum(1) / (~same).sum(1).clamp(min=1)).mean()


class TextEncoder(SingleObjectiveModel):
    """A character-level CNN-RNN and an encoder of images with embeddings in one space.

    Batches hold `image`, `caption` (a list of str) and `caption_class` (N,) int64, or `label`. Validation logs the loss
    and `val/retrieval`, the share of images that fit their own sentence best in their batch.

    Args:
        image_size: side of the images, a multiple of 16.
        image_channels: channels of the images.
        channels: channels of the first two convolutions over characters.
        hidden_features: channels of the third, and states of the recurrent network.
        embedding_dim: length of an embedding.
        max_length: characters that are read.
        rnn: "gru", or "relu" for a plain network after a further pooling.
        base_channels: channels of the first hidden map of the image encoder.
        learning_rate: Adam's step size.
        decay: schedule of the step size.

    Raises:
        ValueError: an unsupported size.

    References:
        Reed et al., CVPR 2016, sections 3 and 4.3; Reed et al., ICML 2016, section 4.4.
    """

    # NOTE(paper): the paper's images are features of a GoogLeNet that was trained on ImageNet, here a network learns
    # from scratch; and the loss takes all pairs of a batch with several images of a class, the paper's one of each.
    batch_fields = ("image", "caption", "label")
    main_function, makes_images = "encode", False
    inference_networks = ("text_network", "image_network")
    margin = 1.0
    """How much better an image must fit its own sentence."""

    def __init__(
        self,
        image_size: int = 64,
        image_channels: int = 3,
        channels: Sequence[int] = (384, 512),
        hidden_features: int = 512,
        embedding_dim: int = 1024,
        max_length: int = 201,
        rnn: Literal["gru", "relu"] = "gru",
        *,
        base_channels: int = 64,
        learning_rate: float = 7e-4,
        decay: Decay | None = None,
    ) -> None:
        super().__init__()
        channels = list(channels)
        self.save_hyperparameters()
        self.decay = Decay.of(decay)
        if image_size % 16:
            raise ValueError(f"image_size {image_size} must be a multiple of 16")
        self.text_network = CharEncoder(channels, hidden_features, embedding_dim, max_length, rnn)
        c = base_channels
        layers: list[nn.Module] = []
        for inputs, outputs in ((image_channels, c), (c, 2 * c), (2 * c, 4 * c), (4 * c, 4 * c)):
            layers += [nn.Conv2d(inputs, outputs, 4, 2, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(True)]
        side = min(4, image_size // 16)
        self.image_network = nn.Sequential(
            *layers,  # (N, 4C, S / 16, S / 16)
            nn.AdaptiveAvgPool2d(side) if image_size > 64 else nn.Identity(),  # (N, 4C, 4, 4)
            nn.Flatten(),
            nn.Linear(4 * c * side * side, embedding_dim),
        )

    @inference
    def encode_text(self, captions: Sequence[str]) -> Tensor:
        """Embeddings of sentences.

        Shape:
            Output: (N, embedding_dim).
        """
        return cast(Tensor, self.text_network(captions))

    @inference
    def encode(self, x: Tensor) -> Tensor:
        """Embeddings of images: the inner product with a sentence's embedding measures how well they fit.

        Shape:
            x: (N, C, S, S) in [-1, 1]; output: (N, embedding_dim).
        """
        return cast(Tensor, self.image_network(x))

    def objective(self, batch: Batch) -> Terms:
        """The two terms of the joint embedding loss, over the pairs of all ranks.

        Shape:
            Output: scalars.
        """
        number: Tensor = batch["caption_class"] if "caption_class" in batch else batch["label"]
        image, text = self.image_network(batch["image"]), self.text_network(batch["caption"])
        with torch.autocast(image.device.type, enabled=False):  # differences of large inner products
            kind = batch["image"].dtype
            image, text = image.to(kind), text.to(kind)
            images, texts = (image, text) if not self.training else (all_gather_rows(image), all_gather_rows(text))
            numbers = number if not self.training else all_gather_rows(number[:, None]).flatten()
            same = number[:, None] == numbers
            return {
                "image_to_text": joint_embedding_loss(image, text, texts, same, self.margin),
                "text_to_image": joint_embedding_loss(text, image, images, same, self.margin),
            }

    def _log_terms(self, split: str, batch: Batch) -> None:
        loss = sum(self.objective(batch).values())
        similarity = self.encode(batch["image"]) @ self.encode_text(batch["caption"]).T
        right = (similarity.argmax(1) == torch.arange(len(similarity), device=similarity.device)).float().mean()
        logged = {f"{split}/loss": cast(Tensor, loss), f"{split}/retrieval": right}
        self.log_dict(logged, on_epoch=True, sync_dist=True, batch_size=len(similarity))

    def configure_optimizers(self) -> Optimizer:
        """Adam."""
        return self.adam(self.parameters(), self.hparams["learning_rate"])
