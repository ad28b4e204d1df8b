"""Metrics that may have seen images on some ranks only."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torchmetrics import Metric

__all__ = ["AnyShare"]


class AnyShare(Metric):
    """A Metric whose list states may be empty on some ranks.

    torchmetrics gathers a list only if every rank holds tensors of the same type and number of dimensions. So a rank
    without tensors adds an empty one of the type and shape that the other ranks hold.
    """

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """Gather the states of all ranks; arguments as for `torchmetrics.Metric.sync`."""
        if kwargs.get("should_sync", True) and dist.is_available() and dist.is_initialized():
            lists = {name: state for name, state in self.metric_state.items() if isinstance(state, list)}
            kinds: list[Any] = [None] * dist.get_world_size(self.process_group)
            mine = {name: (state[0].shape[1:], state[0].dtype) for name, state in lists.items() if state}
            dist.all_gather_object(kinds, mine, self.process_group)
            known = {name: kind for rank in reversed(kinds) for name, kind in rank.items()}
            for name in known.keys() - mine.keys():
                shape, dtype = known[name]
                setattr(self, name, [torch.empty(0, *shape, dtype=dtype, device=self.device)])
        super().sync(*args, **kwargs)
