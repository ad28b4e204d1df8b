"""Files that are fetched once: by one process of many, resumed where a transfer stopped, and verified.

Nothing here imports torch: commands that look things up answer at once.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["download", "fetch_once", "is_offline", "read_remote", "remote_facts", "sha256"]

MOST = 64 * 2**20
"""Bytes that a small file may have: an index, a card, a picture."""


def sha256(path: Path) -> str:
    """Sum of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_offline() -> bool:
    """Whether `ZOO_OFFLINE=1` forbids fetching."""
    return os.environ.get("ZOO_OFFLINE", "0") not in ("", "0")


def fetch_once(name: str, path: Path, digest: str | None, transfer: Callable[[Path], None]) -> None:
    """Fetch a file into a cache; processes that ask at once wait for the one that fetches.

    Args:
        name: what the file is, for messages.
        path: where it goes.
        digest: its sha256; None if nobody has said it.
        transfer: fetches it into a file of another name, which may hold the beginning already.

    Raises:
        FileNotFoundError: fetching is forbidden.
        ValueError: what was fetched is another file.
        OSError: the file could not be fetched, or the cache cannot be written.
    """
    from filelock import FileLock

    if is_offline():
        raise FileNotFoundError(
            f"{name} is not in the cache ({path.parent}) and ZOO_OFFLINE is set: pull it once online"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_suffix(".lock")).acquire()
    except OSError as error:
        raise OSError(f"cannot write to {path.parent}: {error.strerror or error}; set ZOO_HOME elsewhere") from error
    with lock:
        if path.exists():  # another process has fetched it while this one waited
            return
        partial = path.with_suffix(".part")
        transfer(partial)
        if digest is not None and (found := sha256(partial)) != digest:
            partial.unlink()
            raise ValueError(f"what was fetched for {name} is not the published file (sha256 {found[:12]}...)")
        os.replace(partial, path)


def remote_facts(url: str) -> dict[str, str]:
    """What a server says of a file by which another version can be told: its ETag, date and length.

    Args:
        url: its address.

    Raises:
        OSError: the server does not answer, or has no such file.
    """
    with _opened(url) as response:
        names = ("ETag", "Last-Modified", "Content-Length")
        return {name: value for name in names if (value := response.headers.get(name))}


def read_remote(url: str) -> bytes:
    """The content of a small file on a web server.

    Args:
        url: its address.

    Raises:
        OSError: it could not be read.
    """
    import http.client

    with _opened(url) as response:
        try:
            content: bytes = response.read(MOST + 1)
        except (OSError, http.client.HTTPException) as error:
            raise OSError(f"cannot fetch {url}: {error}") from error
    if len(content) > MOST:
        raise OSError(f"cannot fetch {url}: it has more than {MOST >> 20} MiB")
    return content


def _opened(url: str) -> Any:
    import http.client
    import urllib.error
    import urllib.request

    try:
        return urllib.request.urlopen(url, timeout=60)
    except (OSError, http.client.HTTPException, ValueError) as error:  # a wrong port is a ValueError
        reason = error if isinstance(error, urllib.error.HTTPError) else getattr(error, "reason", error)
        raise OSError(f"cannot fetch {url}: {reason}") from error


def download(url: str, partial: Path, size: int = 0) -> None:
    """Fetch a file, from where an earlier attempt stopped.

    Args:
        url: its address.
        partial: where it goes.
        size: its number of bytes, of which no more are read; 0 if it is not known.

    Raises:
        OSError: it could not be fetched.
    """
    # Here, because `zoo list` needs none of it and shall answer at once.
    import http.client
    import urllib.error

    reason: object = ""
    for attempt in range(5):
        time.sleep(0.2 * attempt)
        try:
            if not (reason := _continue(url, partial, size)):
                return
        except urllib.error.HTTPError as error:
            if error.code == 416:  # nothing is left to fetch
                return
            raise OSError(f"cannot fetch {url}: {error}") from error
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
            reason = getattr(error, "reason", error)
        except OSError as error:  # of the disk, mostly
            reason = error.strerror or error
            raise OSError(f"cannot fetch {url} into {partial.parent}: {reason}; what has come is kept") from error
    raise OSError(f"cannot fetch {url}: {reason}; what has come is kept, try again")


def _continue(url: str, partial: Path, size: int) -> str:
    """One attempt; returns why it is not complete. More than `size` bytes are not read: the sum then says the rest."""
    import urllib.request

    from tqdm import tqdm

    have = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=60) as response:
        resumed = url.startswith("http") and response.status == 206
        total = int(response.headers.get("Content-Length") or 0) + (have if resumed else 0)
        with (
            open(partial, "ab" if resumed else "wb") as file,
            tqdm(total=total or None, initial=file.tell(), unit="B", unit_scale=True, desc=partial.stem) as bar,
        ):
            while block := response.read(2**16):
                file.write(block)
                bar.update(len(block))
                if size and file.tell() > size:  # no published file: do not fill the disk
                    return ""
            file.flush()
            os.fsync(file.fileno())
    came = partial.stat().st_size
    return f"stopped at {came} of {total} bytes" if total and came != total else ""
