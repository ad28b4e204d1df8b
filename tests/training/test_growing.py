"""A model that grows, fed by a DataModule: on ranks, through stage changes, with reductions of what trains only."""

from __future__ import annotations

from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from torch import Tensor

from tests.contract import state_of, trainer
from tests.ranks import on_ranks
from zoo import ProgressiveGAN
from zoo.datamodules.base import ImageDataModule, ImageSet
from zoo.engine.distributed import MultiNetStrategy

STEPS = 10
OPTIONS: dict[str, Any] = {
    "fmap_base": 32,
    "max_channels": 6,
    "minibatch_stddev_group": 2,
    "growth": {
        "training_images": 12,
        "transition_images": 36,
        "steps_per_schedule_check": 1,
        "global_batch_size": 12,
        "global_batch_sizes": {4: 24},
        "learning_rates": {16: 0.002},
    },
}


class Pictures(ImageDataModule):
    def __init__(self, **options: Any) -> None:
        super().__init__(image_size=16, batch_size=4, **options)

    def open(self) -> dict[str, ImageSet]:
        images = np.random.default_rng(0).integers(0, 256, (50, 3, 16, 16), np.uint8)
        return {"train": ImageSet([images])}


class Growing(ProgressiveGAN):
    """Notes the stage of each step, and how many numbers each optimizer's reduction sends."""

    def __init__(self) -> None:
        super().__init__(16, 3, 5, **OPTIONS)
        self.steps: list[tuple[int, float, int]] = []
        self.sent: list[int] = []

    def training_step(self, batch: Any, batch_idx: int) -> None:
        super().training_step(batch, batch_idx)
        self.steps.append((batch["image"].shape[-1], self.alpha, len(batch["image"])))

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        super().on_before_optimizer_step(optimizer)
        if isinstance(strategy := self.trainer.strategy, MultiNetStrategy):
            own = sum(p.numel() for group in optimizer.param_groups for p in group["params"] if p.requires_grad)
            buckets = strategy._buckets(optimizer)
            assert sum(len(flat) - len(bucket) for bucket, _, flat in buckets) == own
            assert all(all(present) for _, present, _ in buckets)
            self.sent.append(own)


def grown(world: int, num_workers: int = 0) -> tuple[dict[str, Tensor], list[Any], list[int]]:
    L.seed_everything(3, verbose=False)
    model = Growing().double()
    run = trainer(world, precision="64-true", max_steps=STEPS, max_epochs=-1)
    run.fit(model, datamodule=Pictures(num_workers=num_workers))
    return state_of(model), model.steps, model.sent


@pytest.mark.slow
@pytest.mark.parametrize(("world", "num_workers"), [(2, 0), (3, 1)])
def test_ranks_equal_one_process_through_all_stages(world: int, num_workers: int) -> None:
    expected, steps, _ = grown(1)
    seen = {(side, alpha < 1) for side, alpha, _ in steps}
    assert seen == {(4, False), (8, True), (8, False), (16, True), (16, False)}
    for state, own, sent in on_ranks(world, grown, world, num_workers):
        assert own == [(side, alpha, batch // world) for side, alpha, batch in steps]
        for name, value in expected.items():
            assert torch.allclose(state[name], value, rtol=0, atol=1e-12), name
        # Few numbers at 4 pixels, more at 8 and 16.
        assert len(sent) == 2 * STEPS
        assert sent[0] < sent[4] < sent[-2]


def test_a_batch_that_cannot_be_shared_is_refused_at_the_start() -> None:
    model = ProgressiveGAN(16, 3, 5, **OPTIONS | {"minibatch_stddev_group": 5})
    with pytest.raises(
        ValueError, match=r"24 images per step at 4 pixels cannot be shared among 1 device.* groups of 5"
    ):
        trainer(max_steps=1).fit(model, datamodule=Pictures())


def test_a_model_of_another_size_is_refused() -> None:
    model = ProgressiveGAN(32, 3, 5, **OPTIONS)
    model.grow(10_000)
    with pytest.raises(ValueError, match="the data's images are 3x16x16"):
        model.check_images(torch.Size((3, 16, 16)))
