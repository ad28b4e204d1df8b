"""A CUDA graph without CUDA: the operations of one step, repeated as they were.

As a graph does, a repetition takes the numbers that the host gave when the step was recorded, and the same tensors;
what the step itself made is made again. Whatever the host would have decided anew is therefore wrong in a repetition.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from zoo.engine import capture

__all__ = ["Listing", "Operations", "Replays", "captured_on_cpu", "first_difference"]


class Operations(TorchDispatchMode):
    """Keeps each operation with its arguments and results."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        # Lists of the caller may change before the operation is repeated.
        arguments = tree_map(lambda leaf: leaf, (args, kwargs))
        results = func(*args, **kwargs)
        if func.namespace != "profiler":
            self.kept.append((func, *arguments, results))
        return results

    def in_words(self) -> list[tuple[str, ...]]:
        """Each operation with its arguments: tensors that the step made by their number, others by their identity."""
        made: dict[int, str] = {}

        def word(leaf: Any) -> str:
            if not isinstance(leaf, Tensor):
                return repr(leaf)
            return made.get(id(leaf)) or f"{leaf.device.type} memory {leaf.untyped_storage()._cdata}"

        lines = []
        for func, args, kwargs, results in self.kept:
            lines.append((str(func), *map(word, tree_leaves((args, kwargs)))))
            for leaf in (leaf for leaf in tree_leaves(results) if isinstance(leaf, Tensor)):
                made.setdefault(id(leaf), f"{leaf.device.type} tensor {len(made)}")
        return lines


class Replays(capture.Eagerly):
    """Records steps on a CPU.

    Attributes:
        count: repetitions so far.
    """

    records = True

    def __init__(self, *_: Any) -> None:
        self.count = 0

    def record(self, step: Callable[[], dict[str, Tensor]]) -> tuple[Callable[[], None], dict[str, Tensor]]:
        """What repeats the step; its first repetition is the recording itself, which a graph would not compute."""
        with Operations() as operations:
            results = step()
        fresh = True

        @torch.no_grad()
        def replay() -> None:
            nonlocal fresh
            self.count += 1
            if fresh:
                fresh = False
                return
            made: dict[int, Tensor] = {}
            for func, args, kwargs, outputs in operations.kept:
                now_args, now_kwargs = tree_map(
                    lambda leaf: made.get(id(leaf), leaf) if isinstance(leaf, Tensor) else leaf, (args, kwargs)
                )
                now = func(*now_args, **now_kwargs)
                for before, after in zip(tree_leaves(outputs), tree_leaves(now), strict=True):
                    if isinstance(before, Tensor) and before is not after:
                        made[id(before)] = after
            for value in results.values():
                if id(value) in made:
                    value.copy_(made[id(value)])

        return replay, results


@contextmanager
def captured_on_cpu(eager_steps: int = 1) -> Iterator[list[Replays]]:
    """Captured steps are recorded on a CPU too.

    Args:
        eager_steps: steps of each pattern before it is recorded.
    """
    made: list[Replays] = []

    def recorder(device: torch.device) -> Replays:
        made.append(Replays())
        return made[-1]

    with patch.object(capture, "recorder", recorder), patch.object(capture.CapturedStep, "eager_steps", eager_steps):
        yield made


class Listing(capture.Eagerly):
    """Runs steps as they come, and lists their operations.

    Attributes:
        steps: the operations of each step, in words.
    """

    def __init__(self, *_: Any) -> None:
        self.steps: list[list[tuple[str, ...]]] = []

    def run(self, step: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """The results of a step."""
        with Operations() as operations:
            results = step()
        self.steps.append(operations.in_words())
        return results


def first_difference(one: list[tuple[str, ...]], other: list[tuple[str, ...]]) -> str | None:
    """What a graph of one step would do wrong in another.

    Args:
        one: operations of a step, in words.
        other: those of a later one.
    """
    for before, after in zip(one, other, strict=False):
        if before != after:
            return f"{before} became {after}"
        if any(word.startswith("cpu ") or "type='cpu'" in word for word in before):
            return f"{before} computes on the CPU"
    return None if len(one) == len(other) else f"{len(one)} operations became {len(other)}"
