"""Graphs of models: what is checked eagerly, what a graph keeps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

import zoo
from zoo.base.growing import GrowingGAN
from zoo.engine import tracing
from zoo.nn import losses, pixelrnn
from zoo.nn.losses import bernoulli_nats
from zoo.nn.pixelrnn import skew, unskew
from zoo.nn.progressive_gan_growth import Growth


def exported(monkeypatch: pytest.MonkeyPatch, *modules: Any) -> None:
    """As if a graph were made."""
    for module in modules:
        monkeypatch.setattr(module, "is_exported", lambda: True)


def test_nothing_is_traced_eagerly() -> None:
    assert not tracing.is_traced()
    assert not tracing.is_exported()


def test_the_trainer_is_no_attribute_without_one() -> None:
    model = zoo.DCGAN(8, 1, 4, base_channels=4)
    assert "trainer" not in dir(model)
    assert not model.scales_images
    with pytest.raises(RuntimeError, match="is not attached to a `Trainer`"):
        _ = model.trainer


def test_labels_are_checked_eagerly_and_free_in_a_graph() -> None:
    model = zoo.StarGAN(16, attributes=("a", "b"), base_channels=4, num_blocks=1, discriminator_layers=2).eval()
    x = torch.zeros(2, 3, 16, 16)
    with pytest.raises(ValueError, match=r"labels must lie in 0\.\.1"):
        model.translate(x, torch.tensor([0, 2]))
    program = torch.export.export(model, (x, torch.tensor([0, 1]))).module()
    target = torch.tensor([1, 1])
    torch.testing.assert_close(program(x, target), model.translate(x, target), atol=1e-5, rtol=0)


def test_a_graph_is_of_the_stage_that_training_has_reached() -> None:
    model = zoo.ProgressiveGAN(16, 1, 4, fmap_base=8, max_channels=4, growth=Growth()).eval()
    assert isinstance(model, GrowingGAN)
    z = torch.randn(2, 4)
    for stage, alpha in ((0, 1.0), (2, 0.25)):
        model._set_stage(stage, alpha)
        model.eval()
        program = torch.export.export(model, (z,)).module()
        torch.testing.assert_close(program(z), model.generate(z), atol=1e-5, rtol=0)


@pytest.mark.parametrize("shape", [(1, 2, 3, 5, 4), (2, 3, 6, 6)])
def test_skewed_maps_of_a_graph_are_the_same(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(shape)
    expected = skew(x)
    exported(monkeypatch, pixelrnn)
    assert torch.equal(skew(x), expected)
    assert torch.equal(unskew(expected), x)


def test_bernoulli_nats_of_a_graph_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, target = torch.tensor([-200.0, -1.0, 0.0, 2.0, 200.0]), torch.tensor([0.0, 1.0, 0.5, 0.0, 1.0])
    exported(monkeypatch, losses)
    expected = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    torch.testing.assert_close(bernoulli_nats(logits, target), expected)


def test_networks_whose_names_are_words_of_python_keep_them_in_state_dicts() -> None:
    model = zoo.ClusteringAAE(8, 1, 2, 3, hidden_features=(4,), discriminator_features=(4,))
    path = Path(__file__).parent / "state_dicts" / "ClusteringAAE.json"
    assert any(key.startswith("discriminators.class.") for key in json.loads(path.read_text()))
    assert [*model.discriminators] == [*model.discriminators.keys()] == ["style", "class"]
    state = {name: torch.randn_like(value) for name, value in model.state_dict().items()}
    assert "discriminators.class.0.weight" in state
    model.load_state_dict(state)
    assert torch.equal(model.discriminators["class"][0].weight, state["discriminators.class.0.weight"])
    torch.export.export(model.eval(), (torch.zeros(1, 1, 8, 8),)).module()
