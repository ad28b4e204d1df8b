"""The recursion of NADE as one differentiable function that needs little memory.

    out_i = V_i . sigma(rho_i a_i),   a_i = c + sum_{j<i} W_j x_j

`NADENetwork.naive_forward` in `zoo.nade` is the same recursion, value after value as in the paper.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from zoo.engine.tracing import is_exported

__all__ = ["recursion"]


def recursion(
    x: Tensor,
    *,
    input_weight: Tensor,
    hidden_bias: Tensor,
    output_weight: Tensor,
    rescaling: Tensor | None = None,
    relu: bool = False,
    chunk: int | None = None,
) -> Tensor:
    """Outputs V_i . sigma(rho_i a_i) of all i, a_i = c + sum_{j<i} W_j x_j, with their gradients.

    Args:
        x: values in the order in which they are read.
        input_weight: W.
        hidden_bias: c.
        output_weight: V.
        rescaling: rho; None is 1.
        relu: sigma is a ReLU instead of a sigmoid.
        chunk: values that are computed together; None takes a number that suits the device.

    Shape:
        x: (N, D); W: (D, H); c: (H,); V: (D, K, H); rho: (D,); output: (D, N, K).
    """
    if chunk is None:
        # As many as lie in a CPU's cache; elsewhere fewer, larger calls.
        chunk = 8 if x.device.type == "cpu" and not is_exported() else 56
    out: Tensor = _Recursion.apply(x, input_weight, hidden_bias, output_weight, rescaling, relu, chunk)
    return out


class _Recursion(torch.autograd.Function):
    """`recursion`, with a backward pass of its own.

    The activations of all i are one large array, (D, N, H), and their outputs are small: written with tensor operations
    under autograd, several copies of the array pass through memory. Here `chunk` of the i at a time are computed, used
    and dropped while they lie in the cache; the backward pass computes them again from the sum before them. Within a
    chunk the exclusive sum is a product of W with a strictly triangular matrix of x: a matrix product is faster than a
    cumulative sum, and so are its gradients. Sums stay in full precision under autocast.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, w: Tensor, c: Tensor, v: Tensor, rho: Tensor | None, relu: bool, chunk: int
    ) -> Tensor:
        """Chunk by chunk from the first."""
        with torch.autocast(x.device.type, enabled=False):
            parts, starts, start = [], [], c.expand(x.size(0), -1)
            for i in range(0, len(w), chunk):
                part = slice(i, i + chunk)
                starts.append(start)
                h = _activations(start, _triangular(x[:, part]), w[part])
                _nonlinearity(h if rho is None else h.mul_(rho[part, None, None]), relu)
                parts.append(torch.bmm(h, v[part].mT))
                start = torch.addmm(start, x[:, part], w[part])
        ctx.save_for_backward(x, w, v, rho, torch.stack(starts))
        ctx.relu, ctx.chunk = relu, chunk
        return torch.cat(parts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Chunk by chunk from the last, with the gradient of all later activations in `later`."""
        x, w, v, rho, starts = ctx.saved_tensors
        dx = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        dw, dv, drho = torch.empty_like(w), torch.empty_like(v), None if rho is None else torch.empty_like(rho)
        later = torch.zeros_like(starts[0])
        with torch.autocast(x.device.type, enabled=False):
            for k in reversed(range(len(starts))):
                part = slice(k * ctx.chunk, (k + 1) * ctx.chunk)
                triangular = _triangular(x[:, part])
                a = _activations(starts[k], triangular, w[part])
                h = _nonlinearity(a if rho is None else a * rho[part, None, None], ctx.relu)
                torch.bmm(gradient[part].mT, h, out=dv[part])
                dh = torch.bmm(gradient[part], v[part])  # (chunk, N, H)
                da = _gradient_of_activations(dh, h, ctx.relu)
                if rho is not None and drho is not None:
                    drho[part] = (da * a).sum((1, 2))
                    da *= rho[part, None, None]
                torch.mm(triangular.flatten(0, 1).T, da.flatten(0, 1), out=dw[part])
                dw[part].addmm_(x[:, part].T, later)
                if dx is not None:
                    earlier = torch.ones(len(da), len(da), dtype=x.dtype, device=x.device).tril(-1)
                    inner = torch.einsum("inh,jh,ij->nj", da, w[part], earlier)
                    dx[:, part] = inner + later @ w[part].T
                later += da.sum(0)
        return dx, dw, later.sum(0), dv, drho, None, None


def _triangular(x: Tensor) -> Tensor:
    """Entry (i, n, j) is x of image n at j where j < i, else 0.

    Shape:
        x: (N, chunk); output: (chunk, N, chunk).
    """
    return x * torch.ones(x.size(1), x.size(1), dtype=x.dtype, device=x.device).tril(-1)[:, None]


def _activations(start: Tensor, triangular: Tensor, w: Tensor) -> Tensor:
    """Shape: start: (N, H); triangular: (chunk, N, chunk); w: (chunk, H); output: (chunk, N, H)."""
    return (triangular.flatten(0, 1) @ w).view(*triangular.shape[:2], -1).add_(start)


def _nonlinearity(a: Tensor, relu: bool) -> Tensor:
    """The nonlinearity, in place."""
    return a.relu_() if relu else a.sigmoid_()


def _gradient_of_activations(dh: Tensor, h: Tensor, relu: bool) -> Tensor:
    """Gradient with respect to the activations a, from the gradient with respect to h."""
    aten = torch.ops.aten
    da: Tensor = aten.threshold_backward(dh, h, 0) if relu else aten.sigmoid_backward(dh, h)
    return da
