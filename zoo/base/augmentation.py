"""DiffAugment before the discriminator, for adversarial models that offer it."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from zoo.base.adversarial import AdversarialModel
from zoo.nn.augment import diff_augment

__all__ = ["AugmentedModel"]


class AugmentedModel(AdversarialModel):
    """An adversarial model whose discriminator may see images changed at random, real and generated ones alike.

    Attributes:
        augment: whether they are changed.
        augment_colors: whether brightness, saturation and contrast are among the changes.

    References:
        Zhao et al. 2020, "Differentiable Augmentation for Data-Efficient GAN Training".
    """

    augment = False
    augment_colors: ClassVar[bool] = True

    def augmented(self, x: Tensor, purpose: str, first: int | None = None) -> Tensor:
        """Images as the discriminator sees them: the images themselves, or in training changed at random by `augment`.

        Args:
            x: images.
            purpose: what they are, such as "real" and "fake"; each has draws of its own.
            first: global index of the first one; None if each image of the batch is one of them.

        Shape:
            Input and output: (N, C, H, W).
        """
        if not (self.augment and self.training):
            return x
        first = self.first_index(len(x)) if first is None else first
        return diff_augment(x, self.draw_key(f"augment/{purpose}"), first, colors=self.augment_colors)
