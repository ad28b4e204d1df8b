"""InfoGAN with transformed classes, not in the paper: categories that affine maps of the image do not change.

    L(G, Q) of a categorical code is the mean of
    E log Q(c | G(z, c)) + H(c)  and  E log Q(c | T(G(z, c))) + H(c),   T a random affine map

So a category cannot stand for slant, size or place. In InfoGAN two classes often share a value of the code, while
another class is split by its slant.
"""

from __future__ import annotations

from torch import Tensor

from zoo.base import Batch
from zoo.infogan import InfoGAN
from zoo.nn.augment import random_affine
from zoo.nn.layers import running_statistics_kept
from zoo.nn.losses import at_least_float32

__all__ = ["TransformInvariantInfoGAN"]


class TransformInvariantInfoGAN(InfoGAN):
    """InfoGAN whose Q has to find categories in transformed images too; arguments as for `InfoGAN`."""

    def fakes(self, batch: Batch, purpose: str) -> dict[str, Tensor]:
        """Those of InfoGAN, and the parameters of Q for the transformed images."""
        fakes = super().fakes(batch, purpose)
        image = fakes["image"]
        moved = random_affine(image, self.draw_key(f"{purpose}/affine"), self.first_index(len(image)))
        with running_statistics_kept(self.trunk, self.recogniser):
            return fakes | {"moved_q": at_least_float32(self.recogniser(self.trunk(moved)))}

    def categorical_bounds(self, c: Tensor, logits: list[Tensor], fakes: dict[str, Tensor]) -> list[Tensor]:
        """The mean of the bounds from images and from transformed images."""
        every = logits, self.codes.split(fakes["moved_q"])[0]
        still, moved = (self.codes.categorical_bounds(c, logits) for logits in every)
        return [one.lerp(other, 0.5) for one, other in zip(still, moved, strict=True)]
