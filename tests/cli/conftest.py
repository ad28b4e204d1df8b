from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from tests.cli.parts import command, the_line


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder of its own for every test, and no traces in the user's."""
    monkeypatch.chdir(tmp_path)
    for name in ("ZOO_TRACEBACK", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """As in the processes that tests start: with more threads, sums are added up in another order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """The message of a command that must fail in one line with exit code 2, or another one."""

    def fails(*args: object, code: int = 2) -> str:
        capsys.readouterr()
        found = command(*args)
        err = capsys.readouterr().err
        assert found == code, err
        return the_line(err)

    return fails
