"""`zoo export`: files that compute what the model does, and say what they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import zoo
from tests.cli.parts import command
from zoo import pretrained
from zoo.export import files
from zoo.export.functions import function_named, functions_of

SLUG = "vae-mnist28"


def run_onnx(path: Path, **inputs: torch.Tensor) -> list[torch.Tensor]:
    runtime: Any = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert [given.name for given in session.get_inputs()] == list(inputs)
    return [torch.from_numpy(o) for o in session.run(None, {name: x.numpy() for name, x in inputs.items()})]


def test_onnx_of_any_batch_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxscript")
    onnx: Any = pytest.importorskip("onnx")
    out, state = tmp_path / "vae.onnx", torch.get_rng_state()
    assert command("export", SLUG, "--function", "sample", "--out", out, "--dynamic_batch") == 0
    assert torch.equal(torch.get_rng_state(), state)
    assert "largest difference from the model: " in capsys.readouterr().out
    model: Any = zoo.load(SLUG)
    for n in (1, 7):
        z = model.latent(n, seed=5)
        (images,) = run_onnx(out, z=z)
        torch.testing.assert_close(images, model.sample(n, seed=5), atol=1e-5, rtol=0)
    words = {entry.key: entry.value for entry in onnx.load(out).metadata_props}
    assert words["zoo.checkpoint"] == SLUG
    assert words["zoo.sha256"] == pretrained.sha256(pretrained.pull(SLUG))
    z = {"shape": ["batch", model.latent_dim], "dtype": "float32", "meaning": "code from N(0, 1^2)"}
    assert json.loads(words["zoo.inputs"]) == {"z": z}
    assert json.loads(words["zoo.outputs"])["image"]["shape"] == ["batch", 1, 28, 28]


def test_program_of_one_image(tmp_path: Path) -> None:
    out = tmp_path / "vae.pt2"
    assert command("export", SLUG, "--format", "torch_export", "--function", "encode", "--out", out) == 0
    words = {"zoo.json": ""}
    program = torch.export.load(out, extra_files=words)
    assert json.loads(words["zoo.json"])["function"] == "encode"
    assert not any("decoder" in name for name in program.state_dict)  # `encode` needs no decoder
    model: Any = zoo.load(SLUG)
    x = torch.rand(1, 1, 28, 28) * 2 - 1
    torch.testing.assert_close(program.module()(x), model.encode(x))


def test_an_existing_file_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "vae.pt2"
    out.write_text("mine")
    arguments = ("export", SLUG, "--format", "torch_export", "--function", "decode", "--out", out)
    assert command(*arguments) == 2
    assert "exists: take another --out, or --force" in capsys.readouterr().err
    assert out.read_text() == "mine"
    assert command(*arguments, "--force") == 0
    assert out.stat().st_size > 1000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            (SLUG, "--function", "translate", "--out", "a.onnx"),
            "has no function 'translate' to export: it has gen",
        ),
        (("pixelcnn-mnist28", "--function", "sample", "--out", "a.onnx"), "is no graph: export log_prob, bits_per_dim"),
        ((SLUG, "--function", "decode", "--out", "a.pt2"), "--format onnx writes .onnx files: --out a.pt2 must end in"),
        (("vae-mnist29", "--function", "decode", "--out", "a.onnx"), "did you mean 'vae-mnist28'?"),
        ((SLUG, "--function", "decode", "--out", "a.onnx", "--format", "tflite"), "invalid choice: 'tflite'"),
    ],
)
def test_bad_input(
    arguments: tuple[str, ...],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(files, "PACKAGES", {"onnx": (), "torch_export": ()})
    assert command("export", *arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not [*tmp_path.iterdir()]


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "PACKAGES", {"onnx": ("no_such_package",)})
    with pytest.raises(ModuleNotFoundError, match=r"need no_such_package: pip install 'generative-zoo\[export\]'"):
        files.require_packages("onnx")


def test_a_file_that_computes_something_else_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = zoo.load(SLUG)
    function = function_named(model, "encode", SLUG)
    monkeypatch.setattr(files, "opened", lambda content, form: lambda inputs: [model.encode(inputs["x"]) + 0.1])  # type: ignore[operator]
    with pytest.raises(ValueError, match=r"was not written: its outputs differ from the model's by up to 0\.1"):
        files.export_file(model, function, tmp_path / "a.pt2", form="torch_export")
    assert not [*tmp_path.iterdir()]


def test_each_direction_of_a_translator_is_a_function() -> None:
    assert [*functions_of(zoo.load("cyclegan-openmoji2noto64"))][-2:] == ["translate:openmoji", "translate:noto"]
    assert "classify" in functions_of(zoo.load("stargan-emoji64"))


@pytest.mark.slow
@pytest.mark.parametrize("slug", zoo.list_pretrained())
def test_every_checkpoint_in_every_function(slug: str) -> None:
    pytest.importorskip("onnxscript")
    model = zoo.load(slug)
    for function in functions_of(model).values():
        for form in ("onnx", "torch_export"):
            content = files.serialized(model, function, form=form, dynamic_batch=True)
            found = files.largest_difference(files.opened(content, form), model, function, (1, 7))
            assert found <= files.LARGEST_DIFFERENCE, (function.name, form)
