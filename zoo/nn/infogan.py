"""Parts of InfoGAN: its networks and its codes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.nn.layers import stages

__all__ = ["Generator", "LatentCodes", "RecognitionNetwork", "SharedTrunk", "Trunk", "initialize", "make_networks"]


class Trunk(nn.Module):
    """Image to features, shared by the discriminator and the recognition network.

    Attributes:
        features: how many there are.

    Shape:
        x: (N, image_channels, image_size, image_size) in [0, 1]; output: (N, features).
    """

    features: int


class Generator(nn.Module):
    """Noise and codes to image: two linear layers, then strided transposed convolutions.

    Shape:
        z: (N, inputs); output: (N, image_channels, image_size, image_size) in (0, 1).
    """

    def __init__(self, inputs: int, image_size: int, image_channels: int, base_channels: int, hidden: int) -> None:
        super().__init__()
        start, doublings = stages(image_size)
        width = base_channels * 2 ** (doublings - 1)
        self.start_shape = (width, start, start)
        features = math.prod(self.start_shape)
        self.linear = nn.Sequential(
            nn.Linear(inputs, hidden, bias=False),
            nn.BatchNorm1d(hidden),
            nn.ReLU(True),  # (N, hidden)
            nn.Linear(hidden, features, bias=False),
            nn.BatchNorm1d(features),
            nn.ReLU(True),  # (N, C * start * start)
        )
        layers: list[nn.Module] = []
        for _ in range(doublings - 1):
            layers += [
                nn.ConvTranspose2d(width, width // 2, 4, 2, 1, bias=False),
                nn.BatchNorm2d(width // 2),
                nn.ReLU(True),
            ]
            width //= 2  # (N, C / 2, 2H, 2W)
        self.conv = nn.Sequential(*layers, nn.ConvTranspose2d(width, image_channels, 4, 2, 1), nn.Sigmoid())

    def forward(self, z: Tensor) -> Tensor:
        """Generate images in (0, 1)."""
        x = cast(Tensor, self.linear(z)).view(-1, *self.start_shape)
        return cast(Tensor, self.conv(x))


class SharedTrunk(Trunk):
    """A trunk of strided convolutions, then a linear layer."""

    def __init__(
        self, image_size: int, image_channels: int, base_channels: int, hidden: int, negative_slope: float
    ) -> None:
        super().__init__()
        start, doublings = stages(image_size)
        width = base_channels
        layers: list[nn.Module] = [nn.Conv2d(image_channels, width, 4, 2, 1), nn.LeakyReLU(negative_slope, True)]
        for _ in range(doublings - 1):
            layers += [
                nn.Conv2d(width, 2 * width, 4, 2, 1, bias=False),
                nn.BatchNorm2d(2 * width),
                nn.LeakyReLU(negative_slope, True),
            ]
            width *= 2  # (N, 2C, H / 2, W / 2)
        self.conv = nn.Sequential(*layers)
        self.linear = nn.Sequential(
            nn.Linear(width * start * start, hidden, bias=False),
            nn.BatchNorm1d(hidden),
            nn.LeakyReLU(negative_slope, True),
        )
        self.features = hidden

    def forward(self, x: Tensor) -> Tensor:
        """Features of images."""
        return cast(Tensor, self.linear(self.conv(x).flatten(1)))


def make_networks(inputs: int, options: Mapping[str, Any]) -> tuple[Generator, SharedTrunk]:
    """Generator, and the trunk of discriminator and recognition network.

    Args:
        inputs: length of the generator's input.
        options: those of `zoo.InfoGAN`.
    """
    names = ("image_size", "image_channels", "base_channels", "hidden_features")
    sizes = [options[name] for name in names]
    return Generator(inputs, *sizes), SharedTrunk(*[*sizes, options["negative_slope"]])


class RecognitionNetwork(nn.Sequential):
    """Features to the parameters of Q(c | x): logits of each categorical code, then means and log variances.

    Shape:
        input: (N, hidden); output: (N, outputs).
    """

    def __init__(self, hidden: int, outputs: int, negative_slope: float) -> None:
        layers = [
            nn.Linear(hidden, 128, bias=False),
            nn.BatchNorm1d(128),
            nn.LeakyReLU(negative_slope, True),
            nn.Linear(128, outputs),
        ]
        super().__init__(*layers)


def initialize(module: nn.Module) -> None:
    """Draw weights from N(0, 0.02), those of convolutions within two deviations; norms' scales from N(1, 0.02)."""
    if isinstance(module, nn.Conv2d):
        nn.init.trunc_normal_(module.weight, 0.0, 0.02, -0.04, 0.04)
    elif isinstance(module, nn.ConvTranspose2d | nn.Linear):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
    if getattr(module, "bias", None) is not None:
        nn.init.zeros_(cast(Tensor, module.bias))


