"""AAE with labels in the prior: the discriminator also sees the label, so class k comes to lie on part k of the prior.

    discriminator:  minimizes  -E log D(z', y) - E log(1 - D(z, y)),   z' ~ p(z | y)
    encoder:        minimizes  -E log D(z, y)

Makhzani et al., "Adversarial Autoencoders", ICLR 2016 workshop, arXiv 1511.05644, section 2.3.
"""

from __future__ import annotations

from typing import Literal, Unpack

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.aae import AAE, AAEOptions
from zoo.base import Batch, inference
from zoo.engine import rng
from zoo.nn.aae import PARTS

__all__ = ["LabelPriorAAE"]


class LabelPriorAAE(AAE):
    """AAE whose discriminator also sees the label, so that class k follows part k of the prior.

    Images without a label (-1) follow the whole prior.

    Args:
        image_size: side of the images.
        image_channels: channels of the images.
        prior: distribution of the code, of two dimensions and ten parts.
        options: see `AAEOptions`.

    References:
        Makhzani et al. 2015, section 2.3 and figure 4.
    """

    conditions = ("label",)
    num_classes = PARTS

    def __init__(
        self,
        image_size: int = 28,
        image_channels: int = 1,
        *,
        prior: Literal["mixture", "swiss_roll"] = "mixture",
        **options: Unpack[AAEOptions],
    ) -> None:
        super().__init__(image_size, image_channels, 2, prior=prior, **options)
        self.save_hyperparameters()

    def sizes(self) -> tuple[int, int, dict[str, int]]:
        """The discriminator also takes the label, one of ten or none."""
        return 2, 2, {"style": 2 + PARTS + 1}

    def label_values(self, batch: Batch) -> range:
        """The ten classes, and -1 without one."""
        return range(-1, PARTS)

    def priors(self, batch: Batch) -> dict[str, Tensor]:
        """Draws from the part of each image's class."""
        n = len(batch["image"])
        return {"style": self.prior(n, self.draw_key("prior"), self.first_index(n), batch["label"])}

    def discriminator_inputs(self, codes: dict[str, Tensor], batch: Batch, purpose: str) -> dict[str, Tensor]:
        """The code and the one-hot label, in whose last place stands "without a label"."""
        label = F.one_hot(batch["label"] % (PARTS + 1), PARTS + 1)  # -1 becomes the last
        return {"style": torch.cat([codes["style"], label.to(codes["style"].dtype)], 1)}

    @inference
    def latent(self, n: int, *, seed: int | None = None, first: int = 0, label: int | Tensor | None = None) -> Tensor:
        """The codes from which `sample` with the same arguments makes its images.

        Shape:
            Output: (n, 2).
        """
        part = None if label is None else self.labels_for(n, label, PARTS)
        return self.prior(n, rng.key(self.resolve_seed(seed), "sample"), first, part)
