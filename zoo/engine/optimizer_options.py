"""Options of optimizers when a run goes on: those that a constructor gives now, where a checkpoint began with others.

A checkpoint's optimizer states hold the options too (rates, betas, weight decay), and loading brings the earlier ones
back. Each checkpoint therefore says which options its optimizers had been built with: what was built otherwise now is
meant, and what a schedule has made of an option since then is not lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from torch.optim import Optimizer

__all__ = ["apply_changed_options", "optimizer_options"]

LEFT_OUT = ("params", "fused", "foreach", "capturable", "differentiable")
"""What is no option of the method, but of its implementation: the loaded states are laid out for the earlier one."""
Options = list[list[dict[str, Any]]]
"""Options of each group of each optimizer."""


def optimizer_options(optimizers: Iterable[Optimizer]) -> Options:
    """The options of optimizers, group by group, as plain types; what is not plain (a rate in a tensor) is left out.

    Args:
        optimizers: as `configure_optimizers` has built them.
    """
    return [
        [{k: v for k, v in group.items() if k not in LEFT_OUT and _is_plain(v)} for group in optimizer.param_groups]
        for optimizer in optimizers
    ]


def apply_changed_options(
    optimizers: Sequence[Optimizer], schedulers: Iterable[Any], before: Options, now: Options
) -> list[str]:
    """Set the options that were built otherwise than those of the checkpoint; call once its states are loaded.

    Args:
        optimizers: the optimizers.
        schedulers: learning-rate schedulers of torch, which go on in proportion to a changed rate.
        before: options that the optimizers of the checkpoint were built with.
        now: options that these optimizers were built with.

    Returns:
        What was set, such as "lr 0.001 -> 0.0001".
    """
    changes: list[str] = []
    for optimizer, groups_before, groups_now in zip(optimizers, before, now, strict=False):
        for place, (group, old, new) in enumerate(zip(optimizer.param_groups, groups_before, groups_now, strict=False)):
            for name in old.keys() & new.keys():
                if _listed(old[name]) == _listed(new[name]):
                    continue
                if name in ("lr", "initial_lr") and group[name] != old[name] and old[name]:
                    group[name] *= new[name] / old[name]  # a schedule has moved it
                else:
                    group[name] = new[name]
                if name != "initial_lr":
                    changes.append(f"{name} {old[name]} -> {new[name]}")
                if name == "lr":
                    for bases in _bases(schedulers, optimizer):
                        bases[place] = new[name]
    return list(dict.fromkeys(changes))


def _bases(schedulers: Iterable[Any], optimizer: Optimizer) -> Iterator[list[float]]:
    """Lists of the rates that the schedulers of an optimizer start from."""
    for scheduler in schedulers:
        if getattr(scheduler, "optimizer", None) is optimizer and hasattr(scheduler, "base_lrs"):
            yield scheduler.base_lrs


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(_is_plain(item) for item in value)
    return isinstance(value, bool | int | float | str | None)


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
