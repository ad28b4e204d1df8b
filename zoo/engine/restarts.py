"""Processes that `torchrun --max-restarts` starts again on one node.

torch gives the new processes the store of those that failed, with the addresses of the failed ones in it, and the new
ones wait for them in vain. Here each attempt has names of its own in the store. Over several nodes the attempts are not
counted alike; there `TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1` gives each attempt a new store.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

import torch.distributed as dist

__all__ = ["advice", "join_after_restart"]

ADVICE = (
    "the processes were started again with the store of those that failed: "
    "set TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 for torchrun"
)


def _attempt() -> int:
    count = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    shared = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    return int(count) if shared and count.isdigit() else 0


def join_after_restart(backend: str, rank: int, world_size: int, timeout: timedelta, **options: Any) -> None:
    """Make the process group of restarted processes; in the first attempt and on several nodes do nothing.

    Args:
        backend: as for `torch.distributed.init_process_group`.
        rank: number of this process.
        world_size: number of processes.
        timeout: how long to wait for the others.
        options: further arguments of `init_process_group`.
    """
    if not (attempt := _attempt()) or os.environ.get("GROUP_WORLD_SIZE") != "1" or dist.is_initialized():
        return
    from torch._C._distributed_c10d import PrefixStore, TCPStore

    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = PrefixStore(f"attempt-{attempt}", TCPStore(address, port, world_size, timeout=timeout))
    dist.init_process_group(backend, store=store, rank=rank, world_size=world_size, timeout=timeout, **options)


def advice(error: BaseException) -> str | None:
    """What to set if restarted processes do not find each other.

    Args:
        error: why a process failed.
    """
    lost = any(text in str(error) for text in ("connectFullMesh", "Connection refused", "wait timeout"))
    return ADVICE if lost and _attempt() else None
