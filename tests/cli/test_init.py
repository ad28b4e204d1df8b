"""A run that starts from a checkpoint: which networks and layers, and what a discriminator that is new waits for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor

import zoo
from tests.cli.parts import TINY, Noise, checkpoint, command, same
from zoo import DCGAN, pretrained
from zoo.cli import weights

Fails = Callable[..., str]
MODEL = ["--model=DCGAN", "--model.image_size=8", "--model.latent_dim=4", "--model.base_channels=4"]
FIT = ["fit", *MODEL, *TINY[1:]]


def tiny() -> DCGAN:
    with torch.random.fork_rng():
        torch.manual_seed(9)
        model = DCGAN(8, base_channels=4, latent_dim=4, ema_decay=0.5)
        for network in (model.generator, model.discriminator):
            for parameter in network.parameters():
                parameter.data += 0.01 * torch.randn_like(parameter)
        model.move_averages()
    return model


def state_of(name: str) -> dict[str, Tensor]:
    state: dict[str, Tensor] = checkpoint(Path("runs") / name)["state_dict"]
    return state


def part(state: dict[str, Tensor], network: str) -> dict[str, Tensor]:
    """The parameters of a network; running statistics move whatever trains."""
    return {k: v for k, v in state.items() if k.startswith(f"{network}.") and k.endswith(("weight", "bias"))}


def differ(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return any(not torch.equal(a[key], b[key]) for key in a)


@pytest.fixture(autouse=True)
def three_steps_of_warmup(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "WARMUP", 3)


def test_a_discriminator_that_is_new_trains_alone_first(capsys: pytest.CaptureFixture[str]) -> None:
    model = tiny()
    pretrained.save(model, Path("m.safetensors"), networks=["generator_ema"])
    start = [*FIT, "--init=m.safetensors"]
    assert command(*start, "--name=run", "--trainer.max_steps=2") == 0
    said = capsys.readouterr().out
    assert "Starting from m.safetensors: generator\n" in said
    assert "not in its file, so untrained, and train alone for 3 steps: discriminator\n" in said
    average = {k.replace("_ema", ""): v for k, v in part(dict(model.state_dict()), "generator_ema").items()}
    assert not differ(part(state_of("run"), "generator"), average)  # a copy of the average, which waits
    early = part(state_of("run"), "discriminator")
    assert command(*start, "--name=run", "--trainer.max_steps=5") == 0  # goes on in the middle of the warm-up
    assert differ(part(state_of("run"), "generator"), average)
    assert differ(part(state_of("run"), "discriminator"), early)
    assert command(*start, "--name=straight", "--trainer.max_steps=5") == 0
    same(state_of("run"), state_of("straight"), "state")


def test_a_full_file_starts_all_networks_and_the_card_tells_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from zoo.pretrained import publish, registries

    here = Path.cwd() / "data" / "generative-zoo"
    monkeypatch.setenv("XDG_DATA_HOME", str(here.parent))
    monkeypatch.setattr(registries, "weights_folder", lambda: here)
    monkeypatch.setattr(publish, "data_module", lambda *_: Noise(image_size=8))
    assert command(*FIT, "--name=one", "--trainer.max_steps=2", "--model.ema_decay=0.5") == 0
    written = publish.publish(Path("runs/one"), "dcgan-one", full=True)
    assert here / "dcgan-one-full.safetensors" in written
    entry = pretrained.index()["dcgan-one"]
    assert entry["full"]["networks"] == ["generator", "discriminator", "generator_ema"]
    assert entry["networks"] == ["generator_ema"]
    assert "full file" in pretrained.card("dcgan-one")
    full, saved = zoo.load("dcgan-one-full"), state_of("one")
    assert all(torch.allclose(v, saved[k], rtol=1e-3, atol=1e-6) for k, v in full.state_dict().items())
    capsys.readouterr()
    assert command(*FIT, "--name=two", "--trainer.max_steps=1", "--init=dcgan-one", "--model.ema_decay=0.5") == 0
    said = capsys.readouterr().out
    assert "Starting from dcgan-one: discriminator, generator, generator_ema\n" in said
    assert "untrained" not in said
    publish.publish(Path("runs/two"), "dcgan-two")
    start = pretrained.index()["dcgan-two"]["training"]["start"]
    spent = entry["training"]["seconds"]
    assert start == {"name": "dcgan-one", "sha256": entry["full"]["sha256"], "warmup": 0, "steps": 2, "seconds": spent}
    told = f"dcgan-one after 2 steps and 0 minutes, sha256 `{start['sha256'][:16]}`"
    assert f"| started from | {told} |" in pretrained.card("dcgan-two")
    with pytest.raises(LookupError, match="dcgan-two has no full file, only generator_ema: take dcgan-two"):
        zoo.load("dcgan-two-full")
    # From a run's file: the card names the run, and no folder of this machine.
    assert command(*FIT, "--name=three", "--trainer.max_steps=1", "--init=runs/one/checkpoints/last.ckpt") == 0
    publish.publish(Path("runs/three"), "dcgan-three")
    assert "| started from | run one after 2 steps and 0 minutes, sha256 `" in pretrained.card("dcgan-three")


def test_layers_that_fit_are_taken_where_one_asks_for_it(fails: Fails, capsys: pytest.CaptureFixture[str]) -> None:
    model = tiny()
    pretrained.save(model, Path("m.safetensors"), networks=["generator", "discriminator", "generator_ema"])
    wide = [*FIT, "--name=wide", "--trainer.max_steps=1", "--init=m.safetensors", "--model.latent_dim=5"]
    message = fails(*wide)
    assert "generator.layers.0.conv.weight has shape (4, 4, 4, 4), here it is (5, 4, 4, 4)" in message
    assert "--init_strict false" in message
    assert not Path("runs/wide").exists()
    assert command(*wide, "--init_strict=false", "--model.learning_rate=0") == 0
    said = capsys.readouterr().out
    assert "discriminator, generator; of other sizes, so untrained: generator.layers.0.conv\n" in said
    ours, theirs = state_of("wide"), model.state_dict()
    for key in ("generator.layers.1.conv.weight", "discriminator.layers.0.conv.weight"):
        assert torch.equal(ours[key], theirs[key])
    assert yaml.safe_load(Path("runs/wide/config.yaml").read_text())["init"] == "m.safetensors"
