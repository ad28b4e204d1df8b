"""Arrays on disk: complete or not there, made once; downloads that end in a clear message."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zoo.datamodules.base.files import check_md5, fetch, write_array

ROOT = Path(__file__).parents[2]
FILL = """
import sys, time
from pathlib import Path
sys.path.insert(0, {root!r})
from zoo.datamodules.base.files import write_array
def fill(array):
    array[:5] = 1
    print("began", flush=True)
    time.sleep({seconds})
    array[5:] = 2
write_array(Path({path!r}), (10, 3), fill)
"""


def filling(path: Path, seconds: float) -> subprocess.Popen[bytes]:
    """A process that takes some time in the middle of the array."""
    script = FILL.format(root=str(ROOT), path=str(path), seconds=seconds)
    return subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)


def whole(array: np.ndarray[Any, Any]) -> None:
    array[:5], array[5:] = 1, 2


def test_what_is_there_is_not_made_again(tmp_path: Path) -> None:
    path, calls = tmp_path / "a" / "b.npy", []
    for _ in range(2):
        write_array(path, (10, 3), lambda array: calls.append(whole(array)))
    assert len(calls) == 1
    assert np.load(path).tolist() == [[1] * 3] * 5 + [[2] * 3] * 5
    assert np.load(path, mmap_mode="r").dtype == np.uint8


@pytest.mark.slow
def test_a_killed_process_leaves_no_half_file(tmp_path: Path) -> None:
    path = tmp_path / "b.npy"
    process = filling(path, 60)
    assert process.stdout is not None
    assert process.stdout.readline() == b"began\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not path.exists()
    write_array(path, (10, 3), whole)
    assert np.load(path)[9, 0] == 2
    assert {p.name for p in tmp_path.iterdir()} == {"b.npy", "b.npy.lock"}, "nothing else is left"


@pytest.mark.slow
def test_two_processes_make_it_once(tmp_path: Path) -> None:
    path = tmp_path / "b.npy"
    processes = [filling(path, 0.5) for _ in range(2)]
    out = b"".join(process.communicate(timeout=120)[0] for process in processes)
    assert [process.returncode for process in processes] == [0, 0]
    assert out.count(b"began") == 1
    assert np.load(path)[[0, 9], 0].tolist() == [1, 2]


def test_a_failure_in_between_leaves_nothing(tmp_path: Path) -> None:
    def fill(array: np.ndarray[Any, Any]) -> None:
        raise KeyError("broken")

    with pytest.raises(KeyError):
        write_array(tmp_path / "b.npy", (10, 3), fill)
    assert [p.name for p in tmp_path.iterdir()] == ["b.npy.lock"]


def test_a_full_disk_is_noticed_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "b.npy"
    message = rf"No space left on device.*: cannot write {path}; set cache_dir to a folder with room and permission$"
    with pytest.raises(OSError, match=message):
        write_array(path, (2**20, 2**30), whole)  # a petabyte

    def no_room(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", no_room, raising=False)  # as a quota or another writer would have it
    with pytest.raises(OSError, match=message):
        write_array(path, (10, 3), whole)
    assert not path.exists()


@pytest.fixture
def stranger() -> Iterator[Path]:
    """A folder in which we may not write, even if the tests are run by root."""
    was_root = os.geteuid() == 0
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o555)
        if was_root:
            os.seteuid(65534)
        try:
            yield Path(folder)
        finally:
            if was_root:
                os.seteuid(0)


def test_no_permission(stranger: Path) -> None:
    for path in (stranger / "b.npy", stranger / "new" / "b.npy"):
        with pytest.raises(
            OSError, match=rf"Permission denied: cannot write {path}; set cache_dir to a folder with room"
        ):
            write_array(path, (10, 3), whole)
    with pytest.raises(OSError, match=rf"Permission denied: cannot make {stranger}/X; set data_dir to another one"):
        fetch("X", stranger / "X", ["a"], lambda file, place: None)


def test_a_cache_dir_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"cannot write .*; set cache_dir to a folder with room and permission$"):
        write_array(tmp_path / "file" / "b.npy", (10, 3), whole)


# Downloads -----------------------------------------------------------------------------------------------------------


def test_fetch_takes_what_is_missing_only(tmp_path: Path) -> None:
    folder, asked = tmp_path / "x" / "raw", []

    def download(file: str, place: str) -> None:
        asked.append(file)
        assert not (folder / file).exists(), "it comes under its name when it is complete"
        Path(place, file).write_text(file)

    fetch("X", folder, ["a", "b"], download)
    (folder / "a").unlink()
    fetch("X", folder, ["a", "b"], download)
    assert asked == ["a", "b", "a"]
    assert {p.name for p in folder.iterdir()} == {"a", "b"}


def test_a_failed_download_says_what_to_put_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "typo" / "X" / "raw"

    def download(file: str, place: str) -> None:
        Path(place, file).write_text("half")
        raise RuntimeError("no\nroute")

    with pytest.raises(FileNotFoundError) as caught:
        fetch("X", folder, ["a", "b"], download)
    advice = "put a, b there, or set data_dir to where the data lie"
    assert str(caught.value) == f"X is not in {folder} and could not be downloaded (no route): {advice}"
    assert not (tmp_path / "typo").exists(), "no folders are left behind at a mistyped path"

    monkeypatch.setenv("ZOO_OFFLINE", "1")
    with pytest.raises(FileNotFoundError, match="ZOO_OFFLINE is set: put a, b there"):
        fetch("X", folder, ["a", "b"], download)


def test_a_wrong_sum(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    check_md5(tmp_path / "a", "900150983cd24fb0d6963f7d28e17f72")
    with pytest.raises(ValueError, match=r"a is not the published file .*fetch it again, or set verify=False$"):
        check_md5(tmp_path / "a", "0" * 32)
