"""Clustering AAE: the encoder gives a class and a style, the decoder needs both, and the classes become clusters.

    reconstruction:  encoder and decoder minimize  E ||x - dec(q(y | x), z)||^2
    discriminators:  minimize  -E log D(z') - E log(1 - D(z))  and  -E log D'(y') - E log(1 - D'(q(y | x))),
                     z' ~ N(0, I),   y' ~ Cat(1/K)
    encoder:         minimizes  -E log D(z) - E log D'(q(y | x))

Makhzani et al., "Adversarial Autoencoders", ICLR 2016 workshop, arXiv 1511.05644, section 6.
"""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor

from zoo.aae import AAE, AAEOptions
from zoo.base import Batch, inference
from zoo.base.latent import ClassCodeModel
from zoo.engine import rng
from zoo.nn.augment import random_affine
from zoo.nn.layers import unit

__all__ = ["ClusteringAAE"]


class ClusteringAAE(AAE, ClassCodeModel):
    """AAE that finds clusters without labels.

    Args:
        image_size: side of the images.
        image_channels: channels of the images.
        latent_dim: length of the style.
        num_classes: number of clusters.
        input_noise_std: deviation of Gaussian noise on the encoder's input in training.
        affine_classes: not in the paper: in training the class head sees images that `random_affine` has changed, and
            the style is that of the image itself. So classes cannot stand for slant, size or place, which the decoder
            needs but only the style can tell.
        class_noise_std: not in the paper: deviation of Gaussian noise on the inputs of the discriminator of classes.
            Without noise, this discriminator tells probabilities from a prior of ones and zeros by their last digits.
        options: see `AAEOptions`.

    References:
        Makhzani et al. 2015, section 6 and figure 9.
    """

    def __init__(
        self,
        image_size: int = 28,
        image_channels: int = 1,
        latent_dim: int = 10,
        num_classes: int = 30,
        *,
        input_noise_std: float = 0.3,
        affine_classes: bool = False,
        class_noise_std: float = 0.0,
        **options: Unpack[AAEOptions],
    ) -> None:
        super().__init__(image_size, image_channels, latent_dim, **options)
        self.save_hyperparameters()
        self.num_classes, self.input_noise_std = num_classes, input_noise_std
        self.affine_classes, self.class_noise_std = affine_classes, class_noise_std

    def sizes(self) -> tuple[int, int, dict[str, int]]:
        """The encoder also gives the class, the decoder takes it, and a second discriminator sees it."""
        classes, style = self.hparams["num_classes"], self.latent_dim
        return classes + style, classes + style, {"style": style, "class": classes}

    def heads(self, x: Tensor, purpose: str | None = None) -> tuple[Tensor, Tensor]:
        """Class logits and style of images in [0, 1], with noise on the images for a purpose in training.

        Shape:
            x: (N, C, H, W); output: (N, num_classes), (N, latent_dim).
        """
        if purpose is not None and self.input_noise_std:
            x = x + self.input_noise_std * self.training_normal(x.shape, f"{purpose}/input")
        logits, style = self.encoder(x).split([self.num_classes, self.latent_dim], 1)
        return logits, style

    def affine(self, x: Tensor, purpose: str) -> Tensor:
        """Images as the class head sees them in training."""
        return random_affine(x, self.draw_key(f"{purpose}/affine"), self.first_index(len(x)))

    def codes(self, batch: Batch, purpose: str) -> dict[str, Tensor]:
        """Style and class probabilities."""
        x = unit(batch["image"])
        logits, style = self.heads(x, purpose)
        if self.affine_classes:
            logits, _ = self.heads(self.affine(x, purpose), f"{purpose}/class")
        return {"style": style, "class": logits.softmax(1)}

    def priors(self, batch: Batch) -> dict[str, Tensor]:
        """Draws from the Gaussian of the style, and classes from Cat(1/K)."""
        n = len(batch["image"])
        key, first = self.draw_key("class"), self.first_index(n)
        label = rng.integers(self.num_classes, (n,), key, first, device=self.device)
        return super().priors(batch) | {"class": self.onehot(label)}

    def discriminator_inputs(self, codes: dict[str, Tensor], batch: Batch, purpose: str) -> dict[str, Tensor]:
        """Style, and classes with noise."""
        if not self.class_noise_std:
            return codes
        noise = self.training_normal(codes["class"].shape, purpose)
        return codes | {"class": codes["class"] + self.class_noise_std * noise}

    def decoder_input(self, codes: dict[str, Tensor], batch: Batch) -> Tensor:
        """Class probabilities and style."""
        return torch.cat([codes["class"], codes["style"]], 1)

    def mean_code(self, x: Tensor) -> Tensor:
        """Class probabilities and style of images in [0, 1].

        Shape:
            x: (N, C, H, W); output: (N, num_classes + latent_dim).
        """
        logits, style = self.heads(x)
        return torch.cat([logits.softmax(1), style], 1)

    @inference
    def classify(self, x: Tensor) -> Tensor:
        """Probabilities of classes, or clusters.

        Shape:
            x: (N, C, H, W) in [-1, 1]; output: (N, num_classes).
        """
        return self.heads(unit(x))[0].softmax(1)
