"""What an extractor is: a network whose features metrics compare."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["Extractor"]


class Extractor(nn.Module):
    """A frozen network from images `(N, 3, H, W) in [-1, 1]` to features `(N, d)`.

    A module with a `name` and such a `forward` is as good. Where the network has classes, `logits` takes features, so
    that one pass over the images gives both.

    Attributes:
        name: what made the features, for protocols.
        resize: how images get the network's size, for protocols.
        num_features: d.
        num_classes: number of classes that `logits` knows; 0 where there is no `logits`.
    """

    name: str
    resize: str
    num_features: int
    num_classes = 0

    @property
    def is_inception(self) -> bool:
        """Whether values of these features have the field's names: fid, kid, is."""
        return self.name.startswith("inception")

    def frozen(self, network: nn.Module) -> nn.Module:
        """The network without training mode and gradients."""
        return network.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> Extractor:
        """Stay in evaluation mode: the features of an image do not depend on others."""
        return super().train(False)

    def forward(self, x: Tensor) -> Tensor:
        """Features of images.

        Shape:
            x: (N, 3, H, W) in [-1, 1]; output: (N, d).
        """
        raise NotImplementedError(f"{type(self).__name__} makes no features")
