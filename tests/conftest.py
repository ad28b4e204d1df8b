from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator

import pytest
import torch

# Tests never reach for an account or a network.
os.environ["WANDB_MODE"] = "offline"
# Nor do they see a registry of whoever runs them.
os.environ["XDG_DATA_HOME"] = os.path.join(tempfile.gettempdir(), f"zoo-tests-{os.getpid()}")
os.environ.pop("ZOO_REGISTRY", None)
if "PYTEST_XDIST_WORKER" in os.environ:  # the workers share the cores, and so do the commands that they start
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-snapshots", action="store_true", help="write the state-dict keys of new architectures")
    parser.addoption("--device", choices=["cuda", "cpu"], default="cuda", help="where tests/gpu runs; cpu tries them")


def pytest_configure(config: pytest.Config) -> None:
    """Tests never reach for a GPU that happens to be there, but for `pytest -m cuda`."""
    if config.option.markexpr != "cuda":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


@pytest.fixture(autouse=True)
def _owned_randomness() -> Iterator[None]:
    """Every test starts from the same random state and leaves no seed behind, for fixtures of modules either."""
    os.environ.pop("PL_GLOBAL_SEED", None)
    torch.manual_seed(0)
    yield
    os.environ.pop("PL_GLOBAL_SEED", None)
