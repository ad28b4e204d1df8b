"""The codes of InfoGAN: their draws, the parameters of Q(c | x), and the values that a traversal shows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["LatentCodes"]


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

    def categorical_bounds(self, codes: Tensor, parameters: Tensor) -> list[Tensor]:
        """E log Q(c | x) + H(c) of each categorical code.

        Shape:
            codes: (N, size); parameters: (N, num_parameters); output: scalars.
        """
        *onehots, _ = codes.split([*self.categorical, self.continuous], 1)
        logits, _, _ = self.split(parameters)
        return [
            -F.cross_entropy(q, code.argmax(1)) + math.log(q.size(1)) for code, q in zip(onehots, logits, strict=True)
        ]

    def continuous_bound(self, codes: Tensor, parameters: Tensor) -> Tensor:
        """E log Q(c | x) + H(c) of all continuous codes.

        As in the authors' code Q has deviation 1, and the entropy is that of N(0, 1): the constants cancel.

        Shape:
            codes: (N, size); parameters: (N, num_parameters); output: scalar.
        """
        c = codes[:, self.size - self.continuous :]
        _, mean, _ = self.split(parameters)
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
