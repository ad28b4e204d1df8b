"""Classifier: a small convolutional network that tells classes of real images, by which translations are judged.

    minimises  -E log p(y | x)

Not a generative model: of images that a translator made it says whether they would pass for their target domain.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from zoo.base import Batch, SingleObjectiveModel, Terms, inference

__all__ = ["Classifier"]


class Classifier(SingleObjectiveModel):
    """Strided convolutions with batch normalisation, the mean over the last map, a linear layer.

    Batches hold `image` and `label` (N,) int64. Validation logs `val/accuracy`, the share of right answers, beside the
    cross entropy in nats.

    Args:
        image_size: side of the images, a multiple of 8.
        image_channels: channels of the images.
        class_names: names of the classes, in the order of their numbers.
        base_channels: channels of the first hidden map.
        learning_rate: Adam's step size.
        weight_decay: decoupled decay of the weights (AdamW).
        decay_steps: steps over which the step size falls linearly to zero; 0 leaves it.

    Raises:
        ValueError: an unsupported size, or fewer than two classes.
    """

    inference_networks = ("network",)

    def __init__(
        self,
        image_size: int = 64,
        image_channels: int = 3,
        class_names: Sequence[str] = ("openmoji", "twemoji", "noto", "fluent"),
        *,
        base_channels: int = 32,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-2,
        decay_steps: int = 0,
    ) -> None:
        super().__init__()
        class_names = list(class_names)
        self.save_hyperparameters()
        if image_size % 8:
            raise ValueError(f"image_size {image_size} must be a multiple of 8")
        if len(class_names) < 2:
            raise ValueError(f"a classifier needs at least two classes, class_names is {class_names}")
        self.class_names = class_names
        c = base_channels
        layers: list[nn.Module] = []
        for inputs, outputs in ((image_channels, c), (c, 2 * c), (2 * c, 4 * c)):
            layers += [nn.Conv2d(inputs, outputs, 4, 2, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(True)]
        self.network = nn.Sequential(
            *layers,  # (N, 4C, H / 8, W / 8)
            nn.Conv2d(4 * c, 4 * c, 3, 1, 1, bias=False),
            nn.BatchNorm2d(4 * c),
            nn.ReLU(True),
            nn.AdaptiveAvgPool2d(1),  # (N, 4C, 1, 1)
            nn.Flatten(),
            nn.Linear(4 * c, len(class_names)),  # (N, K)
        )

    @inference
    def classify(self, x: Tensor) -> Tensor:
        """Probabilities of the classes.

        Shape:
            x: (N, C, H, W) in [-1, 1]; output: (N, K).
        """
        return cast(Tensor, self.network(x)).softmax(1)

    def objective(self, batch: Batch) -> Terms:
        """Cross entropy in nats.

        Shape:
            Output: scalar.
        """
        return {"cross_entropy": F.cross_entropy(self.network(batch["image"]), batch["label"])}

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Set the step size, a function of the step alone."""
        if total := self.hparams["decay_steps"]:
            for group in cast(Optimizer, self.optimizers()).param_groups:
                group["lr"] = self.hparams["learning_rate"] * max(0.0, 1 - self.trainer.global_step / total)

    def _log_terms(self, split: str, batch: Batch) -> None:
        logits, label = self.network(batch["image"]), batch["label"]
        loss = F.cross_entropy(logits, label)
        accuracy = (logits.argmax(1) == label).float().mean()
        logged = {f"{split}/loss": loss, f"{split}/accuracy": accuracy}
        self.log_dict(logged, on_epoch=True, sync_dist=True, batch_size=len(label))

    def configure_optimizers(self) -> Optimizer:
        """AdamW."""
        rate, decay = self.hparams["learning_rate"], self.hparams["weight_decay"]
        return torch.optim.AdamW(self.parameters(), rate, weight_decay=decay)
