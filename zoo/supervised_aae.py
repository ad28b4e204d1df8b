"""Supervised AAE: the decoder gets the label, so the code has to hold the style alone.

    reconstruction:  encoder and decoder minimize  E ||x - dec(y, z)||^2,   z ~ q(z | x)

Makhzani et al., "Adversarial Autoencoders", ICLR 2016 workshop, arXiv 1511.05644, section 4; the other phases are those
of `zoo.aae`.
"""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor

from zoo.aae import AAE, AAEOptions
from zoo.base import Batch, inference
from zoo.base.latent import ClassCodeModel

__all__ = ["SupervisedAAE"]


class SupervisedAAE(AAE, ClassCodeModel):
    """AAE whose decoder gets the label next to a code for the style; batches carry `label`.

    Args:
        image_size: side of the images.
        image_channels: channels of the images.
        latent_dim: length of the style.
        num_classes: number of classes.
        options: see `AAEOptions`.

    References:
        Makhzani et al. 2015, section 4, figures 6 and 7.
    """

    data_options = ("image_size", "image_channels", "num_classes")

    def __init__(
        self,
        image_size: int = 28,
        image_channels: int = 1,
        latent_dim: int = 15,
        num_classes: int = 10,
        **options: Unpack[AAEOptions],
    ) -> None:
        super().__init__(image_size, image_channels, latent_dim, **options)
        self.save_hyperparameters()
        self.num_classes = num_classes

    def sizes(self) -> tuple[int, int, dict[str, int]]:
        """The decoder also takes the class."""
        return self.latent_dim, self.hparams["num_classes"] + self.latent_dim, {"style": self.latent_dim}

    def label_values(self, batch: Batch) -> range:
        """The classes."""
        return range(self.num_classes)

    def decoder_input(self, codes: dict[str, Tensor], batch: Batch) -> Tensor:
        """The label and the style."""
        return torch.cat([self.onehot(batch["label"]), codes["style"]], 1)

    @inference
    def reconstruct(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        """Images as they come back through the code.

        Args:
            x: images.
            label: their classes; by default 0.

        Shape:
            x, output: (N, C, H, W) in [-1, 1]; label: (N,).
        """
        label = torch.zeros(x.size(0), dtype=torch.int64, device=x.device) if label is None else label
        return self.decode(torch.cat([self.onehot(label), self.encode(x)], 1))
