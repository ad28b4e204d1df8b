"""The draws of `zoo.engine.rng` as one kernel each on a GPU, where each operation of torch is a kernel of its own.

The code is CUDA, compiled at the first draw by torch's `jiterator`, whose kernels take and give tensors of one type: so
numbers in floating point come as the bits of a float64, in an int64. The arithmetic is that of `zoo.engine.rng`, step
by step. Where this torch cannot compile it, or the bits differ, `kernels` gives None, and draws stay as they are
elsewhere.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

__all__ = ["BODIES", "Kernels", "code", "float_bits", "kernels"]

Kernels = dict[str, Callable[..., Tensor]]

_HASH = """
    unsigned long long x = (unsigned long long)start + (unsigned long long)counter * 0x9E3779B97F4A7C15ULL;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ULL;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBULL;
    x = x ^ (x >> 31);
"""

BODIES = {
    "bits": ("", "return (T)x;"),
    "integers": (", T high", "return (T)(x >> 33) % high;"),
    # 24 bits, scaled in float32 as torch does: a product and a sum, each rounded.
    "uniform": (
        ", T scale, T low",
        """float unit = (float)(x >> 40) * 5.9604644775390625e-08f;
        float wide = __fmul_rn(unit, (float)__longlong_as_double(scale));
        return (T)__double_as_longlong((double)__fadd_rn(wide, (float)__longlong_as_double(low)));""",
    ),
    "normal": (
        "",
        """double angle = cos((double)(x & 0xFFFFFFFFULL) * 1.4629180792671596e-09);
        double radius = sqrt(log(((double)(x >> 32) + 0.5) * 2.3283064365386962890625e-10) * -2.0);
        return (T)__double_as_longlong(radius * angle);""",
    ),
}


def float_bits(value: float) -> int:
    """The bits of a float64 as a signed integer."""
    return int(struct.unpack("<q", struct.pack("<d", value))[0])


@cache
def kernels() -> Kernels | None:
    """The kernels by the names of the draws, or None where they cannot be had."""
    if not torch.cuda.is_available():
        return None
    try:
        made = {name: _compiled(name) for name in BODIES}
        counter = torch.arange(5, device="cuda")
        right = made["bits"](counter, start=7)[:2].tolist() == [1346066267577507604, 7191089600892374487]
        drawn = made["normal"](counter, start=7).view(torch.float64)
        return made if right and bool(drawn.isfinite().all()) else None
    except Exception:  # whatever a compiler may say: draws work without
        return None


def code(name: str) -> str:
    """The function of one element that gives a draw.

    Args:
        name: name of the draw.
    """
    parameters, body = BODIES[name]
    return f"template <typename T> T keyed_{name}(T counter, T start{parameters}) {{ {_HASH} {body} }}\n"


def _compiled(name: str) -> Callable[..., Tensor]:
    from torch.cuda import jiterator

    options = dict.fromkeys(["start", *(p.split()[1] for p in BODIES[name][0].split(",")[1:])], 0)
    compiled: Callable[..., Tensor] = jiterator._create_jit_fn(code(name), **options)
    return compiled
