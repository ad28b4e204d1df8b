"""A few of the kills of `python -m tests.cli.kills`, which kills each kind of model twenty times."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.kills import prove


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again(tmp_path: Path) -> None:
    deaths = prove("dcgan-ema", 1, 4, tmp_path, print)
    assert len(deaths) == 4
    assert [death.partition(" on ")[0] for death in deaths[-3:]] == ["last batch", "pictures", "last checkpoint"]
