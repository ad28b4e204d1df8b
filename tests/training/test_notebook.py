"""`ddp_nets` in a notebook, where no script can be started a second time."""

from __future__ import annotations

import pytest
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher, _SubprocessScriptLauncher
from lightning.pytorch.trainer.connectors import accelerator_connector

from tests.contract import trainer
from zoo.engine import distributed


@pytest.mark.parametrize("interactive", [False, True])
def test_processes_are_forked_in_a_notebook(monkeypatch: pytest.MonkeyPatch, interactive: bool) -> None:
    for module in (accelerator_connector, distributed):
        monkeypatch.setattr(module, "_IS_INTERACTIVE", interactive)
    launcher = trainer(strategy="ddp_nets", devices=2).strategy.launcher
    if interactive:
        assert isinstance(launcher, _MultiProcessingLauncher)
        assert launcher._start_method == "fork"
    else:
        assert isinstance(launcher, _SubprocessScriptLauncher)
