"""StarGAN's networks: tables 4 and 5 of Choi et al. 2018, details as in the authors' code."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.nn.layers import FewChannelConv2d, instance_norm

__all__ = ["Discriminator", "Generator", "InstanceNorm", "ResidualBlock", "halving_layers"]


class InstanceNorm(nn.InstanceNorm2d):
    """Instance normalization with a scale and a shift, always by the image's own statistics.

    The authors' layers keep running statistics too, but are never put into evaluation mode, so nothing reads them.

    Args:
        channels: channels of the maps.

    Shape:
        Input and output: (N, C, H, W).
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, affine=True)

    def forward(self, input: Tensor) -> Tensor:
        """Normalize each map of each image."""
        return instance_norm(input, self.weight, self.bias, self.eps)


class ResidualBlock(nn.Module):
    """x + f(x), f two 3x3 convolutions.

    Args:
        channels: channels of the maps.
        norm: makes the normalization for a number of channels.

    Shape:
        Input and output: (N, C, H, W).
    """

    def __init__(self, channels: int, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for activation in ([nn.ReLU(True)], []):
            layers += [nn.Conv2d(channels, channels, 3, 1, 1, bias=False), norm(channels), *activation]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """The sum."""
        return x + cast(Tensor, self.layers(x))


class Generator(nn.Module):
    """Image and target domain to image: two halvings, residual blocks, two doublings (table 4).

    The domain enters as constant maps next to the image's channels. All padding is with zeros: the first normalization
    would remove a constant map altogether, were it not for the border.

    Args:
        image_channels: channels of the images.
        base_channels: channels of the largest hidden map.
        num_blocks: residual blocks.
        domain_maps: constant maps, one for each number of a domain vector.
        norm: makes the normalization of a number of channels.

    Shape:
        x: (N, image_channels, H, W), both sides divisible by 4; domain: (N, domain_maps); output as x, in [-1, 1].
    """

    def __init__(
        self,
        image_channels: int,
        base_channels: int,
        num_blocks: int,
        domain_maps: int,
        norm: Callable[[int], nn.Module] = InstanceNorm,
    ) -> None:
        super().__init__()
        c = base_channels

        def layer(conv: nn.Module, channels: int) -> list[nn.Module]:
            return [conv, norm(channels), nn.ReLU(True)]

        self.layers = nn.Sequential(
            *layer(nn.Conv2d(image_channels + domain_maps, c, 7, 1, 3, bias=False), c),  # (N, C, H, W)
            *layer(nn.Conv2d(c, 2 * c, 4, 2, 1, bias=False), 2 * c),  # (N, 2C, H / 2, W / 2)
            *layer(nn.Conv2d(2 * c, 4 * c, 4, 2, 1, bias=False), 4 * c),  # (N, 4C, H / 4, W / 4)
            *(ResidualBlock(4 * c, norm) for _ in range(num_blocks)),
            *layer(nn.ConvTranspose2d(4 * c, 2 * c, 4, 2, 1, bias=False), 2 * c),  # (N, 2C, H / 2, W / 2)
            *layer(nn.ConvTranspose2d(2 * c, c, 4, 2, 1, bias=False), c),  # (N, C, H, W)
            FewChannelConv2d(c, image_channels, 7, 1, 3, bias=False),
        )

    def forward(self, x: Tensor, domain: Tensor) -> Tensor:
        """The images in their target domains."""
        maps = domain.to(x.dtype)[:, :, None, None].expand(-1, -1, *x.shape[2:])
        return cast(Tensor, self.layers(torch.cat([x, maps], 1))).tanh()


def halving_layers(image_channels: int, base_channels: int, num_layers: int) -> tuple[nn.Sequential, int]:
    """Convolutions that halve the side and double the channels, without normalization, and their last channels."""
    layers: list[nn.Module] = []
    channels, width = image_channels, base_channels
    for _ in range(num_layers):
        layers += [nn.Conv2d(channels, width, 4, 2, 1), nn.LeakyReLU(0.01, True)]  # (N, C, S / 2, S / 2), ...
        channels, width = width, 2 * width
    return nn.Sequential(*layers), channels


class Discriminator(nn.Module):
    """Image to critic values of its patches and to logits of its labels (table 5).

    Args:
        image_size: side of the images, a multiple of 2^num_layers.
        image_channels: channels of the images.
        base_channels: channels of the first hidden map.
        num_layers: convolutions that halve the side.
        num_labels: attributes and categories together.

    Shape:
        x: (N, image_channels, S, S); output: (N, 1, S / 2^L, S / 2^L) critic values and (N, num_labels) logits.
    """

    def __init__(
        self, image_size: int, image_channels: int, base_channels: int, num_layers: int, num_labels: int
    ) -> None:
        super().__init__()
        self.layers, channels = halving_layers(image_channels, base_channels, num_layers)
        self.critic = nn.Conv2d(channels, 1, 3, 1, 1, bias=False)
        self.classifier = nn.Conv2d(channels, num_labels, image_size // 2**num_layers, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Critic values, higher for images taken for real, and logits."""
        features = self.layers(x)
        return self.critic(features), self.classifier(features).mean((2, 3))

    def input_gradient(self, x: Tensor) -> Tensor:
        """Gradient of the sum of an image's critic values with respect to the image, with a graph to the weights.

        Between its kinks the critic is linear: so the gradient is the transposed convolutions of a constant, with the
        slopes that the image has chosen, and a penalty on it costs one backward pass through these. To differentiate
        twice costs twice as much and gives the same.

        Shape:
            x, output: (N, image_channels, S, S).
        """
        slopes = []
        with torch.no_grad():
            for layer in self.layers:
                x = layer(x)
                if isinstance(layer, nn.LeakyReLU):
                    slopes.append(torch.full_like(x, layer.negative_slope).masked_fill_(x > 0, 1.0))
            values = self.critic(x)

        def back(gradient: Tensor, layer: nn.Conv2d) -> Tensor:
            padding = cast(tuple[int, int], layer.padding)
            return F.conv_transpose2d(gradient, layer.weight, stride=layer.stride, padding=padding)

        gradient = back(torch.ones_like(values), self.critic)
        convolutions = [layer for layer in self.layers if isinstance(layer, nn.Conv2d)]
        for layer, slope in zip(reversed(convolutions), reversed(slopes), strict=True):
            gradient = back(gradient * slope, layer)
        return gradient
