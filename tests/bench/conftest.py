from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.parts import command, the_line


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder of its own for every test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ZOO_TRACEBACK", raising=False)
    return tmp_path


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """The message of a command that must fail in one line with exit code 2."""

    def fails(*args: object) -> str:
        capsys.readouterr()
        found = command(*args)
        err = capsys.readouterr().err
        assert found == 2, err
        return the_line(err)

    return fails
