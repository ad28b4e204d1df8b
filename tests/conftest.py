from __future__ import annotations

import logging
import os

import pytest
import torch

# Tests never reach for an account, a network or a GPU that happens to be there.
os.environ |= {"WANDB_MODE": "offline", "CUDA_VISIBLE_DEVICES": ""}
if "PYTEST_XDIST_WORKER" in os.environ:  # the workers share the cores, and so do the commands that they start
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-snapshots", action="store_true", help="write the state-dict keys of new architectures")


@pytest.fixture(autouse=True)
def _owned_randomness(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test starts from the same random state and leaves no seed behind."""
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
    torch.manual_seed(0)
