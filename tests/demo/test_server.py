"""The page's server runs what the models run, for this machine alone."""

from __future__ import annotations

import http.client
import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import zoo
from tests.cli.parts import command, the_line
from zoo.demo.models import described, has_panels
from zoo.demo.server import PAGE, Demo, serve


@pytest.fixture(scope="module")
def demo() -> Demo:
    torch.manual_seed(0)
    stargan = zoo.StarGAN(16, 3, attributes=["red", "big"], base_channels=2, num_blocks=1, discriminator_layers=2)
    models = {
        "dcgan": zoo.DCGAN(16, 3, 5, base_channels=2),
        "vae": zoo.VAE(28, 1, 3, hidden_features=(4,)),
        "stargan": stargan,
        "cyclegan": zoo.CycleGAN(8, 3, 2, 1, domain_names=["x", "y"], discriminator_layers=1),
    }
    return Demo({name: model.eval() for name, model in models.items()}, {"vae": "MNIST"})


@pytest.fixture(scope="module")
def address(demo: Demo) -> Iterator[tuple[str, int]]:
    server = serve(demo)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield "127.0.0.1", server.server_port
    server.shutdown()
    server.server_close()


def ask(address: tuple[str, int], method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any, bytes]:
    connection = http.client.HTTPConnection(*address, timeout=30)
    connection.request(method, path, None if body is None else json.dumps(body), headers)
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response.status, response.headers, content


def given(**inputs: Tensor) -> dict[str, Any]:
    return {name: {"dims": list(value.shape), "data": value.flatten().tolist()} for name, value in inputs.items()}


def test_functions_run_as_in_the_model(demo: Demo, address: tuple[str, int]) -> None:
    z, x = torch.randn(3, 5), torch.rand(2, 3, 16, 16) * 2 - 1
    zeros, target = torch.zeros(1, 1, 28, 28), torch.tensor([1, 0])
    models: dict[str, Any] = dict(demo.models)
    calls: list[tuple[str, str, dict[str, Tensor], Tensor]] = [
        ("dcgan", "generate", {"z": z}, models["dcgan"].generate(z)),
        ("vae", "reconstruct", {"x": zeros}, models["vae"].reconstruct(zeros)),
        ("stargan", "translate", {"x": x, "target": target}, models["stargan"].translate(x, target)),
        ("cyclegan", "translate:y", {"x": x[:1, :, :8, :8]}, models["cyclegan"].translate(x[:1, :, :8, :8], "y")),
    ]
    for model, function, inputs, expected in calls:
        request = {"model": model, "function": function, "inputs": given(**inputs)}
        status, headers, content = ask(address, "POST", "/run", request)
        assert (status, headers["X-Shape"]) == (200, ",".join(map(str, expected.shape)))
        found = np.frombuffer(content, "<f4").reshape(expected.shape)
        torch.testing.assert_close(torch.tensor(found), expected, rtol=0, atol=1e-5)


def test_wrong_calls_are_answered_in_one_line(address: tuple[str, int]) -> None:
    good = {"model": "dcgan", "function": "generate", "inputs": given(z=torch.zeros(1, 5))}
    cases: list[tuple[Any, str]] = [
        ([], "no such model: there are dcgan, vae, stargan, cyclegan"),
        (good | {"model": "gan"}, "no such model"),
        (good | {"function": "latent"}, "dcgan has no function 'latent': it has generate"),
        (good | {"function": "sample"}, "has no function 'sample'"),
        (good | {"inputs": {}}, "generate takes the inputs z"),
        (good | {"inputs": {"z": 3}}, "z needs dims and data"),
        (good | {"inputs": given(z=torch.zeros(65, 5))}, "z must have dims [1 to 64, 5], not [65, 5]"),
        (good | {"inputs": given(z=torch.zeros(1, 6))}, "not [1, 6]"),
        (good | {"inputs": {"z": {"dims": [1, 5], "data": [1]}}}, "z needs 5 numbers"),
        (good | {"inputs": {"z": {"dims": [1, 5], "data": ["a"] * 5}}}, "z must be a list of numbers"),
    ]
    for request, message in cases:
        status, _, content = ask(address, "POST", "/run", request)
        assert status == 400
        assert message in content.decode()
        assert "\n" not in content.decode()
    target = {"model": "stargan", "function": "translate"}
    inputs = given(x=torch.zeros(1, 3, 16, 16), target=torch.tensor([7]))
    assert ask(address, "POST", "/run", target | {"inputs": inputs})[0] == 400
    assert ask(address, "POST", "/run", good)[0] == 200  # it goes on


