"""The lock of a run folder: one process at a time trains in it."""

from __future__ import annotations

import errno
import json
import os
import socket
from pathlib import Path
from typing import IO

__all__ = ["LOCK", "RunLock"]

LOCK = ".lock"


class RunLock:
    """The lock of a folder, held until `release` or until the process ends, however it ends.

    The system keeps the lock (of the file `.lock`), on one machine and over network file systems. Where it cannot, the
    process and the machine that are named in the file tell whether the folder is in use.

    Args:
        folder: the folder, made if it is missing.

    Raises:
        ValueError: another process holds the lock; the message names the process and its machine.
        OSError: the folder cannot be made or written to.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = open(folder / LOCK, "a+", encoding="utf-8")  # noqa: SIM115  # open as long as the lock is held
        try:
            held = not _try_lock(self._file)
        except OSError:  # a file system without locks
            held = _in_use(_owner(self._file))
        if held:
            owner = _owner(self._file)
            self._file.close()
            raise ValueError(_message(folder, owner))
        self._file.truncate(0)
        self._file.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))
        self._file.flush()

    def release(self) -> None:
        """Let other processes train in the folder."""
        if not self._file.closed:
            self._file.truncate(0)
            self._file.close()


def _try_lock(file: IO[str]) -> bool:
    """Take the system's lock of a file; False if another process has it.

    Locks of `fcntl.lockf` belong to a process: children that it forks, such as a loader's workers, do not keep them.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        file.seek(1 << 20)  # others may read what is in front of the locked byte
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        except PermissionError:
            return False
        return True
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            return False
        raise
    return True


def _owner(file: IO[str]) -> dict[str, str | int]:
    file.seek(0)
    try:
        owner = json.loads(file.read())
    except ValueError:
        return {}
    return owner if isinstance(owner, dict) else {}


def _in_use(owner: dict[str, str | int]) -> bool:
    """Whether the process that a lock names may still be there, where the system cannot tell."""
    if not owner or owner.get("pid") == os.getpid():
        return False
    if owner.get("host") != socket.gethostname():
        return True
    if os.name != "posix":
        return True
    try:
        os.kill(int(owner["pid"]), 0)
    except (ProcessLookupError, ValueError, KeyError):
        return False
    except PermissionError:
        pass
    return True


def _message(folder: Path, owner: dict[str, str | int]) -> str:
    who = f"process {owner['pid']} on {owner['host']}" if {"pid", "host"} <= owner.keys() else "another process"
    return (
        f"{who} trains in {folder}: wait until it ends, or take another --name (if it is gone, delete {folder / LOCK})"
    )
