"""The contract of every architecture on a GPU: precisions, resume, compilation, and the CPU's numbers."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import LambdaCallback
from torch import Tensor

from tests.contract import Data, ModelContract, state_of, trainer
from tests.numerics import distance
from zoo.aae import AAE
from zoo.base import AdversarialModel, GenerativeModel
from zoo.dcgan import DCGAN
from zoo.infogan import InfoGAN
from zoo.vae import VAE

pytestmark = pytest.mark.cuda

FIRST, LATER = 1e-4, 1e-2
"""How far a loss on the GPU may be from the CPU's, of itself or of 1: at the same weights, and after an optimizer's
first step, which for Adam is nearly the sign of a gradient and magnifies roundings."""


def contracts() -> dict[str, type[ModelContract]]:
    """Every class that tests an architecture, by its name without Test."""
    found: dict[str, type[ModelContract]] = {}
    for path in sorted((Path(__file__).parents[1] / "models").glob("test_*.py")):
        module = import_module(f"tests.models.{path.stem}")
        for name, kind in vars(module).items():
            own = isinstance(kind, type) and issubclass(kind, ModelContract) and kind.__module__ == module.__name__
            if own and name.startswith("Test"):
                found[name.removeprefix("Test")] = kind
    return found


CONTRACTS = contracts()


@pytest.fixture(params=CONTRACTS)
def case(request: pytest.FixtureRequest) -> ModelContract:
    return CONTRACTS[request.param]()


@pytest.fixture
def model(case: ModelContract) -> GenerativeModel:
    torch.manual_seed(0)
    return case.tiny()


# Compiled first: it takes longest, and the others fill the time.
COMPILED: dict[str, Callable[..., AdversarialModel]] = {
    "dcgan": lambda **options: DCGAN(8, base_channels=4, latent_dim=5, **options),
    "aae": lambda **options: AAE(8, 3, hidden_features=(8,), discriminator_features=(6,), weight_std=None, **options),
    "infogan": lambda **options: InfoGAN(8, 3, 3, (3,), 2, base_channels=4, hidden_features=8, **options),
}


@pytest.mark.parametrize("name", COMPILED)
def test_compiled_networks_train_as_the_plain_ones(name: str, exact: None, record_property: Any) -> None:
    torch.manual_seed(0)
    plain, compiled = COMPILED[name](), COMPILED[name](compile=True)
    compiled.load_state_dict(plain.state_dict())
    batches = [{"image": torch.rand(4, 3, 8, 8) * 2 - 1} for _ in range(3)]
    losses = [losses_of(model, batches) for model in (plain, compiled)]
    record_property("losses apart", largest_difference(*losses))
    assert largest_difference(*losses) < LATER


def losses_of(model: GenerativeModel, batches: list[Any], **options: Any) -> dict[str, float]:
    """The first loss of each phase in a fit."""
    losses: dict[str, float] = {}

    def keep(phase: str, loss: Tensor) -> None:
        losses.setdefault(phase, loss.item())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "check_finite", keep)
        trainer(**options).fit(model, datamodule=Data(batches))
    return losses


def largest_difference(losses: dict[str, float], expected: dict[str, float]) -> float:
    """Between two losses of one phase, relative where they exceed 1."""
    assert losses.keys() == expected.keys()
    return max(abs(losses[phase] - value) / max(1.0, abs(value)) for phase, value in expected.items())


def test_captured_steps_train_as_the_ordinary_ones(
    case: ModelContract, model: GenerativeModel, device: torch.device, exact: None, record_property: Any
) -> None:
    """Graphs after the first three steps; rates are rounded to float32 for them."""
    takes = isinstance(model, AdversarialModel) and "capture" not in model.unsupported_options
    if not (takes or isinstance(model, VAE)):
        pytest.skip("has no option capture")
    if getattr(model, "accumulate", 1) > 1 or getattr(model, "optimizer", "") == "adagrad":
        pytest.skip("refused with capture")
    start, ends = copy.deepcopy(model), []
    batches = [case.batch(4, seed=i) for i in range(5 * case.steps(model))]
    for capture in (False, True):
        trained = copy.deepcopy(start)
        trained.capture = capture
        trainer().fit(trained, datamodule=Data(batches))
        ends.append(torch.cat([p.detach().flatten().double().cpu() for p in trained.parameters()]))
    before = torch.cat([p.detach().flatten().double() for p in start.parameters()])
    apart = distance(ends[1] - before, ends[0] - before)
    record_property("captured weights apart, of what training changed", apart)
    assert apart < 0.05  # Adam's first steps are nearly signs of gradients


# Precisions ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
def test_fit_is_finite(case: ModelContract, model: GenerativeModel, precision: str, device: torch.device) -> None:
    if precision == "16-mixed" and not isinstance(model, AdversarialModel):
        pytest.skip("one optimizer, as Lightning has it")
    if precision == "16-mixed" and device.type == "cpu":
        pytest.skip("of a GPU only")
    before = state_of(model)
    places: set[str] = set()
    step = model.training_step

    def seen(batch: Any, batch_idx: int) -> Any:
        places.update(p.device.type for p in model.parameters())
        return step(batch, batch_idx)

    run = trainer(precision=precision, log_every_n_steps=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "training_step", seen)
        batches = [case.batch(4, seed=i) for i in range(max(3, case.steps(model)))]
        run.fit(model, datamodule=Data(batches))
    assert places == {device.type}
    losses = {name: float(value) for name, value in run.callback_metrics.items()}
    assert losses, "nothing was logged"
    assert all(map(math.isfinite, losses.values())), losses
    after = state_of(model)
    assert all(torch.isfinite(value).all() for value in after.values())
    # In fp16 the first steps look for a scale of the loss, and change nothing.
    assert precision == "16-mixed" or any(not torch.equal(after[name], before[name]) for name in after)


@pytest.mark.parametrize("precision", ["32-true", "16-mixed"])
def test_no_step_waits_for_the_gpu(
    case: ModelContract, model: GenerativeModel, precision: Any, device: torch.device
) -> None:
    """Between logging steps; hooks and the transfer of batches count."""
    if device.type != "cuda":
        pytest.skip("a CPU has nothing to wait for")
    if precision == "16-mixed" and not isinstance(model, AdversarialModel):
        pytest.skip("one optimizer, as Lightning has it")
    if precision == "16-mixed" and model.gradient_clip is not None:
        pytest.skip("clips unscaled gradients: torch's scaler then looks before each step whether they are finite")
    count = 2 * max(3, case.steps(model))
    watch = LambdaCallback(  # from the first batch on: at its start a fit may read what a checkpoint holds
        on_train_batch_start=lambda *_: torch.cuda.set_sync_debug_mode("warn"),
        on_train_end=lambda *_: torch.cuda.set_sync_debug_mode("default"),
    )
    run = trainer(precision=precision, log_every_n_steps=1000, callbacks=[watch])
    with warnings.catch_warnings(record=True) as waits:
        warnings.filterwarnings("always", message="called a synchronizing")
        try:
            run.fit(model, datamodule=Data([case.batch(4, seed=i) for i in range(count)]))
        finally:
            torch.cuda.set_sync_debug_mode("default")
    places = [f"{Path(w.filename).name}:{w.lineno}" for w in waits if "synchronizing" in str(w.message)]
    assert not places, f"{len(places)} waits in {count} batches, at {sorted(set(places))}"


# Resume --------------------------------------------------------------------------------------------------------------


def test_resume_is_exact(case: ModelContract, tmp_path: Path, deterministic: None, record_property: Any) -> None:
    """With deterministic algorithms; CycleGAN's pools and waiting batches are a part of it."""
    try:
        case.test_resume_is_exact(tmp_path / "deterministic")
    except RuntimeError as error:
        if "deterministic" not in str(error):
            raise
        reason = str(error).partition(". ")[0]
        record_property("refuses deterministic algorithms", reason)
        torch.use_deterministic_algorithms(False)
        try:
            case.test_resume_is_exact(tmp_path / "other")
            record_property("without deterministic algorithms", "exact all the same")
        except AssertionError:
            record_property("without deterministic algorithms", "not exact")
        pytest.skip(f"refuses deterministic algorithms: {reason}")


