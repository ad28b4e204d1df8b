"""PixelTransformer: causal self-attention over the sub-pixels of an image, one after another.

    log p(x) = sum_t log p(x_t | x_1, ..., x_{t-1}),   logits of x_t = head(norm(h_t)) after the blocks
    h <- h + attention(norm(h)),   h <- h + MLP(norm(h)),   attention of t over the slots 1, ..., t
    slot t starts as the embedding of x_{t-1} (of a start token for t = 1) + row, column and channel of x_t

Parmar et al., "Image Transformer", ICML 2018, arXiv 1802.05751, for the idea; Chen et al., "Generative Pretraining from
Pixels" (iGPT), ICML 2020, for attention over the full raster with norms before the layers and GELU. Differences: the
Image Transformer attends within local blocks and has dropout; here a sub-pixel attends to all before it, without
dropout. iGPT merges a pixel's three channels into one of 512 colors; here they are three tokens, each with an exact
likelihood.

The sequence has T = H * W * C sub-pixels. Time grows with T^2, weights with H + W + C.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Unpack, cast

import torch
from torch import Tensor, nn

from zoo.base.autoregressive import AutoregressiveModel, LikelihoodOptions
from zoo.nn.pixel_transformer import Block
from zoo.nn.sampling import Sampler

__all__ = ["CachedSampler", "PixelTransformer"]


class Transformer(nn.Module):
    """From the levels of the sub-pixels in raster order to the logits of each given those before it.

    Args:
        image_shape: (C, H, W).
        num_levels: values that a sub-pixel can take.
        outputs: logits per sub-pixel.
        features: width.
        num_layers: number of blocks.
        num_heads: heads of each attention.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        num_levels: int,
        outputs: int,
        features: int,
        num_layers: int,
        num_heads: int,
    ) -> None:
        super().__init__()
        channels, height, width = image_shape
        self.level = nn.Embedding(num_levels, features)
        self.start = nn.Parameter(torch.empty(features))
        self.row = nn.Parameter(torch.empty(height, 1, 1, features))
        self.column = nn.Parameter(torch.empty(width, 1, features))
        self.channel = nn.Parameter(torch.empty(channels, features))
        self.blocks = nn.ModuleList(Block(features, num_heads) for _ in range(num_layers))
        self.norm = nn.LayerNorm(features)
        self.head = nn.Linear(features, outputs)
        self.initialize()

    def initialize(self) -> None:
        """Weights from N(0, 0.02^2), biases 0; weights that end in the residual path are divided by sqrt(2 layers).

        References:
            Radford et al. 2019 (GPT-2), section 2.3, which Chen et al. 2020 follow.
        """
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif "norm" not in name:
                is_added = name.endswith(("attention.project.weight", "mlp.2.weight"))
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * len(self.blocks)) if is_added else 0.02)

    def positions(self) -> Tensor:
        """Embeddings of all positions in raster order.

        Shape:
            Output: (T, D).
        """
        return (self.row + self.column + self.channel).flatten(0, 2)

    def forward(self, levels: Tensor) -> Tensor:
        """Logits of all sub-pixels.

        Shape:
            levels: (N, T) int64; output: (N, T, K).
        """
        # Slot t holds the sub-pixel before t, so that no slot sees its own.
        start = self.start.expand(levels.size(0), 1, -1)
        x = torch.cat([start, self.level(levels[:, :-1])], 1) + self.positions()  # (N, T, D)
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(self.norm(x))
        return logits

    def step(self, before: Tensor, positions: Tensor, cache: Tensor, t: int) -> Tensor:
        """Logits of sub-pixel t, counted from 0, from its slot and the cached slots before it.

        Args:
            before: level of the sub-pixel before, not used for t = 0.
            positions: see `positions`.
            cache: keys and values of all blocks; those of this slot are written.
            t: index of the sub-pixel.

        Shape:
            before: (N,) int64; positions: (T, D); cache: (layers, 2, N, heads, T, D / heads); output: (N, K).
        """
        token = self.level(before) if t else self.start.expand(len(before), -1)
        x = (token + positions[t]).unsqueeze(1)  # (N, 1, D)
        for block, part in zip(cast(Iterable[Block], self.blocks), cache, strict=True):
            x = block.step(x, part, t)
        logits: Tensor = self.head(self.norm(x[:, 0]))
        return logits


class CachedSampler:
    """Runs one slot per sub-pixel and keeps the keys and values of all slots before it.

    The cache holds 2 * num_layers * features numbers per sub-pixel and image: its memory grows with depth times image
    area. The work of the attention, and nothing else, grows with the number of sub-pixels drawn so far.

    Args:
        model: the model.
        n: number of images.
    """

    def __init__(self, model: PixelTransformer, n: int) -> None:
        layers, heads = model.hparams["num_layers"], model.hparams["num_heads"]
        self.model = model
        self.positions = model.network.positions()
        length, features = self.positions.shape
        self.cache = self.positions.new_empty(layers, 2, n, heads, length, features // heads)

    def start_row(self, x: Tensor, row: int) -> None:
        """Nothing belongs to a row."""

    def logits(self, x: Tensor, row: int, column: int, channel: int) -> Tensor:
        """Logits of the next sub-pixel; its slot, which holds the sub-pixel before it, joins the cache."""
        channels, _, width = self.model.image_shape
        t = (row * width + column) * channels + channel
        pixel, channel = divmod(max(t - 1, 0), channels)
        before = self.model.to_levels(x[:, channel, pixel // width, pixel % width])
        return self.model.network.step(before, self.positions, self.cache, t)


class PixelTransformer(AutoregressiveModel):
    """Transformer over the raster sequence of sub-pixels.

    Args:
        image_size: side of the images; time grows with its fourth power.
        image_channels: channels of the images.
        num_levels: values that a sub-pixel can take: 2 for binary images, 256 for 8 bits.
        features: width.
        num_layers: number of blocks.
        num_heads: heads of each attention.
        options: see `LikelihoodOptions`.

    Raises:
        ValueError: a size is not positive, or features is no multiple of num_heads.

    References:
        Parmar et al. 2018, section 3; Chen et al. 2020, section 3.2.
    """

    network: Transformer

    def __init__(
        self,
        image_size: int = 28,
        image_channels: int = 1,
        num_levels: int = 2,
        features: int = 64,
        num_layers: int = 4,
        num_heads: int = 4,
        **options: Unpack[LikelihoodOptions],
    ) -> None:
        super().__init__(num_levels, **options)
        self.save_hyperparameters()
        if features % num_heads:
            raise ValueError(f"features must be a multiple of num_heads ({num_heads}), not {features}")
        self.network = Transformer(self.image_shape, num_levels, self.outputs, features, num_layers, num_heads)

    def logits(self, x: Tensor) -> Tensor:
        """Logits of each sub-pixel given all earlier ones.

        Shape:
            x: (N, C, H, W) in [-1, 1], on the model's levels; output: (N, K, C, H, W), K = 1 for two levels.

        Raises:
            ValueError: the images have another size.
        """
        channels, height, width = self.image_shape
        if x.shape[1:] != self.image_shape:
            raise ValueError(f"images must be (N, {channels}, {height}, {width}), not {tuple(x.shape)}")
        sequence = self.to_levels(x).permute(0, 2, 3, 1).flatten(1)  # (N, T)
        logits: Tensor = self.network(sequence).unflatten(1, (height, width, channels))
        return logits.permute(0, 4, 3, 1, 2)

    def sampler(self, n: int) -> Sampler:
        """The sampler with a cache of keys and values; see `CachedSampler` for its memory."""
        return CachedSampler(self, n)
