"""The importer of text encoders, against the reference's computation written out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.cli.parts import command
from tests.numerics import assert_near
from zoo import convert
from zoo.nn.text import ALPHABET, load_text_encoder


def file_of(path: Path, rnn: str) -> dict[str, nn.Module]:
    """A file in the layout of the port, and its layers."""
    torch.manual_seed(0)
    names = ["i2h_update", "h2h_update", "i2h_reset", "h2h_reset", "i2h", "h2h"] if rnn == "gru" else ["i2h", "h2h"]
    layers: dict[str, nn.Module] = {
        "conv1": nn.Conv1d(70, 6, 4),
        "conv2": nn.Conv1d(6, 7, 4),
        "conv3": nn.Conv1d(7, 5, 4),
        **{f"rnn.{name}": nn.Linear(5, 5) for name in names},
        "emb_proj": nn.Linear(5, 9),
    }
    torch.save({f"{name}.{k}": v for name, layer in layers.items() for k, v in layer.state_dict().items()}, path)
    return layers


def reference(layers: dict[str, nn.Module], x: Tensor, rnn: str) -> Tensor:
    for i in (1, 2, 3):
        x = F.threshold(layers[f"conv{i}"](x), 1e-6, 0)
        x = F.max_pool1d(x, 3) if i < 3 else x
    if rnn == "relu":
        x = F.max_pool1d(x, 3, 2)
    r: Any = {name.removeprefix("rnn."): layer for name, layer in layers.items() if name.startswith("rnn.")}
    states: list[Tensor] = []
    for step in x.permute(2, 0, 1):
        if rnn == "relu":
            states.append((r["i2h"](step) + (r["h2h"](states[-1]) if states else 0)).relu())
        elif not states:
            states.append(r["i2h"](step).tanh())
        else:
            h = states[-1]
            update = (r["i2h_update"](step) + r["h2h_update"](h)).sigmoid()
            reset = (r["i2h_reset"](step) + r["h2h_reset"](h)).sigmoid()
            states.append(update * (r["i2h"](step) + r["h2h"](reset * h)).tanh() + (1 - update) * h)
    result: Tensor = layers["emb_proj"](torch.stack(states).mean(0))
    return result


@pytest.mark.parametrize("rnn", ["gru", "relu"])
def test_sentences_have_the_references_embeddings(tmp_path: Path, rnn: str) -> None:
    layers = file_of(tmp_path / "birds.pth", rnn)
    model = convert.text_encoder([tmp_path / "birds.pth"], layout="martinduartemore").double()
    captions = ["A small bird with a red head!", "", "x" * 300]
    with torch.no_grad():
        doubled = {name: layer.double() for name, layer in layers.items()}
        numbers = model.text_network.numbers(captions)  # the length of the alphabet after the end of a sentence
        onehot = F.one_hot(numbers, len(ALPHABET) + 1)[:, :, :-1].transpose(1, 2)
        expected = reference(doubled, onehot.double(), rnn)
    assert_near(model.encode_text(captions), expected)


def test_the_command_writes_a_file_that_models_take(tmp_path: Path) -> None:
    file_of(tmp_path / "birds.pth", "gru")
    out = str(tmp_path / "birds.safetensors")
    assert (
        command("import", "text_encoder", "--from", "martinduartemore", str(tmp_path / "birds.pth"), "--out", out) == 0
    )
    assert load_text_encoder(out).embedding_dim == 9


def test_another_file_is_refused(tmp_path: Path) -> None:
    torch.save({"conv1.weight": torch.zeros(2, 70, 4)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="does not have the layout of martinduartemore: it lacks"):
        convert.text_encoder([tmp_path / "other.pth"])
