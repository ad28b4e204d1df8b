"""The live page as static files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

import zoo
from docs import demo
from zoo.demo.models import has_panels
from zoo.demo.server import PAGE


def test_every_model_of_the_page_has_its_functions() -> None:
    found = demo.entries()
    assert [entry["slug"] for entry in found] == list(demo.MODELS)
    for entry in found:
        assert has_panels(entry)
        assert list(entry["functions"]) == list(demo.MODELS[entry["slug"]])
    files = [function["file"] for entry in found for function in entry["functions"].values()]
    assert len(set(files)) == len(files)
    first = sum(len(function["inputs"]) for function in found[0]["functions"].values())
    assert first == 1  # what a visitor loads at once is one file


def test_the_page_lies_in_a_folder_with_all_that_it_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "MODELS", {"classifier-mnist28": ("classify",)})
    monkeypatch.setattr(demo, "_examples", lambda folder: None)  # which takes a minute, once
    runtime, page = tmp_path / "runtime", tmp_path / "page"
    runtime.mkdir()
    with pytest.raises(FileNotFoundError, match=r"ort\.wasm\.min\.mjs is missing: npm install"):
        demo.write(page, runtime)
    for name in demo.RUNTIME_FILES:
        (runtime / name).write_text(name)
    demo.write(page, runtime)
    assert {path.name for path in page.iterdir() if path.is_file()} == {*PAGE, "models.json"}
    assert {path.name for path in (page / "ort").iterdir()} == set(demo.RUNTIME_FILES)
    listed = json.loads((page / "models.json").read_text())
    assert listed["backend"] == "onnx"
    (function,) = listed["models"][0]["functions"].values()
    x = torch.rand(3, 1, 28, 28) * 2 - 1
    (found,) = onnxruntime.InferenceSession(page / function["file"]).run(None, {function["inputs"][0]: x.numpy()})
    np.testing.assert_allclose(found, zoo.load("classifier-mnist28").classify(x), atol=1e-5)
