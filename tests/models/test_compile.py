from __future__ import annotations

import copy

import pytest
import torch

from tests.contract import Data, state_of, trainer
from zoo.dcgan import DCGAN


@pytest.mark.slow
def test_compiled_networks_train_as_the_plain_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    # The tracer without the code generator: what is compiled, and how parameters are frozen, is the same.
    compile = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: compile(self, backend="aot_eager"))
    torch.manual_seed(0)
    plain = DCGAN(8, base_channels=4, latent_dim=5).double()
    compiled = DCGAN(8, base_channels=4, latent_dim=5, compile=True).double()
    compiled.load_state_dict(copy.deepcopy(plain.state_dict()))
    batches = [{"image": torch.rand(4, 3, 8, 8, dtype=torch.float64)} for _ in range(3)]
    for model in (plain, compiled):
        trainer(precision="64-true").fit(model, datamodule=Data(batches))
    expected = state_of(plain)
    assert list(compiled.state_dict()) == list(expected)
    for name, value in compiled.state_dict().items():
        assert torch.allclose(value, expected[name], rtol=0, atol=1e-8), name
    assert torch.allclose(plain.sample(3, seed=0), compiled.sample(3, seed=0), atol=1e-8)
