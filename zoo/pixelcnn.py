"""PixelCNN: the distribution of each sub-pixel by masked convolutions over those before it.

    minimise  -log p(x) = -sum_i log p(x_i | x_1, ..., x_{i-1})

The fast baseline of van den Oord, Kalchbrenner and Kavukcuoglu, "Pixel Recurrent Neural Networks", ICML 2016,
arXiv 1601.06759: its receptive field grows with depth and has a blind spot to the upper right. The defaults are those
of a widely used PyTorch implementation for binary MNIST (15 blocks of 2 x 16 maps, Adam); the recipe
`pixelcnn-cifar1032-paper` has the paper's network for CIFAR-10.
"""

from __future__ import annotations

from typing import Any, Unpack, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.base.autoregressive import AutoregressiveModel, LikelihoodOptions, OptimizerName
from zoo.nn.masked import MaskedConv2d, PixelLayer, PixelNetwork, PixelSampler, matrix
from zoo.nn.sampling import Sampler

__all__ = ["PixelCNN", "ResidualBlock"]


class ResidualBlock(PixelLayer):
    """ReLU, 1x1 to half the maps, ReLU, masked 3x3, ReLU, 1x1 back; its input is added.

    Args:
        hidden_channels: h, half the maps of the trunk.
        image_channels: channels of the image.

    Shape:
        input, output: (N, 2h, H, W).

    References:
        van den Oord et al. 2016, figure 5 (left).
    """

    def __init__(self, hidden_channels: int, image_channels: int) -> None:
        super().__init__()
        h = hidden_channels
        self.down = MaskedConv2d(2 * h, h, (1, 1), "B", image_channels=image_channels)
        self.spatial = MaskedConv2d(h, h, (3, 3), "B", image_channels=image_channels)
        self.up = MaskedConv2d(h, 2 * h, (1, 1), "B", image_channels=image_channels)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """x + f(x)."""
        y = self.down(F.relu(x))
        y = self.spatial(F.relu(y))
        y = self.up(F.relu(y))
        return cast(Tensor, x + y)


class IncrementalSampler(PixelSampler):
    """Keeps one row of the input of each block's 3x3 convolution."""

    def __init__(self, network: PixelNetwork, n: int, width: int) -> None:
        super().__init__(network, n, width)
        blocks: Any = list(network.layers)
        self.down = [matrix(block.down) for block in blocks]
        self.up = [matrix(block.up) for block in blocks]
        spatial = torch.stack([block.spatial.masked for block in blocks]).permute(3, 0, 1, 4, 2)  # (3, L, out, 3, in)
        self.spatial_upper = spatial[0].flatten(2)
        self.spatial_here = spatial[1, :, :, :2].flatten(2).unbind()
        self.spatial_bias = torch.stack([block.spatial.bias for block in blocks])[:, None, :, None]
        self.rows = spatial.new_zeros(len(blocks), width + 2, spatial.size(-1), n)  # a zero on both sides
        # Views on a pixel, and on it with its left neighbour.
        self.places = [row[1:-1].unbind() for row in self.rows]
        self.pairs = [[row[i : i + 2].flatten(0, 1) for i in range(width)] for row in self.rows]

    def start_layers(self, row: int) -> None:
        """Compute the contribution of the finished row to the 3x3 convolutions."""
        windows = torch.cat([self.rows[:, :-2], self.rows[:, 1:-1], self.rows[:, 2:]], 2)  # (L, W, 3h, N)
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
        num_levels: values of a sub-pixel; 2 for binary images.
        hidden_channels: the paper's h; the trunk has 2h feature maps.
        num_layers: residual blocks.
        head_channels: feature maps of the head.
        head_layers: 1x1 convolutions before the last one, which gives the logits.
        optimizer: "adam", "rmsprop", or "sgd" with momentum.
        options: see `LikelihoodOptions`.

    Raises:
        ValueError: fewer than two levels, or fewer feature maps than colors.

    References:
        van den Oord et al. 2016, section 3.5 and table 1.
    """

    network: PixelNetwork

    def __init__(
        self,
        image_size: int = 28,
        image_channels: int = 1,
        num_levels: int = 2,
        *,
        hidden_channels: int = 16,
        num_layers: int = 15,
        head_channels: int = 32,
        head_layers: int = 1,
        optimizer: OptimizerName = "adam",
        **options: Unpack[LikelihoodOptions],
    ) -> None:
        super().__init__(num_levels, optimizer=optimizer, **options)
        self.save_hyperparameters()
        self.network = PixelNetwork(
            [ResidualBlock(hidden_channels, image_channels) for _ in range(num_layers)],
            hidden_channels,
            image_channels,
            self.outputs,
            head_channels=head_channels,
            head_layers=head_layers,
        )

    def sampler(self, n: int) -> Sampler:
        """Incremental sampler: one row of features per block is kept."""
        return IncrementalSampler(self.network, n, self.image_shape[2])