# The CPU's numbers ---------------------------------------------------------------------------------------------------


def test_losses_are_those_of_the_cpu(
    case: ModelContract, device: torch.device, exact: None, monkeypatch: pytest.MonkeyPatch, record_property: Any
) -> None:
    losses = []
    for accelerator in ("cpu", "gpu" if device.type == "cuda" else "cpu"):
        torch.manual_seed(0)
        model = case.tiny()
        batches = [case.batch(4, seed=i) for i in range(case.steps(model))]
        losses.append(losses_of(model, batches, accelerator=accelerator))
    first = next(iter(losses[0]))
    at_first = largest_difference(*({first: values[first]} for values in losses))
    record_property("first loss apart", at_first)
    record_property("all losses apart", largest_difference(*losses))
    assert at_first < FIRST
    assert largest_difference(*losses) < LATER


def test_pictures_are_those_of_the_cpu(
    case: ModelContract,
    model: GenerativeModel,
    device: torch.device,
    exact: None,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Any,
) -> None:
    expected = case.pictures(model)
    batch = case.batch
    monkeypatch.setattr(case, "batch", lambda n, **options: {k: on(v, device) for k, v in batch(n, **options).items()})
    found = case.pictures(model.to(device))
    assert found.device.type == device.type
    record_property("pictures apart, of the norm", distance(found.cpu(), expected))
    assert distance(found.cpu(), expected) < 1e-3


def on(value: Any, device: torch.device) -> Any:
    """A value of a batch on a device."""
    return value.to(device) if isinstance(value, Tensor) else value
