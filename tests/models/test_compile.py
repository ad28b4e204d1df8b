from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.contract import Data, state_of, trainer
from zoo.aae import AAE
from zoo.base import AdversarialModel
from zoo.dcgan import DCGAN
from zoo.infogan import InfoGAN
from zoo.pixelrnn import PixelRNN

MODELS: dict[str, Callable[..., AdversarialModel]] = {
    "dcgan": lambda **options: DCGAN(8, base_channels=4, latent_dim=5, **options),
    "aae": lambda **options: AAE(8, 3, hidden_features=(8,), discriminator_features=(6,), weight_std=None, **options),
    "infogan": lambda **options: InfoGAN(8, 3, 3, (3,), 2, base_channels=4, hidden_features=8, **options),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_compiled_networks_train_as_the_plain_ones(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # The tracer without the code generator: what is compiled, and how parameters are frozen, is the same.
    compile = torch.nn.Module.compile
    compiled_networks: list[Any] = []

    def keep(self: torch.nn.Module) -> None:
        compiled_networks.append(self)
        compile(self, backend="aot_eager")

    monkeypatch.setattr(torch.nn.Module, "compile", keep)
    torch.manual_seed(0)
    plain, compiled = MODELS[name]().double(), MODELS[name](compile=True).double()
    compiled.load_state_dict(copy.deepcopy(plain.state_dict()))
    batches = [{"image": 2 * torch.rand(4, 3, 8, 8, dtype=torch.float64) - 1} for _ in range(3)]
    for model in (plain, compiled):
        trainer(precision="64-true").fit(model, datamodule=Data(batches))
    expected = state_of(plain)
    assert list(compiled.state_dict()) == list(expected)
    for key, value in compiled.state_dict().items():
        assert torch.allclose(value, expected[key], rtol=0, atol=1e-8), key
    assert torch.allclose(plain.sample(3, seed=0), compiled.sample(3, seed=0), atol=1e-8)
    held = sum(p.numel() for network in compiled_networks for p in network.parameters())
    assert held == sum(p.numel() for p in compiled.parameters())
    assert not any(isinstance(network, torch.nn.ModuleDict) for network in compiled_networks)


@pytest.mark.slow
@pytest.mark.parametrize("layer", ["row", "diagonal"])
def test_a_compiled_recurrence_is_one_graph_for_all_layers(layer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other batches than those of the first one's size, and passes without gradients, run as they are."""
    compile, graphs = torch.compile, list[int]()

    def backend(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        graphs.append(len(graph.graph.find_nodes(op="call_function", target=torch.baddbmm)))
        return graph.forward

    monkeypatch.setattr(torch, "compile", lambda function, **options: compile(function, backend=backend, **options))
    torch.manual_seed(0)
    sizes = {"hidden_channels": 4, "num_layers": 2, "head_channels": 6}
    plain, compiled = (PixelRNN(6, layer=layer, compile=compile, **sizes) for compile in (False, True))  # type: ignore[arg-type]
    compiled.load_state_dict(plain.state_dict())
    batches = [{"image": 2 * torch.rand(n, 1, 6, 6) - 1} for n in (4, 4, 3)]
    for model in (plain, compiled):
        trainer().fit(model, datamodule=Data(batches))
    assert graphs == [{"row": 6, "diagonal": 12}[layer]]  # a product for each row, or diagonal of the wider map
    for name, value in state_of(plain).items():
        assert torch.allclose(value, compiled.state_dict()[name], rtol=0, atol=1e-5), name
    assert torch.allclose(plain.log_prob(batches[0]["image"]), compiled.log_prob(batches[0]["image"]), atol=1e-3)
