"""Captured steps: what would be frozen is found, what cannot be captured is refused, all else is as without."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from tests.contract import Data, ModelContract, state_of, trainer
from tests.fake_cuda import captured_steps
from tests.models import test_dcgan, test_gan, test_text2image, test_vae
from tests.replays import captured_on_cpu, first_difference
from zoo.base import GenerativeModel
from zoo.beta_vae import BetaVAE
from zoo.cyclegan import CycleGAN
from zoo.engine import rng
from zoo.engine.capture import CapturedStep, StepNumbers
from zoo.gan import GAN
from zoo.wae_gan import WAEGAN


def gan(**options: Any) -> GAN:
    """A GAN whose step size, momentum and keys change."""
    torch.manual_seed(0)
    return GAN(8, 1, 5, hidden_features=8, discriminator_features=6, maxout_pieces=2, **{"capture": True} | options)


def batches(count: int, sizes: tuple[int, ...] = ()) -> list[dict[str, Tensor]]:
    """Batches of 4 images, or of other numbers."""
    generator = torch.Generator().manual_seed(1)
    return [{"image": 2 * torch.rand(n, 1, 8, 8, generator=generator) - 1} for n in (sizes or (4,) * count)]


def trained(model: GenerativeModel, data: list[Any], **options: Any) -> dict[str, Tensor]:
    """Weights after a fit."""
    trainer(**options).fit(model, datamodule=Data(data))
    return state_of(model)


# What a graph would freeze -------------------------------------------------------------------------------------------


@contextmanager
def _numbers_of_the_host(self: CapturedStep, optimizers: Any) -> Iterator[None]:
    yield


FROZEN: dict[str, tuple[Any, str, Any]] = {
    "keys": (
        GenerativeModel,
        "draw_key",
        lambda self, purpose: rng.key(self.seed, purpose, self.batch_index),
    ),
    "rates": (CapturedStep, "_rates_on_device", _numbers_of_the_host),
    "counters": (StepNumbers, "integer", lambda self, name, compute: torch.full((), compute(), device="cuda")),
}


@pytest.mark.parametrize("what", FROZEN)
def test_numbers_of_the_host_are_found(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*FROZEN[what])
    *_, one, other = captured_steps(gan(), trainer, Data(batches(3)))
    assert "became" in (first_difference(one, other) or "")


@pytest.mark.parametrize("what", ["keys", "rates"])
def test_a_graph_of_numbers_of_the_host_trains_wrongly(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = trained(gan(capture=False), batches(4))
    monkeypatch.setattr(*FROZEN[what])
    with captured_on_cpu():
        found = trained(gan(), batches(4))
    assert not all(torch.equal(found[name], value) for name, value in expected.items())


def test_a_copy_from_the_cpu_is_found() -> None:
    one = [("aten._to_copy.default", "cpu tensor 3")]
    assert first_difference(one, one) == "('aten._to_copy.default', 'cpu tensor 3') computes on the CPU"


# The same run --------------------------------------------------------------------------------------------------------


def test_momentum_that_changes_is_recorded_anew() -> None:
    """Over several epochs, whose last batch is smaller."""
    data = batches(0, (4, 4, 4, 3))
    expected = trained(gan(capture=False), data, max_epochs=3)
    with captured_on_cpu() as recorders:
        found = trained(gan(), data, max_epochs=3)
    assert recorders[0].count == 8  # the first of nine runs eagerly, and so do the smaller ones
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_a_capacity_that_grows() -> None:
    options: dict[str, Any] = {"latent_dim": 3, "networks": "mlp", "hidden_features": (6,), "capacity": 5.0}
    ends = []
    for capture in (False, True):
        torch.manual_seed(0)
        model = BetaVAE(8, 1, capacity_steps=7, capture=capture, **options)
        with captured_on_cpu():
            ends.append(trained(model, batches(5)))
    torch.testing.assert_close(*ends, rtol=0, atol=0)


@pytest.mark.parametrize("options", [{"gradient_clip": 0.01}, {"ema_decay": 0.5}, {"augment": True}])
def test_options_are_captured(options: dict[str, Any]) -> None:
    expected = trained(gan(capture=False, **options), batches(4))
    with captured_on_cpu():
        found = trained(gan(**options), batches(4))
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_steps_that_pretrain_have_a_graph_of_their_own() -> None:
    ends = []
    for capture in (False, True):
        torch.manual_seed(0)
        model = WAEGAN(8, 1, 3, base_channels=2, discriminator_features=(4,), pretraining_steps=3, capture=capture)
        with captured_on_cpu():
            ends.append(trained(model, batches(6)))
    torch.testing.assert_close(*ends, rtol=0, atol=0)


def test_a_captured_run_is_taken_up_by_an_ordinary_one(tmp_path: Path) -> None:
    """And the other way round: checkpoints know nothing of it."""
    data = batches(6)
    expected = trained(gan(capture=False), data)
    for first, then in ((True, False), (False, True)):
        keep = ModelCheckpoint(dirpath=tmp_path / str(first), save_last=True, every_n_train_steps=1)
        with captured_on_cpu():
            trained(gan(capture=first), data, enable_checkpointing=True, callbacks=[keep], max_steps=3)
            resumed = gan(capture=then)
            saved = tmp_path / str(first) / "last.ckpt"
            trainer().fit(resumed, datamodule=Data(data), ckpt_path=saved)
        groups = torch.load(saved, weights_only=True)["optimizer_states"][0]["param_groups"]
        assert isinstance(groups[0]["lr"], float)
        assert "capturable" not in groups[0]
        torch.testing.assert_close(state_of(resumed), expected, rtol=0, atol=0)


@pytest.mark.parametrize("case", [test_gan.TestGAN, test_vae.TestVAE])
def test_values_are_logged_and_losses_returned(case: type[ModelContract]) -> None:
    class Values(Callback):
        def __init__(self) -> None:
            self.seen: list[Any] = []

        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *_: Any) -> None:
            self.seen.append((outputs, {k: v.clone() for k, v in trainer.callback_metrics.items()}))

    torch.manual_seed(0)
    start, values = case().tiny(), []
    for capture in (False, True):
        model, callback = copy.deepcopy(start), Values()
        model.capture = capture
        with captured_on_cpu():
            trained(model, [case().batch(4, seed=i) for i in range(5)], callbacks=[callback], log_every_n_steps=2)
        values.append(callback.seen)
    assert values[0][-1][1]
    torch.testing.assert_close(*values, rtol=0, atol=0)


@pytest.mark.parametrize("case", [test_dcgan.TestDCGAN, test_vae.TestVAE])
def test_a_loss_that_is_not_finite_stops_a_captured_run(case: type[ModelContract]) -> None:
    model = case().tiny()
    model.capture = True
    data = [case().batch(4, seed=i) for i in range(6)]
    data[4]["image"][0, 0, 0, 0] = float("nan")
    with captured_on_cpu(), pytest.raises(FloatingPointError, match="not finite at batch 4"):
        trained(model, data)
    assert model.captured is None


# Refusals ------------------------------------------------------------------------------------------------------------


class Looking(Callback):
    """Uses a hook inside the step."""

    def on_after_backward(self, trainer: Any, pl_module: Any) -> None: ...


REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "without accumulation": ({"accumulate": 2}, {}),
    "runs no hooks": ({}, {"callbacks": [Looking()]}),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_cannot_be_captured_is_refused(reason: str) -> None:
    options, settings = REFUSED[reason]
    with pytest.raises(ValueError, match=f"GAN cannot capture its steps: .*{reason}"):
        trained(gan(**options), batches(2), **settings)


def test_adagrad_is_refused() -> None:
    model = test_vae.TestVAEConv().tiny()
    model.capture = True
    with pytest.raises(ValueError, match="a graph takes fused Adam or SGD, not Adagrad"):
        trained(model, [test_vae.TestVAEConv().batch(4)])


def test_models_that_the_host_steers_are_refused() -> None:
    with pytest.raises(ValueError, match="CycleGAN does not take capture: the host draws what its pools exchange"):
        CycleGAN(16, 3, 4, 1, capture=True)


def test_sentences_are_refused() -> None:
    case = test_text2image.TestText2ImageSentences()
    model = case.tiny()
    model.capture, model.accumulate = True, 1  # type: ignore[assignment]
    with pytest.raises(ValueError, match="captured steps take embeddings"):
        trained(model, [case.batch(4)])
