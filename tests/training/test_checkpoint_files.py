"""What is found under the name of a checkpoint, what is kept of the one before, and writing as on Windows."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from zoo.datamodules.base.files import write_array
from zoo.engine.checkpoint import AtomicCheckpointIO, what_is_wrong
from zoo.engine.files import write_atomically

STATE = {"weights": torch.arange(300.0), "step": 3, "none": None}


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """A checkpoint."""
    AtomicCheckpointIO().save_checkpoint(STATE, tmp_path / "last.ckpt")
    return tmp_path / "last.ckpt"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", r"is no checkpoint: it is empty \(0 bytes\)"),
        (b"\n<!DOCTYPE html><html>404", "is no checkpoint: it is an HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:12", "is no checkpoint: it is a Git LFS pointer"),
        (b'{"error": "no such file"}', "is no checkpoint: it is a JSON file"),
        (b"\x10\0\0\0\0\0\0\0{}", r"is no checkpoint: it is a \.safetensors file"),
        (b"\x89PNG\r\n", "is no checkpoint: it is a picture"),
        (bytes(range(60, 160)), "is no checkpoint: it holds something else"),
        (b"PK\x03\x04 and then the disk was full", "is damaged"),
    ],
)
def test_what_is_no_checkpoint_is_told_apart(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "last.ckpt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=said) as error:
        AtomicCheckpointIO().load_checkpoint(path)
    assert "weights_only" not in str(error.value)


def test_a_flipped_bit_anywhere_in_the_values_is_found(whole: Path) -> None:
    content = whole.read_bytes()
    assert what_is_wrong(whole) is None
    values = STATE["weights"].numpy().tobytes()  # type: ignore[attr-defined]
    start = content.index(values)
    for place in [*range(start, start + len(values), 97), content.index(b"weights")]:
        flipped = bytearray(content)
        flipped[place] ^= 1 << place % 8
        whole.write_bytes(flipped)
        with pytest.raises(ValueError, match="is damaged"):
            AtomicCheckpointIO().load_checkpoint(whole)


def test_no_flipped_byte_gives_another_state_in_silence(whole: Path) -> None:
    """Names and padding of the archive are in no checksum: then either the error is seen or the state is the same."""
    content = whole.read_bytes()
    for place in range(0, len(content), 11):
        flipped = bytearray(content)
        flipped[place] ^= 0x10
        whole.write_bytes(flipped)
        try:
            loaded = AtomicCheckpointIO().load_checkpoint(whole)
        except ValueError:
            continue
        assert torch.equal(loaded["weights"], STATE["weights"]), place  # type: ignore[arg-type]
        assert loaded["step"] == 3


def test_the_one_before_is_kept_and_named_when_the_last_is_damaged(whole: Path) -> None:
    keep = {"keep": "previous.ckpt"}
    AtomicCheckpointIO().save_checkpoint({"step": 4}, whole, keep)
    AtomicCheckpointIO().save_checkpoint({"step": 5}, whole, keep)
    previous = whole.with_name("previous.ckpt")
    assert sorted(path.name for path in whole.parent.iterdir()) == ["last.ckpt", "previous.ckpt"]
    assert [AtomicCheckpointIO().load_checkpoint(path)["step"] for path in (whole, previous)] == [5, 4]
    whole.write_bytes(whole.read_bytes()[:-50])
    with pytest.raises(ValueError, match=rf"is damaged.*: go on from the one before with `mv {previous} {whole}`"):
        AtomicCheckpointIO().load_checkpoint(whole)
    assert AtomicCheckpointIO().load_checkpoint(previous)["step"] == 4


def test_where_files_have_no_second_names_the_one_before_is_copied(
    whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", _refuse)
    AtomicCheckpointIO().save_checkpoint({"step": 4}, whole, {"keep": "previous.ckpt"})
    assert AtomicCheckpointIO().load_checkpoint(whole.with_name("previous.ckpt"))["step"] == 3


def _refuse(*args: Any, **options: Any) -> Any:
    raise PermissionError(13, "Permission denied")


def test_systems_that_cannot_open_folders_or_flush_what_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Windows: `os.open` of a folder and `os.fsync` of a descriptor for reading fail."""
    opened, flushed = os.open, os.fsync

    def open_file(path: Any, flags: int, *args: Any, **options: Any) -> int:
        if os.path.isdir(path):
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, flags, *args, **options)

    def fsync(descriptor: int) -> None:
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(9, "Bad file descriptor")
        flushed(descriptor)

    monkeypatch.setattr(os, "open", open_file)
    monkeypatch.setattr(os, "fsync", fsync)
    AtomicCheckpointIO().save_checkpoint({"step": 1}, tmp_path / "last.ckpt")
    AtomicCheckpointIO().save_checkpoint({"step": 2}, tmp_path / "last.ckpt", {"keep": "previous.ckpt"})
    write_atomically(tmp_path / "config.yaml", "a: 1")
    write_array(tmp_path / "cache.npy", (10, 3), lambda array: array.fill(7))
    assert AtomicCheckpointIO().load_checkpoint(tmp_path / "last.ckpt")["step"] == 2
    assert np.load(tmp_path / "cache.npy")[9, 2] == 7
