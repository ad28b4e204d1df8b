"""PixelCNN: the distribution of each sub-pixel by masked convolutions over those before it.

    minimise  -log p(x) = -sum_i log p(x_i | x_1, ..., x_{i-1})

The fast baseline of van den Oord, Kalchbrenner and Kavukcuoglu, "Pixel Recurrent Neural Networks", ICML 2016,
arXiv 1601.06759: its receptive field grows with depth and has a blind spot to the upper right. The defaults are those
of a widely used PyTorch implementation for binary MNIST (15 blocks of 2 x 16 maps, Adam); `PixelCNN.paper()` is the
paper's network for CIFAR-10.
"""

from __future__ import annotations

from typing import Any, Literal, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.base.autoregressive import AutoregressiveModel
from zoo.nn.masked import MaskedConv2d, PixelLayer, PixelNetwork, PixelSampler, matrix

__all__ = ["PixelCNN", "ResidualBlock"]


class ResidualBlock(PixelLayer):
    """ReLU, 1x1 to half the maps, ReLU, masked 3x3, ReLU, 1x1 back; its input is added.

    Args:
        features: half the maps of the trunk.
        channels: channels of the image.

    Shape:
        input, output: (N, 2 features, H, W).

    References:
        van den Oord et al. 2016, figure 5 (left).
    """

    def __init__(self, features: int, channels: int) -> None:
        super().__init__()
        self.down = MaskedConv2d(2 * features, features, (1, 1), "B", channels=channels)
        self.spatial = MaskedConv2d(features, features, (3, 3), "B", channels=channels)
        self.up = MaskedConv2d(features, 2 * features, (1, 1), "B", channels=channels)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Add what the convolutions find."""
        y = self.down(F.relu(x))
        y = self.spatial(F.relu(y))
        y = self.up(F.relu(y))
        return cast(Tensor, x + y)


class _Sampler(PixelSampler):
    """Keeps of every block one row of what its 3x3 convolution sees."""

    def __init__(self, network: PixelNetwork, n: int, width: int) -> None:
        super().__init__(network, n, width)
        blocks: Any = list(network.layers)
        self.down = [matrix(block.down) for block in blocks]
        self.up = [matrix(block.up) for block in blocks]
        spatial = torch.stack([block.spatial.masked for block in blocks]).permute(3, 0, 1, 4, 2)  # (3, L, out, 3, in)
        self.spatial_upper = spatial[0].flatten(2)
        self.spatial_here = spatial[1, :, :, :2].flatten(2).unbind()
        self.spatial_bias = torch.stack([block.spatial.bias for block in blocks])[:, None, :, None]
        self.features = spatial.size(-1)
        self.rows = spatial.new_zeros(len(blocks), width + 2, self.features, n)  # a zero on both sides
        # Views on a pixel, and on it with its left neighbour.
        self.places = [row[1:-1].unbind() for row in self.rows]
        self.pairs = [[row[i : i + 2].flatten(0, 1) for i in range(width)] for row in self.rows]

    def start_layers(self, row: int) -> None:
        """What the finished row contributes to the 3x3 convolutions."""
        windows = torch.cat([self.rows[:, :-2], self.rows[:, 1:-1], self.rows[:, 2:]], 2)  # (L, W, 3 features, N)
        from_above = torch.matmul(self.spatial_upper[:, None], windows) + self.spatial_bias
        self.from_above = [layer.unbind() for layer in from_above]

    def layer(self, i: int, x: Tensor, column: int) -> Tensor:
        """A residual block at one pixel."""
        weight, bias = self.down[i]
        torch.clamp_min(torch.addmm(bias, weight, x.relu()), 0, out=self.places[i][column])
        y = torch.addmm(self.from_above[i][column], self.spatial_here[i], self.pairs[i][column])
        weight, bias = self.up[i]
        return torch.addmm(x, weight, y.relu_()).add_(bias)


class PixelCNN(AutoregressiveModel):
    """PixelCNN with residual blocks.

    Args:
        image_size: side of the images.
        image_channels: 1 or 3.
        levels: values of a sub-pixel; 2 for binary images.
        features: half the feature maps of the trunk.
        num_layers: residual blocks.
        head_features: feature maps of the head.
        head_layers: 1x1 convolutions before that to the logits.
        skip: connect every block to the head.
        learning_rate: step size.
        optimizer: "rmsprop" or "adam".
        final_rate: share of the step size that is left at the end of the run, to which it falls exponentially.

    Raises:
        ValueError: fewer than two levels, or fewer features than colours.

    References:
        van den Oord et al. 2016, section 3.5 and table 1.
    """

    network: PixelNetwork

    def __init__(
        self,
        image_size: int = 28,
        image_channels: int = 1,
        levels: int = 2,
        *,
        features: int = 16,
        num_layers: int = 15,
        head_features: int = 32,
        head_layers: int = 1,
        skip: bool = False,
        learning_rate: float = 1e-3,
        optimizer: Literal["rmsprop", "adam"] = "adam",
        final_rate: float = 1.0,
    ) -> None:
        super().__init__(levels, learning_rate=learning_rate, optimizer=optimizer, final_rate=final_rate)
        self.save_hyperparameters()
        if min(features, head_features) < image_channels:
            raise ValueError(f"features and head_features must be at least the {image_channels} colours")
        self.network = PixelNetwork(
            [ResidualBlock(features, image_channels) for _ in range(num_layers)],
            features,
            image_channels,
            self.outputs,
            head_features=head_features,
            head_layers=head_layers,
            skip=skip,
        )

    @classmethod
    def paper(cls, **options: Any) -> PixelCNN:
        """The paper's network for CIFAR-10; use a batch size of 16.

        Args:
            options: replace further arguments of the constructor.
        """
        setting: dict[str, Any] = {
            "image_size": 32,
            "image_channels": 3,
            "levels": 256,
            "features": 128,
            "head_features": 1024,
            "head_layers": 2,
            "optimizer": "rmsprop",
        }
        return cls(**setting | options)

    def logits(self, x: Tensor) -> Tensor:
        """Logits of each sub-pixel given all earlier ones.

        Shape:
            x: (N, C, H, W) in [-1, 1]; output: (N, K, C, H, W).
        """
        return self.network(x)  # type: ignore[no-any-return]

    def sampler(self, n: int) -> PixelSampler:
        """Incremental sampler: one row of features per block is kept.

        Args:
            n: number of images.
        """
        return _Sampler(self.network, n, self.image_shape[2])
