"""Keyed randomness: every draw is a function of (key, index), never of what was drawn before.

A pseudo-random number generator with a state gives different numbers when the batch is cut differently, when a run is
resumed, or when one more sample grid is drawn. Here each number is the value of a hash at a counter: row `i` of a draw
depends on the key and on `first + i` only. So N ranks draw what one process would draw for the concatenated batch, a
resumed run continues bit for bit, and nothing has to be saved.

The hash is SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014, fig. 19),
whose output function is applied to `key + counter * golden ratio`. It runs as integer tensor operations on any device,
without a host synchronisation; the bits are the same on every device. On CUDA one kernel makes a whole draw.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from typing import TypeVar

import torch
from torch import Tensor

from zoo.engine.devices import has_float64, upload
from zoo.engine.keyed_kernels import float_bits, kernels

__all__ = [
    "Key",
    "LateKey",
    "integers",
    "keep_mask",
    "key",
    "normal",
    "permutation",
    "ranks",
    "run_seed",
    "uniform",
]

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed 64-bit integer
_MIX1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX2 = -7723592293110705685  # 0x94D049BB133111EB
_INVERSE = pow(_GOLDEN, -1, 2**64)
_TABLE = 2**18


@dataclass(frozen=True)
class LateKey:
    """A key that lies on the device, where each step of a captured run finds another one (see `zoo.engine.capture`).

    Attributes:
        name: tells this key from others of the step.
        compute: the key of the present step.
        placed: a tensor of one number that holds what a function gives, in each step anew.
    """

    name: str
    compute: Callable[[], int]
    placed: Callable[[str, Callable[[], int]], Tensor]

    def derived(self, name: str, function: Callable[[int], int]) -> LateKey:
        """A key that is a function of this one."""
        return LateKey(f"{self.name}/{name}", lambda: function(self.compute()), self.placed)

    def __add__(self, number: int) -> LateKey:
        """The key so much further."""
        return self.derived(f"+{number}", lambda key: key + number)

    def counter(self) -> Tensor:
        """The number of golden ratios that make the key: a draw with key 0 from this counter on is one with this key.

        Shape:
            Output: scalar, int64.
        """
        return self.placed(f"key {self.name}", lambda: _signed(self.compute() * _INVERSE))


Key = int | LateKey
_AnyKey = TypeVar("_AnyKey", int, LateKey, int | LateKey)


def run_seed() -> int:
    """Seed of the run: the one given to `lightning.seed_everything` (or `--seed_everything`), else 0."""
    return int(os.environ.get("PL_GLOBAL_SEED", "0"))


def key(seed: _AnyKey, *purpose: str | int) -> _AnyKey:
    """Key of a stream of random numbers: a 63-bit hash of a seed and of what the numbers are for.

    Args:
        seed: seed of the run or of the caller, or another key.
        purpose: names and numbers that tell this stream from all others, such as `("z", step)`.
    """
    if isinstance(seed, LateKey):
        return seed.derived("/".join(map(str, purpose)), lambda number: key(number, *purpose))
    text = "/".join(map(str, (seed, *purpose)))
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def _shift_right(x: Tensor, bits: int) -> Tensor:
    """Logical right shift (torch's `>>` copies the sign bit)."""
    return (x >> bits).bitwise_and_((1 << (64 - bits)) - 1)


def _signed(number: int) -> int:
    """The lowest 64 bits of an integer as a signed one."""
    return (number + 2**63) % 2**64 - 2**63


def _start(shape: Sequence[int], key: Key, first: int) -> int:
    """Counter 0 of row `first` as a signed 64-bit integer: the hash's input is this plus multiples of the ratio."""
    own = key if isinstance(key, int) else 0
    return _signed(own + (first * math.prod(shape[1:]) + 1) * _GOLDEN)


def _bits(shape: Sequence[int], key: Key, first: int, device: torch.device | str | None) -> Tensor:
    """64 random bits per element as int64; element (i, j) comes from counter `(first + i) * row + j`."""
    # In place, as tiny models wait for these calls: each costs more than its arithmetic.
    x = torch.arange(math.prod(shape), dtype=torch.int64, device=device)
    if not isinstance(key, int):
        x += key.counter()
    x.mul_(_GOLDEN)
    x += _start(shape, key, first)
    for bits, factor in ((30, _MIX1), (27, _MIX2)):
        x.bitwise_xor_(_shift_right(x, bits)).mul_(factor)
    return x.bitwise_xor_(_shift_right(x, 31)).view(*shape)


def _on_gpu(
    draw: str, shape: Sequence[int], key: Key, first: int, device: torch.device | str | None, **options: int
) -> Tensor | None:
    """The draw as one kernel, on a GPU that has it; numbers in floating point as the bits of a float64."""
    if not _is_gpu(device) or (made := kernels()) is None:
        return None
    count, place = math.prod(shape), torch.device(device or "cpu")
    counters = _table(place)[:count] if count <= _TABLE else torch.arange(count, device=place)
    counters = counters if isinstance(key, int) else counters + key.counter()
    return made[draw](counters, start=_start(shape, key, first), **options).view(*shape)


@cache
def _table(device: torch.device) -> Tensor:
    """The first counters on a GPU: making them would be a kernel in each draw. They stay where they are for good."""
    return torch.arange(_TABLE, device=device)


def _is_gpu(device: torch.device | str | None) -> bool:
    return device is not None and torch.device(device).type == "cuda"


def _moved(drawn: Tensor, device: torch.device | str | None) -> Tensor:
    """What `_place` had made elsewhere, on the device."""
    return drawn if device is None or has_float64(device) else upload(drawn, torch.device(device))


def _place(device: torch.device | str | None) -> torch.device | str | None:
    """Where a draw is made: on the CPU for devices without float64, whose large integers are not trusted either."""
    return device if has_float64(device) else "cpu"


def uniform(
    shape: Sequence[int],
    key: Key,
    first: int = 0,
    *,
    low: float = 0.0,
    high: float = 1.0,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Independent draws from the uniform distribution on [low, high).

    Args:
        shape: shape of the result; the first axis counts samples.
        key: see `key`.
        first: global index of the first sample: row i depends on (key, first + i) only.
        low: lower end.
        high: upper end.
        device: where the result is made.
        dtype: float32 or float64 (24 or 53 random bits).

    Shape:
        Output: `shape`.
    """
    if dtype == torch.float32:
        scale = {"scale": float_bits(high - low), "low": float_bits(low)}
        if (drawn := _on_gpu("uniform", shape, key, first, device, **scale)) is not None:
            return drawn.view(torch.float64).to(dtype)
    digits = 53 if dtype == torch.float64 else 24
    unit = _shift_right(_bits(shape, key, first, _place(device)), 64 - digits).to(dtype) * 2.0**-digits
    return _moved(unit if (low, high) == (0.0, 1.0) else unit * (high - low) + low, device)


def normal(
    shape: Sequence[int],
    key: Key,
    first: int = 0,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Independent draws from N(0, 1) by the Box-Muller transform; arguments as in `uniform`.

    Shape:
        Output: `shape`.
    """
    if (drawn := _on_gpu("normal", shape, key, first, device)) is not None:
        return drawn.view(torch.float64).to(dtype)
    # One 64-bit word gives both uniforms that a Box-Muller value needs: 32 bits each, half a step away from 0.
    bits = _bits(shape, key, first, _place(device))
    angle = (bits & 0xFFFFFFFF).to(torch.float64).mul_(2.0 * math.pi * 2.0**-32).cos_()
    radius = _shift_right(bits, 32).to(torch.float64).add_(0.5).mul_(2.0**-32).log_().mul_(-2.0).sqrt_()
    return _moved(radius.mul_(angle).to(dtype), device)


def integers(
    high: int, shape: Sequence[int], key: Key, first: int = 0, *, device: torch.device | str | None = None
) -> Tensor:
    """Independent draws from {0, ..., high - 1} as int64; arguments as in `uniform`.

    Shape:
        Output: `shape`.
    """
    # 31 random bits: the bias of the remainder is at most high / 2^31.
    if (drawn := _on_gpu("integers", shape, key, first, device, high=high)) is not None:
        return drawn
    return _moved(_shift_right(_bits(shape, key, first, _place(device)), 33) % high, device)


def ranks(shape: Sequence[int], key: Key, first: int = 0, *, device: torch.device | str | None = None) -> Tensor:
    """Independent draws from {0, ..., 2^53 - 1} as int64, to be sorted: the order of `uniform` in float64.

    Shape:
        Output: `shape`.
    """
    return _moved(_shift_right(_bits(shape, key, first, _place(device)), 11), device)


def keep_mask(
    shape: Sequence[int], keep: float, key: Key, first: int = 0, *, device: torch.device | str | None = None
) -> Tensor:
    """Independent draws that are true with a given probability, as dropout needs them; arguments as in `uniform`.

    The probability is rounded to a multiple of 2^-16: four draws share one 64-bit word.

    Shape:
        Output: `shape`, bool.
    """
    row = math.prod(shape[1:])
    words = shape[0], -(-row // 4)
    bits = _on_gpu("bits", words, key, first, device)
    if bits is None:
        bits = _bits(words, key, first, _place(device))
    return _moved((bits.view(torch.int16)[:, :row] < round(keep * 65536) - 32768).view(*shape), device)


def permutation(n: int, key: Key) -> Tensor:
    """A random permutation of n elements, a function of the key alone.

    Shape:
        Output: (n,) int64, on the CPU.
    """
    assert isinstance(key, int), "made by the host"
    return torch.randperm(n, generator=torch.Generator().manual_seed(key))