class LatentCodes:
    """Categorical codes, each one-hot, then continuous ones: a part c of the generator's input.

    Args:
        categorical: number of values of each categorical code.
        continuous: number of continuous codes.

    Attributes:
        size: length of c.
        num_draws: numbers that `draw` turns into one c.
        num_parameters: numbers that describe Q(c | x) for one image.

    Raises:
        ValueError: no code, or a categorical code of one value.
    """

    def __init__(self, categorical: Sequence[int], continuous: int) -> None:
        if any(count < 2 for count in categorical):
            raise ValueError(f"a categorical code needs at least two values, not {list(categorical)}")
        if not categorical and not continuous:
            raise ValueError("InfoGAN needs a code: give categorical_codes, num_continuous or both")
        self.categorical, self.continuous = tuple(categorical), continuous
        self.size = sum(categorical) + continuous
        self.num_draws = continuous + len(self.categorical)
        self.num_parameters = sum(categorical) + 2 * continuous

    @property
    def num_categories(self) -> int:
        """Number of values of the first categorical code.

        Raises:
            ValueError: there is none.
        """
        if not self.categorical:
            raise ValueError("this model has no categorical code")
        return self.categorical[0]

    def draw(self, uniform: Tensor) -> Tensor:
        """Codes from uniform numbers: continuous codes are numbers themselves, categories have equal chances.

        Shape:
            uniform: (N, num_draws) in [-1, 1); output: (N, size).
        """
        continuous, chosen = uniform.split([self.continuous, len(self.categorical)], 1)
        onehots = [
            F.one_hot(((chosen[:, i] + 1) * (count / 2)).long().clamp(max=count - 1), count).to(uniform.dtype)
            for i, count in enumerate(self.categorical)
        ]
        return torch.cat([*onehots, continuous], 1)

    def choose(self, codes: Tensor, category: Tensor) -> Tensor:
        """Codes whose first categorical code has given values.

        Shape:
            codes, output: (N, size); category: (N,) int64.
        """
        count = self.categorical[0]
        return torch.cat([F.one_hot(category, count).to(codes.dtype), codes[:, count:]], 1)

    def split(self, parameters: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
        """What describes Q(c | x): logits of each categorical code, means and log variances of the continuous ones.

        Shape:
            parameters: (N, num_parameters); output: (N, values) each, (N, continuous), (N, continuous).
        """
        *logits, mean, log_var = parameters.split([*self.categorical, self.continuous, self.continuous], 1)
        return logits, mean, log_var

    def categorical_bounds(self, codes: Tensor, logits: Sequence[Tensor]) -> list[Tensor]:
        """E log Q(c | x) + H(c) of each categorical code.

        Args:
            codes: what the images were made of.
            logits: Q's, of each code, as `split` gives them.

        Shape:
            codes: (N, size); logits: (N, values) each; output: scalars.
        """
        *onehots, _ = codes.split([*self.categorical, self.continuous], 1)
        return [
            -F.cross_entropy(q, code.argmax(1)) + math.log(q.size(1)) for code, q in zip(onehots, logits, strict=True)
        ]

    def continuous_bound(self, codes: Tensor, mean: Tensor) -> Tensor:
        """E log Q(c | x) + H(c) of all continuous codes.

        As in the authors' code Q has deviation 1, and the entropy is that of N(0, 1): the constants cancel.

        Shape:
            codes: (N, size); mean: Q's, (N, continuous); output: scalar.
        """
        c = codes[:, self.size - self.continuous :]
        return (-0.5 * (c - mean).square() + 0.5 * c.square()).sum(1).mean()

    def sweep(self, steps: int) -> dict[str, tuple[int, Tensor]]:
        """The values that a traversal shows of each code, by its name: first column in c, and a row for each image.

        Args:
            steps: values of a continuous code, from -2 to 2 as in the paper's figures; a category takes all its own.

        Shape:
            Values: (values of the category, the same) or (steps, 1).
        """
        result, start = {}, 0
        for i, count in enumerate(self.categorical):
            result["category" if len(self.categorical) == 1 else f"category{i}"] = start, torch.eye(count)
            start += count
        values = torch.linspace(-2, 2, steps).unsqueeze(1)
        return result | {f"continuous{i}": (start + i, values) for i in range(self.continuous)}
