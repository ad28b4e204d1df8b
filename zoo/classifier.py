"""Classifier: a small convolutional network that names the class of an image.

    minimize  -E log p(y | x)

Not a generative model: trained on real images, it judges whether translations and drawings pass for their target class.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from zoo.base import Batch, SingleObjectiveModel, Terms, inference
from zoo.nn.augment import random_shift
from zoo.nn.schedules import Decay

__all__ = ["Classifier"]


def _layer(inputs: int, outputs: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    """A convolution that keeps or halves the side, batch normalization, ReLU."""
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, 1, bias=False)
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU(True)]


class ResidualBlock(nn.Module):
    """relu(x + f(x)) of two 3x3 convolutions.

    Shape:
        Input and output: (N, C, H, W).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*_layer(channels, channels, 3), *_layer(channels, channels, 3)[:-1])

    def forward(self, x: Tensor) -> Tensor:
        """The rectified sum."""
        return F.relu(x + cast(Tensor, self.layers(x)))


class Classifier(SingleObjectiveModel):
    """Strided convolutions with batch normalization, the mean over the last map, a linear layer.

    Batches hold `image` and `label` (N,) int64. Validation logs `val/accuracy`, the share of right answers, and the
    cross entropy in nats.

    Args:
        image_size: side of the images, at least 8; odd sides on the way are halved rounded down.
        image_channels: channels of the images.
        class_names: names of the classes, in the order of their numbers.
        base_channels: channels of the first hidden map.
        residual: a first layer at the image's full size and a residual block at each smaller one: fewer errors for ten
            times the computation.
        max_shift: in training, images are moved at random by up to this number of pixels per axis.
        label_smoothing: share of the label that is spread over all classes in training.
        learning_rate: step size.
        weight_decay: decoupled decay of the weights (AdamW).
        decay: schedule of the step size.

    Raises:
        ValueError: an unsupported size, or fewer than two classes.
    """

    main_function, makes_images = "classify", False
    data_options = ("image_size", "image_channels", "class_names")
    inference_networks = ("network",)

    def __init__(
        self,
        image_size: int = 64,
        image_channels: int = 3,
        class_names: Sequence[str] = ("openmoji", "twemoji", "noto", "fluent"),
        *,
        base_channels: int = 32,
        residual: bool = False,
        max_shift: int = 0,
        label_smoothing: float = 0.0,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-2,
        decay: Decay | None = None,
    ) -> None:
        super().__init__()
        class_names = list(class_names)
        self.save_hyperparameters()
        if image_size < 8:
            raise ValueError(f"image_size {image_size} must be at least 8")
        if len(class_names) < 2:
            raise ValueError(f"a classifier needs at least two classes, class_names is {class_names}")
        self.class_names = class_names
        self.decay = Decay.of(decay)
        c = base_channels
        if residual:
            layers = _layer(image_channels, c, 3)  # (N, C, H, W)
            for inputs, outputs in ((c, 2 * c), (2 * c, 4 * c), (4 * c, 4 * c)):
                layers += [*_layer(inputs, outputs, 4, 2), ResidualBlock(outputs)]
        else:
            layers = []
            for inputs, outputs in ((image_channels, c), (c, 2 * c), (2 * c, 4 * c)):
                layers += _layer(inputs, outputs, 4, 2)
            layers += _layer(4 * c, 4 * c, 3)
        self.network = nn.Sequential(
            *layers,  # (N, 4C, H / 8, W / 8)
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

    def label_values(self, batch: Batch) -> range:
        """The classes."""
        return range(len(self.class_names))

    def objective(self, batch: Batch) -> Terms:
        """Cross entropy in nats, with moved images and smoothed labels where these options are on.

        Shape:
            Output: scalar.
        """
        x = batch["image"]
        if most := self.hparams["max_shift"]:
            x = random_shift(x, most, self.draw_key("shift"), self.first_index(len(x)))
        smoothing = self.hparams["label_smoothing"]
        return {"cross_entropy": F.cross_entropy(self.network(x), batch["label"], label_smoothing=smoothing)}

    def _log_terms(self, split: str, batch: Batch) -> None:
        logits, label = self.network(batch["image"]), batch["label"]
        loss = F.cross_entropy(logits, label)
        accuracy = (logits.argmax(1) == label).float().mean()
        logged = {f"{split}/loss": loss, f"{split}/accuracy": accuracy}
        self.log_dict(logged, on_epoch=True, sync_dist=True, batch_size=len(label))

    def configure_optimizers(self) -> Optimizer:
        """AdamW."""
        rate, weight_decay = self.hparams["learning_rate"], self.hparams["weight_decay"]
        return torch.optim.AdamW(self.parameters(), rate, weight_decay=weight_decay)
