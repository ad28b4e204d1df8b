from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from benchmarks import speed
from benchmarks.steps import Loop, Settings, copy_parameters
from zoo import random
from zoo.base import AdversarialModel

TINY = Settings(image_size=16, batch_size=4, options=(("base_channels", 4), ("latent_dim", 5)))
LOOPS = ("plain", "textbook")


@pytest.fixture(params=speed.architectures())
def module(request: pytest.FixtureRequest) -> ModuleType:
    return import_module(f"benchmarks.steps.{request.param}")


def pair(module: ModuleType, name: str, settings: Settings, dtype: torch.dtype) -> tuple[AdversarialModel, Loop]:
    """The zoo's model, and a loop with the same weights and the noise that the model will draw."""
    model: AdversarialModel = module.model(settings).to(dtype)

    def noise(step: int) -> Tensor:
        key = random.key(0, "z", step)
        return random.normal((settings.batch_size, model.hparams["latent_dim"]), key, dtype=dtype)

    return model, getattr(module, name)(model, settings, noise)


def largest_difference(model: AdversarialModel, loop: Loop) -> float:
    """Largest difference of any parameter or buffer."""
    pairs = [
        pair
        for name, network in loop.networks.items()
        for tensors in (nn.Module.parameters, nn.Module.buffers)
        for pair in zip(tensors(model.get_submodule(name)), tensors(network), strict=True)
    ]
    return max(float((a - b).abs().max()) for a, b in pairs)


@pytest.mark.parametrize("name", LOOPS)
def test_twenty_steps_are_the_same_maths(module: ModuleType, name: str) -> None:
    batches = speed.Batches((3, 16, 16), TINY, torch.float64)
    model, loop = pair(module, name, TINY, torch.float64)
    before = [p.detach().clone() for p in model.parameters()]
    stream = iter(batches)
    apart: list[float] = []

    def program(model: Any) -> speed.Program:
        for _ in range(20):
            yield 1
            loop.step(next(stream))
            apart.append(largest_difference(model, loop))

    speed.fit(model, batches, TINY, program)
    assert len(apart) == 20
    assert max(apart) < 1e-10, apart
    assert all(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


@pytest.mark.parametrize("name", LOOPS)
def test_first_step_in_single_precision(module: ModuleType, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses and gradients agree in the first step; later ones part, as trajectories of GANs do."""
    batches = speed.Batches((3, 16, 16), TINY)
    model, loop = pair(module, name, TINY, torch.float32)
    gradients: list[list[Tensor]] = [[], []]
    losses: list[dict[str, float]] = [{}, {}]
    turn = 0

    def keep(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        gradients[turn] += [p.grad.clone() for group in optimizer.param_groups for p in group["params"]]

    def checked(phase: str, loss: Tensor) -> None:
        losses[0][phase] = loss.item()

    def program(model: Any) -> speed.Program:
        nonlocal turn
        yield 1
        turn = 1
        losses[1] = {phase: loss.item() for phase, loss in loop.step(next(iter(batches))).items()}

    monkeypatch.setattr(model, "check_finite", checked)
    hook = register_optimizer_step_pre_hook(keep)
    try:
        speed.fit(model, batches, TINY, program)
    finally:
        hook.remove()
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert len(gradients[0]) == sum(1 for _ in model.parameters())
    for a, b in zip(*gradients, strict=True):
        assert float((a - b).abs().max() / b.abs().max()) < 1e-5


def test_a_driver_runs_what_the_program_asks_for(module: ModuleType) -> None:
    seen: list[int] = []

    def program(model: Any) -> speed.Program:
        for steps in (1, 3, 2):
            yield steps
            seen.append(model.batch_index + 1)

    speed.fit(module.model(TINY), speed.Batches((3, 16, 16), TINY), TINY, program)
    assert seen == [1, 4, 6]


def test_summary_by_hand() -> None:
    seconds = {"zoo": [1.0, 2.0, 4.0], "plain": [1.0, 1.0, 4.0], "textbook": [2.0, 4.0, 8.0], "networks": [0.5, 1.5, 3]}
    row = speed.summary({"seconds": seconds, "flops": {"zoo": 2e9}, "parameters": {"generator": 7}}, 64)
    assert row["loops"]["zoo"]["images_per_second"] == 32
    assert row["loops"]["zoo"]["gflop_per_step"] == 2
    assert row["zoo_over"]["plain"] == {"median": 1, "lower": 0.75, "upper": 1}
    assert row["zoo_over"]["textbook"]["median"] == 2
    assert row["share_outside_networks"] == 0.25
    assert "generator 7" in speed.table(row)


def test_names_of_files_tell_settings_apart() -> None:
    kinds = [
        Settings(),
        Settings(image_size=32),
        Settings(batch_size=8),
        Settings(precision="bf16"),
        Settings(channels_last=False),
        Settings(compile=True),
        Settings(device="cuda"),
    ]
    assert len({speed.file_name("dcgan", settings) for settings in kinds}) == len(kinds)


def test_copying_other_networks_is_refused() -> None:
    with pytest.raises(ValueError, match="the networks differ"):
        copy_parameters(nn.Linear(2, 3), nn.Linear(3, 3))


def test_the_command_writes_a_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "row.json"
    options = ["--image-size", "8", "--batch-size", "2", "--rounds", "2", "--steps", "1", "--no-memory", "--out"]
    speed.main(["dcgan", *options, str(out)])
    row = json.loads(out.read_text())
    assert row["settings"]["batch_size"] == 2
    assert set(row["loops"]) == set(speed.LOOPS)
    # Freezing the discriminator in the generator step saves its weight gradients.
    assert row["loops"]["zoo"]["gflop_per_step"] == row["loops"]["plain"]["gflop_per_step"]
    assert row["loops"]["zoo"]["gflop_per_step"] < row["loops"]["textbook"]["gflop_per_step"]
    assert row["hardware"]["cpu"]
    assert "images/s" in capsys.readouterr().out


def test_memory_of_a_loop_is_positive(module: ModuleType) -> None:
    assert speed.peak_memory(module, "plain", TINY, steps=1) >= 0
