"""N ranks equal one process on the concatenated batch, for every way of computing gradients."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
import torch.distributed as dist
from lightning.pytorch import Trainer
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor, nn
from torch.utils.data import DataLoader

import zoo.engine.distributed
from tests.ranks import on_ranks
from zoo.base import AdversarialModel, Batch, Terms
from zoo.engine import rng
from zoo.engine.distributed import MultiNetStrategy
from zoo.nn.losses import gradient_penalty, r1_penalty

STEPS, GLOBAL_BATCH = 5, 12


class Probe(AdversarialModel):
    """A generator and a discriminator of a few weights, in float64, with everything that may go wrong switched on."""

    def __init__(self, case: str) -> None:
        options: dict[str, Any] = {
            "n_critic": {"step_every": {"generator": 3}},
            "accumulate": {"accumulate": 2},
            "simultaneous": {"update": "simultaneous"},
            "clip": {"gradient_clip": 0.01},
        }.get(case, {})
        super().__init__(**options)
        self.case = case
        torch.manual_seed(0)
        norm = [nn.BatchNorm1d(6)] if case == "batch_norm" else []
        # No bias before the BatchNorm: its gradient is rounding noise, which Adam would blow up to full steps.
        self.generator = nn.Sequential(nn.Linear(3, 6, bias=not norm), *norm, nn.Tanh(), nn.Linear(6, 4))
        self.discriminator = nn.Sequential(nn.Linear(4, 6), nn.Softplus(), nn.Linear(6, 1))
        self.late = nn.Linear(4, 4)
        self.seen: list[Tensor] = []
        if case == "frozen":
            self.late.requires_grad_(False)

    def forward_shared(self, batch: Batch) -> Tensor:
        n = len(batch["image"])
        z = rng.normal((n, 3), self.draw_key("z"), self.first_index(n), dtype=self.dtype)
        self.seen.append(z)
        return self.generator(z)

    def _critic(self, x: Tensor) -> Tensor:
        if (self.case == "unused_then_used" and self.batch_index >= 2) or self.case == "frozen":
            x = x + self.late(x)
        if self.case == "differs" and self.global_rank == 0:
            x = x + 0 * self.late(x)
        return self.discriminator(x)

    def discriminator_loss(self, batch: Batch, fake: Tensor) -> Terms:
        real = batch["image"]
        terms = {"fake": self._critic(fake.detach()).mean(), "real": -self._critic(real).mean()}
        if self.case == "wgan_gp":
            mix = rng.uniform((len(real),), self.draw_key("mix"), self.first_index(len(real)), dtype=self.dtype)
            terms["penalty"] = gradient_penalty(self._critic, real, fake, mix)
        return terms

    def generator_loss(self, batch: Batch, fake: Tensor) -> Terms:
        return {"adversarial": -self._critic(fake).mean()}

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        if self.case == "frozen" and self.batch_index == 2:
            self.late.requires_grad_(True)
        if self.case not in ("plain", "several_backwards", "r1_own_backward"):
            return super().training_step(batch, batch_idx)
        # Ordinary Lightning code, nothing of ours.
        discriminator, generator = self.optimizers()
        fake = self.forward_shared(batch)
        terms = self.discriminator_loss(batch, fake)
        if self.case == "plain":
            self.manual_backward(sum(terms.values()))
        else:
            self.manual_backward(terms["fake"])
            self.manual_backward(terms["real"])
        if self.case == "r1_own_backward":
            self.manual_backward(r1_penalty(self.discriminator, batch["image"]))
        discriminator.step()
        generator.zero_grad()
        self.manual_backward(self.generator_loss(batch, fake)["adversarial"])
        generator.step()
        discriminator.zero_grad()

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        own = [*self.discriminator.parameters(), *self.late.parameters()]
        if self.case in ("adam", "batch_norm"):
            return [torch.optim.Adam(own, 1e-2), torch.optim.Adam(self.generator.parameters(), 1e-2)]
        return [torch.optim.SGD(own, 0.1), torch.optim.SGD(self.generator.parameters(), 0.1)]


CASES = [
    "plain",
    "toggled",
    "several_backwards",
    "wgan_gp",
    "r1_own_backward",
    "accumulate",
    "n_critic",
    "adam",
    "unused_then_used",
    "frozen",
    "simultaneous",
    "clip",
    "batch_norm",
    "differs",
]


def batches(rank: int, world: int, dtype: torch.dtype = torch.float64) -> DataLoader[Any]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(STEPS + 1, GLOBAL_BATCH, 4, generator=generator, dtype=torch.float64).tanh().to(dtype)
    share = GLOBAL_BATCH // world
    return DataLoader([{"image": step[rank * share : (rank + 1) * share]} for step in images], batch_size=None)


def trainer(world: int, **options: Any) -> Trainer:
    strategy = MultiNetStrategy(bucket_mb=1e-4) if world > 1 else "auto"
    return Trainer(
        max_epochs=1,
        devices=world,
        strategy=strategy,
        accelerator="cpu",
        use_distributed_sampler=False,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


def train(case: str, world: int) -> dict[str, Any]:
    """Final state of one run, the noise it drew, and what its reductions moved."""
    warnings.simplefilter("ignore")
    reduced: list[int] = []
    steps: list[int] = []

    class Counted:
        """torch.distributed as zoo.engine.distributed sees it, with a counter."""

        def __getattr__(self, name: str) -> Any:
            return getattr(dist, name)

        def all_reduce(self, tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
            reduced.append(tensor.numel())
            return dist.all_reduce(tensor, *args, **kwargs)

    zoo.engine.distributed.dist = Counted()  # type: ignore[assignment]
    model = Probe(case).double()
    run = trainer(world, sync_batchnorm=case == "batch_norm" and world > 1, precision="64-true")
    original = MultiNetStrategy.reduce_gradients

    def counting(self: MultiNetStrategy, optimizer: Any) -> None:
        steps.append(len(self._buckets(optimizer)))
        original(self, optimizer)

    MultiNetStrategy.reduce_gradients = counting  # type: ignore[method-assign]
    try:
        run.fit(model, batches(run.global_rank, world))
    finally:
        MultiNetStrategy.reduce_gradients = original  # type: ignore[method-assign]
        zoo.engine.distributed.dist = dist
    return {
        "state": {name: value.clone() for name, value in model.state_dict().items()},
        "z": model.seen,
        "reductions": len(reduced),
        "buckets": sum(steps),
        "global_step": run.global_step,
    }


def train_all(world: int) -> dict[str, Any]:
    return {case: train(case, world) for case in CASES} | {"overflow": overflow(world)}


class Overflow(Probe):
    """fp16 with a gradient scaler; in one step the loss of rank 1 alone overflows."""

    def discriminator_loss(self, batch: Batch, fake: Tensor) -> Terms:
        scale = 1e30 if self.batch_index == 2 and self.global_rank == 1 else 1.0
        return {"both": scale * (self._critic(fake.detach()).mean() - self._critic(batch["image"]).mean()).float()}

    def on_train_batch_end(self, *args: Any) -> None:
        self.seen.append(self.discriminator[0].weight.detach().clone())


def overflow(world: int) -> dict[str, Any]:
    model = Overflow("toggled")
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    run = trainer(world, plugins=[MixedPrecision("16-mixed", "cpu", scaler)])
    run.fit(model, batches(run.global_rank, world, torch.float32))
    weights = [w for w in model.seen if w.shape == (6, 4)]
    return {"weights": weights, "scale": scaler.get_scale()}


@pytest.fixture(scope="module")
def single() -> dict[str, Any]:
    return {case: train(case, 1) for case in CASES}


@pytest.fixture(scope="module", params=[2, 3])
def ranks(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    return on_ranks(request.param, train_all, request.param)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_ranks_equal_one_process(case: str, single: dict[str, Any], ranks: list[dict[str, Any]]) -> None:
    expected = single[case]
    start = Probe(case).double().state_dict()
    assert any(not torch.equal(expected["state"][name], start[name]) for name in start), "nothing was trained"
    for rank in ranks:
        result = rank[case]
        assert result["global_step"] == expected["global_step"]
        for name, value in expected["state"].items():
            assert torch.allclose(result["state"][name], value, rtol=0, atol=1e-12), name
            assert torch.equal(result["state"][name], ranks[0][case]["state"][name]), f"ranks differ in {name}"
        expected_reductions = result["buckets"] + (6 if case == "batch_norm" else 0)  # buffers: once a batch
        assert result["reductions"] == expected_reductions


@pytest.mark.slow
def test_ranks_draw_their_share_of_one_stream(single: dict[str, Any], ranks: list[dict[str, Any]]) -> None:
    for step, z in enumerate(single["toggled"]["z"]):
        assert torch.equal(torch.cat([rank["toggled"]["z"][step] for rank in ranks]), z)
        assert not torch.equal(ranks[0]["toggled"]["z"][step], ranks[1]["toggled"]["z"][step])


@pytest.mark.slow
def test_overflow_on_one_rank_skips_the_step_on_all(ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        weights = rank["overflow"]["weights"]
        assert torch.equal(weights[2], weights[1]), "the overflowing step was taken"
        assert not torch.equal(weights[3], weights[2]), "the next step was not taken"
        assert torch.isfinite(weights[-1]).all()
        assert all(torch.equal(a, b) for a, b in zip(weights, ranks[0]["overflow"]["weights"], strict=True))
        assert rank["overflow"]["scale"] == ranks[0]["overflow"]["scale"]


def test_other_strategies_are_refused_in_one_line() -> None:
    run = Trainer(accelerator="cpu", devices=1, strategy="ddp", logger=False, enable_checkpointing=False)
    try:
        with pytest.raises(ValueError, match="strategy='ddp_nets'"):
            run.fit(Probe("toggled"), batches(0, 1, torch.float32))
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def _one_rank_breaks() -> str:
    """The message of a fit of two ranks in which only the second one meets a loss that is not finite."""
    model = Probe("toggled")
    loss = model.generator_loss

    def broken(batch: Batch, fake: Tensor) -> Terms:
        scale = float("nan") if model.batch_index == 1 and model.global_rank == 1 else 1.0
        return {name: value * scale for name, value in loss(batch, fake).items()}

    model.generator_loss = broken  # type: ignore[method-assign]
    run = trainer(2, log_every_n_steps=1)
    try:
        run.fit(model, batches(run.global_rank, 2, torch.float32))
    except FloatingPointError as error:
        return str(error)
    return "no error"


@pytest.mark.slow
def test_a_loss_that_is_not_finite_on_one_rank_stops_all() -> None:
    for message in on_ranks(2, _one_rank_breaks):
        assert "phase 'generator' is not finite at batch 1" in message
