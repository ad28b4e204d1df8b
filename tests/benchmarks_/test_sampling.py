from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks import readme, sampling
from zoo import PixelCNN


def test_architectures_are_those_with_a_naive_sampler() -> None:
    assert {"NADE", "PixelCNN", "PixelRNN", "PixelTransformer"} <= set(sampling.architectures())
    assert "VAE" not in sampling.architectures()


def test_naive_time_is_scaled_up_and_the_model_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(10_000))
    monkeypatch.setattr("time.perf_counter", lambda: float(next(clock)))
    model = PixelCNN(4, hidden_channels=2, num_layers=1, head_channels=2)
    forward = model.logits
    found = sampling.measure(model, 2, rounds=2, sub_pixels=5)
    assert found["cached"]["seconds"] == 1
    assert found["naive"]["seconds"] == 16  # one tick for each of 4 x 4 pixels
    assert found["ratio"] == 16
    assert found["timed_sub_pixels"] == 5
    assert model.logits == forward
    whole = sampling.measure(model, 2, rounds=1, sub_pixels=999)
    assert whole["timed_sub_pixels"] == 16
    assert torch.equal(model.sample(2, seed=0), model.sample(2, seed=0, naive=True))


def test_row_and_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["image_size=4", "hidden_channels=2", "num_layers=1", "layer=row"]
    arguments = [word for text in options for word in ("--option", text)]
    sampling.main(["PixelRNN", "--batch-size", "2", "3", "--rounds", "1", *arguments, "--out", str(tmp_path)])
    rows = [json.loads(path.read_text()) for path in sorted(tmp_path.iterdir())]
    assert [row["settings"]["batch_size"] for row in rows] == [2, 3]
    assert rows[0]["settings"]["options"]["layer"] == "row"
    assert "times the naive sampler's" in capsys.readouterr().out
    page = readme.page(rows)
    assert "| PixelRNN, image_size=4, hidden_channels=2, num_layers=1, layer=row | 1x4x4 | 2 |" in page
