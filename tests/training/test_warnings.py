"""A plain Trainer with our models and data gives no advice that is wrong for them."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from lightning.pytorch import Trainer

from tests.cli.parts import Noise
from zoo.dcgan import DCGAN


def test_a_fit_and_its_resume_are_silent(tmp_path: Path) -> None:
    off = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    options = {"accelerator": "cpu", **dict.fromkeys(off, False)}
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        for epochs in (1, 2):
            trainer = Trainer(default_root_dir=tmp_path, max_epochs=epochs, **options)  # type: ignore[arg-type]
            torch.manual_seed(0)
            model = DCGAN(8, base_channels=4, latent_dim=4, ema_decay=0.9)
            trainer.fit(model, datamodule=Noise(), ckpt_path=tmp_path / "last.ckpt" if epochs > 1 else None)
            trainer.save_checkpoint(tmp_path / "last.ckpt")
    advice = [str(warning.message) for warning in found if issubclass(warning.category, UserWarning)]
    assert [text for text in advice if "does not have many workers" not in text] == []
