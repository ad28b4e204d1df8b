"""The table of exported files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import exports, readme


def test_a_row_and_its_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exports, "ENDINGS", {"torch_export": ".pt2", "onnx": ".onnx"})
    monkeypatch.setattr(exports, "serialized", lambda model, function, **_: b"12")
    monkeypatch.setattr(exports, "opened", lambda content, form: None)
    monkeypatch.setattr(exports, "largest_difference", lambda *_: 2.5e-6)
    monkeypatch.setattr(exports, "version", lambda package: "1.0")
    out = tmp_path / "exports.json"
    for slug in ("dcgan-emoji32", "classifier-mnist28", "dcgan-emoji32"):  # measured again, a checkpoint has one row
        exports.main([slug, "--out", str(out)])
    row = json.loads(out.read_text())
    pairs = [(found["checkpoint"], found["function"]) for found in row["exports"]]
    assert pairs == [("classifier-mnist28", "classify"), ("dcgan-emoji32", "generate")]
    page = readme.page([row])
    assert "## Exported files" in page
    assert f"commit {row['commit']}" in page
    assert "| dcgan-emoji32 | `generate` | 2.5e-06 | 2.5e-06 | 0.0 | 0.0 |" in page