def test_only_its_own_files_under_its_own_name(address: tuple[str, int]) -> None:
    for name, kind in {"": "text/html", **PAGE}.items():
        status, headers, content = ask(address, "GET", f"/{name}")
        assert status == 200
        assert headers["Content-Type"].startswith(kind.partition(";")[0])
        assert content == (files("zoo.demo") / "page" / (name or "index.html")).read_bytes()
    for path in ("/../server.py", "/page/demo.js", "/etc/passwd"):
        assert ask(address, "GET", path)[0] == 404
    assert json.loads(ask(address, "GET", "/models.json")[2])["backend"] == "server"
    for method, path in (("GET", "/models.json"), ("POST", "/run")):
        assert ask(address, method, path, Host="elsewhere.example")[0] == 403
    assert ask(address, "POST", "/run", Host=f"localhost:{address[1]}", **{"Content-Length": "x"})[0] == 400
    assert ask(address, "POST", "/elsewhere", {})[0] == 400


def test_what_the_page_knows_of_models(demo: Demo) -> None:
    entries = {entry["slug"]: entry for entry in demo.entries}
    assert all(has_panels(entry) for entry in entries.values())
    assert entries["vae"]["latent"] == {"kind": "normal", "size": 3, "std": 1.0, "code": True}
    assert entries["dcgan"]["latent"]["kind"] in ("normal", "uniform")
    assert (entries["stargan"]["domains"], entries["cyclegan"]["domains"]) == (["red", "big"], ["x", "y"])
    assert entries["stargan"]["functions"]["translate"]["inputs"] == ["x", "target"]
    assert (entries["vae"]["data"], entries["dcgan"]["data"]) == ("MNIST", None)
    assert not has_panels(described(zoo.NADE(8, 1, hidden_features=4), "nade"))
    swiss = zoo.AAE(8, 1, 2, prior="swiss_roll", hidden_features=(4,), discriminator_features=(4,))
    assert described(swiss, "aae")["latent"] is None


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
def test_the_page_draws_what_the_models_draw(tmp_path: Path) -> None:
    """Bit for bit, but for the last place of logarithms and cosines."""
    models: list[Any] = [
        zoo.DCGAN(16, 1, 7, base_channels=2),
        zoo.GAN(8, 1, 7),
        zoo.VAE(8, 1, 5, hidden_features=(4,)),
        zoo.WAE(28, 1, 3, base_channels=2),
        zoo.InfoGAN(8, 1, 3, (3, 4), 2, base_channels=2, hidden_features=4),
        zoo.InfoGAN(8, 1, 3, (3,), 0, base_channels=2, hidden_features=4, noise="normal"),
    ]
    script = tmp_path / "draw.mjs"
    page = tmp_path / "latents.mjs"
    page.write_bytes((files("zoo.demo") / "page" / "latents.js").read_bytes())
    specs = [described(model, "x")["latent"] for model in models]
    script.write_text(
        f"import {{latents, characters}} from {json.dumps(page.as_uri())};\n"
        f"const found = {json.dumps(specs)}.map((spec) => latents(spec, 9, 123));\n"
        "console.log(JSON.stringify(found.map(({dims, data}) => ({dims, data: Array.from(data)}))));\n"
        "const spec = {alphabet: process.argv[2], max_length: 12};\n"
        "console.log(JSON.stringify(Array.from(characters(spec, 'A-é b').data, Number)));\n"
    )
    from zoo.nn.text import ALPHABET, CharEncoder

    done = subprocess.run(["node", script, ALPHABET], capture_output=True, text=True, check=True).stdout.splitlines()
    for model, drawn in zip(models, json.loads(done[0]), strict=True):
        expected = model.latent(9, seed=123)
        assert drawn["dims"] == list(expected.shape)
        torch.testing.assert_close(torch.tensor(drawn["data"]).view(expected.shape), expected, rtol=1e-6, atol=1e-7)
    encoder = CharEncoder(channels=(2, 2), hidden_features=2, embedding_dim=2)
    numbers = encoder.numbers(["A-é b"])[0]
    assert json.loads(done[1]) == numbers[:5].tolist() + [len(ALPHABET)] * 7


def test_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)

    def interrupted(server: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("http.server.ThreadingHTTPServer.serve_forever", interrupted)
    assert command("demo", "classifier-mnist28", "vae-mnist28") == 0
    line = capsys.readouterr().out.splitlines()[0]
    assert line == f"classifier-mnist28, vae-mnist28: {opened[0]} (Ctrl+C ends it)"
    assert opened[0].startswith("http://127.0.0.1:")
    assert command("demo", "classifier-mnist28", "--no_open") == 0
    assert len(opened) == 1
    capsys.readouterr()
    for arguments, words in (
        (["no-such"], "no-such"),
        (["pixelcnn-mnist28"], "pixelcnn-mnist28 (PixelCNN) has nothing that the page can show"),
        (["classifier-mnist28", "--port", "70000"], "--port must be from 0 to 65535, not 70000"),
    ):
        assert command("demo", *arguments) == 2
        assert words in the_line(capsys.readouterr().err)
