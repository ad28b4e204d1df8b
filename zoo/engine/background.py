"""Files that are written while training goes on: by one thread, one file after the other.

A file is there before a later one is begun: no checkpoint tells of a picture that a kill has kept from the disk.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

__all__ = ["WRITER", "Background", "host_copy"]


class Background:
    """One piece of work at a time, beside training."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def do(self, work: Callable[..., object], *args: object) -> None:
        """Start a piece of work once the one before is done.

        Args:
            work: a function; what it reads must not change meanwhile.
            args: its arguments.

        Raises:
            BaseException: what the work before has raised.
        """
        self.wait()
        # No daemon: an interpreter that ends waits for it.
        self._thread = threading.Thread(target=self._run, args=(work, *args), name="zoo-writer")
        self._thread.start()

    def wait(self) -> None:
        """Wait until nothing is left to do.

        Raises:
            BaseException: what the work has raised.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def settle(self) -> None:
        """Wait as well, where another error is on its way: one of the work becomes a warning."""
        try:
            self.wait()
        except Exception as error:
            rank_zero_warn(str(error))

    def _run(self, work: Callable[..., object], *args: object) -> None:
        try:
            work(*args)
        except BaseException as error:
            self._error = error


WRITER = Background()
"""The writer of this process."""


def host_copy(value: Any, known: dict[int, torch.UntypedStorage] | None = None) -> Any:
    """A copy in the host's memory that training does not change; tensors that share memory share that of the copy.

    Args:
        value: tensors and plain types in dicts, lists and tuples.
        known: copies of the memory so far, by its address.
    """
    known = {} if known is None else known
    if isinstance(value, Tensor):
        storage = value.untyped_storage()
        if storage.data_ptr() not in known:
            known[storage.data_ptr()] = storage.clone() if storage.device.type == "cpu" else storage.cpu()
        kept = torch.empty(0, dtype=value.dtype)
        return kept.set_(known[storage.data_ptr()], value.storage_offset(), value.size(), value.stride())
    if isinstance(value, dict):
        copied = copy.copy(value)  # with what else it holds: a state dict has the versions of the modules
        copied.update((key, host_copy(item, known)) for key, item in value.items())
        return copied
    if type(value) in (list, tuple):
        return type(value)(host_copy(item, known) for item in value)
    return copy.copy(value)
