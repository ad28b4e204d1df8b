from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that all tests share: emoji of one vendor and size are rendered once."""
    return tmp_path_factory.mktemp("cache")
