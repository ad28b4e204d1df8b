"""Blocks of PixelTransformer: causal self-attention of a whole sequence, or of one slot with cached keys and values."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Attention", "Block"]


class Attention(nn.Module):
    """softmax(Q K^T / sqrt(d)) V of several heads.

    Args:
        features: width.
        num_heads: number of heads; each has features / num_heads.

    References:
        Vaswani et al. 2017, section 3.2.
    """

    def __init__(self, features: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(features, 3 * features)
        self.project = nn.Linear(features, features)

    def forward(self, x: Tensor) -> Tensor:
        """Each slot attends to itself and to the slots before it.

        Shape:
            x: (N, T, D); output: the same.
        """
        # NOTE(paper): the Image Transformer attends to the last few hundred sub-pixels; ours, like iGPT, to all.
        q, k, v = self.heads(x)
        return self.merge(F.scaled_dot_product_attention(q, k, v, is_causal=True))

    def step(self, x: Tensor, cache: Tensor, t: int) -> Tensor:
        """`forward` of slot t alone, with the keys and values of the slots before it.

        Args:
            x: slot t.
            cache: keys and values of the slots before; those of this slot are written.
            t: index of the slot.

        Shape:
            x: (N, 1, D); cache: (2, N, heads, T, D / heads); output: (N, 1, D).
        """
        q, k, v = self.heads(x)
        cache[0, :, :, t : t + 1] = k
        cache[1, :, :, t : t + 1] = v
        keys, values = cache[:, :, :, : t + 1].unbind()
        return self.merge(F.scaled_dot_product_attention(q, keys, values))

    def heads(self, x: Tensor) -> tuple[Tensor, ...]:
        """Queries, keys and values.

        Shape:
            x: (N, T, D); output: three of (N, heads, T, D / heads).
        """
        qkv: Tensor = self.qkv(x).unflatten(2, (3, self.num_heads, -1))
        return qkv.permute(2, 0, 3, 1, 4).unbind()

    def merge(self, x: Tensor) -> Tensor:
        """The heads, concatenated and projected.

        Shape:
            x: (N, heads, T, D / heads); output: (N, T, D).
        """
        projected: Tensor = self.project(x.transpose(1, 2).flatten(2))
        return projected


class Block(nn.Module):
    """Attention and a perceptron of four times the width, each after a norm and added to its input.

    Args:
        features: width.
        num_heads: number of heads.

    References:
        Chen et al. 2020, section 3.2.
    """

    def __init__(self, features: int, num_heads: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(features)
        self.attention = Attention(features, num_heads)
        self.mlp_norm = nn.LayerNorm(features)
        self.mlp = nn.Sequential(nn.Linear(features, 4 * features), nn.GELU(), nn.Linear(4 * features, features))

    def forward(self, x: Tensor) -> Tensor:
        """All slots at once.

        Shape:
            x: (N, T, D); output: the same.
        """
        x = x + self.attention(self.attention_norm(x))
        x = x + self.mlp(self.mlp_norm(x))
        return x

    def step(self, x: Tensor, cache: Tensor, t: int) -> Tensor:
        """`forward` of slot t alone; see `Attention.step`."""
        x = x + self.attention.step(self.attention_norm(x), cache, t)
        x = x + self.mlp(self.mlp_norm(x))
        return x
