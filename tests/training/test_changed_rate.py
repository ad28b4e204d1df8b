"""A plain Trainer that goes on from a checkpoint uses the rates that the constructor gives now."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch.utils.data import DataLoader

from tests.contract import trainer
from zoo import VAE
from zoo.base import GenerativeModel
from zoo.dcgan import DCGAN
from zoo.engine.optimizer_options import optimizer_options


class Halving(VAE):
    """A VAE with one of torch's schedules."""

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = torch.optim.Adam(self.parameters(), lr=self.hparams["learning_rate"])
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def batches() -> DataLoader[Any]:
    images: Any = [{"image": torch.rand(4, 1, 8, 8) * 2 - 1} for _ in range(2)]
    return DataLoader(images, batch_size=None)


def build(kind: type[GenerativeModel], **options: Any) -> GenerativeModel:
    torch.manual_seed(0)
    if kind is DCGAN:
        return DCGAN(8, 1, 5, 4, **options)
    return kind(8, 1, **options)


@pytest.mark.parametrize("kind", [DCGAN, VAE, Halving])
def test_going_on(tmp_path: Path, kind: type[GenerativeModel], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "lightning.pytorch")
    first = trainer()
    first.fit(build(kind, learning_rate=0.001), batches())
    first.save_checkpoint(tmp_path / "two.ckpt")
    rates, weights = {}, {}
    for rate in (0.001, 0.01):
        caplog.clear()
        model, second = build(kind, learning_rate=rate), trainer(max_epochs=2)
        second.fit(model, batches(), ckpt_path=tmp_path / "two.ckpt")
        rates[rate] = [group["lr"] for optimizer in second.optimizers for group in optimizer.param_groups]
        weights[rate] = torch.cat([p.detach().flatten() for p in model.parameters()])
        assert ("lr 0.001 -> 0.01" in caplog.text) == (rate == 0.01)
        assert model.hparams["learning_rate"] == rate
    share = 1 / 16 if kind is Halving else 1
    assert rates == {rate: pytest.approx([rate * share] * len(rates[rate])) for rate in rates}
    assert not torch.equal(weights[0.001], weights[0.01])


def test_what_is_kept_of_options_is_plain() -> None:
    rate = torch.tensor(0.1)
    (groups,) = optimizer_options([torch.optim.Adam([torch.zeros(1, requires_grad=True)], lr=rate, betas=(0.1, 0.2))])
    assert "lr" not in groups[0]
    assert groups[0]["betas"] == (0.1, 0.2)
    assert not {"params", "fused"} & groups[0].keys()
