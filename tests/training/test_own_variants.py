"""A user's variant of an architecture, with a constructor of its own."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader

from zoo import DCGAN, VAE
from zoo.base.hyperparameters import Hyperparameters


class Small(DCGAN):
    """One number says how large it is."""

    def __init__(self, width: int = 2) -> None:
        super().__init__(8, 3, 4, base_channels=width, learning_rate=3e-4)
        self.save_hyperparameters()


class Smaller(Small):
    """A variant of a variant, which has nothing to say."""

    def __init__(self) -> None:
        super().__init__(1)
        self.save_hyperparameters()


class Deep(VAE):
    """A likelihood model."""

    def __init__(self, depth: int = 2) -> None:
        super().__init__(8, 3, 2, hidden_features=(4,) * depth)
        self.save_hyperparameters()


@pytest.mark.parametrize(("kind", "own"), [(Small, {"width": 2}), (Smaller, {}), (Deep, {"depth": 2})])
def test_the_parents_options_are_found(kind: type[Any], own: dict[str, Any], tmp_path: Path) -> None:
    model = kind()
    assert dict(model.hparams) == own
    assert model.hparams["learning_rate"] == (3e-4 if issubclass(kind, DCGAN) else 1e-3)
    trainer = Trainer(
        max_steps=2, logger=False, accelerator="cpu", enable_progress_bar=False, default_root_dir=tmp_path,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(model, DataLoader(torch.rand(8, 3, 8, 8) * 2 - 1, batch_size=4))
    trainer.save_checkpoint(tmp_path / "own.ckpt")
    again = kind.load_from_checkpoint(tmp_path / "own.ckpt", weights_only=True)
    assert dict(again.hparams) == own
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    copied = copy.deepcopy(model)
    assert copied.hparams["image_size"] == 8
    assert dict(type(model)(**model.hparams).hparams) == own


def test_what_nobody_gave_is_missing() -> None:
    found = Hyperparameters({"parent": 1})
    found.own = 2
    assert (found["parent"], found["own"], found.parent, dict(found)) == (1, 2, 1, {"own": 2})
    with pytest.raises(KeyError, match="other"):
        found["other"]
    with pytest.raises(AttributeError, match="other"):
        _ = found.other
