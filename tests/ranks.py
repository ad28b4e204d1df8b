"""Run a function on several processes that talk through gloo, as `torchrun` would start them."""

from __future__ import annotations

import os
import random
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as mp

# Workers are forked from a server that has done the slow imports and nothing else: no threads, no random numbers.
mp.set_forkserver_preload(["lightning.pytorch", "torchmetrics", "zoo.base", "zoo.cli.fit", "zoo.callbacks.measures"])


def _worker(
    rank: int,
    world: int,
    port: int,
    folder: str,
    environment: dict[str, str],
    function: Callable[..., Any],
    args: tuple[Any, ...],
) -> None:
    os.environ.clear()  # that of the server is the one of the first test that had ranks
    os.environ |= environment | {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world),
        "LOCAL_WORLD_SIZE": str(world),
        "GROUP_RANK": "0",
        "TORCHELASTIC_RUN_ID": "tests",
        "CUDA_VISIBLE_DEVICES": "",
    }
    torch.set_num_threads(1)
    mp.set_start_method("fork", force=True)  # a loader's workers as a user's: they end when their rank is killed
    result = function(*args)
    torch.save(result, Path(folder, f"{rank}.pt"))
    # Leave together, and at once: when the interpreter is taken down in order, gloo's threads abort it now and then.
    while not all(Path(folder, f"{other}.pt").exists() for other in range(world)):
        time.sleep(0.01)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def free_port() -> int:
    """A port for the first rank to listen on, which nothing else takes before it does.

    The system gives ports from 32768 to whoever asks for any, such as gloo in the tests of another pytest worker. Each
    worker takes its own from a range below.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    while True:
        port = 10240 + worker % 5 * 4096 + random.SystemRandom().randrange(4096)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def on_ranks(world: int, function: Callable[..., Any], *args: Any) -> list[Any]:
    """Results of `function(*args)` on each of `world` ranks; the function must be importable."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        given = (world, port, folder, dict(os.environ), function, args)
        mp.start_processes(_worker, given, nprocs=world, start_method="forkserver")
        return [torch.load(Path(folder, f"{rank}.pt"), weights_only=False) for rank in range(world)]
