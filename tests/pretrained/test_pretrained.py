from __future__ import annotations

import hashlib
import http.server
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save as serialize

import zoo
from zoo import pretrained
from zoo.dcgan import DCGAN
from zoo.pretrained import cards, files, places, publish, registries

ROOT = Path(__file__).parents[2]


def tiny(**options: Any) -> DCGAN:
    return DCGAN(8, base_channels=4, latent_dim=5, **options)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.safetensors"
    pretrained.save(tiny(), path, networks=["generator"])
    return path


def rewrite(path: Path, tensors: dict[str, torch.Tensor] | None = None, **changes: Any) -> None:
    header, held = pretrained.read(path)
    tensors = held if tensors is None else tensors
    header |= {"sum": files._sum(tensors)} | changes
    path.write_bytes(serialize(tensors, {"zoo": json.dumps(header)}))


# Loading -------------------------------------------------------------------------------------------------------------


def test_a_saved_model_samples_the_same(tmp_path: Path) -> None:
    model = tiny(ema_decay=0.5)
    pretrained.save(model, tmp_path / "m.safetensors")
    again = zoo.load(tmp_path / "m.safetensors")
    assert torch.equal(again.sample(4, seed=0), model.sample(4, seed=0))
    assert not again.training
    assert dict(again.hparams) == json.loads(json.dumps(dict(model.hparams)))


def test_networks_that_are_not_held_are_rebuilt_untrained(file: Path) -> None:
    state = torch.get_rng_state()
    model = zoo.load(str(file))
    assert isinstance(model, DCGAN)
    assert model.discriminator.layers[0].conv.weight.std() > 0
    assert torch.equal(torch.get_rng_state(), state)


def test_half_precision_is_stored_and_float32_loaded(tmp_path: Path) -> None:
    model = tiny()
    pretrained.save(model, tmp_path / "half.safetensors", networks=["generator"], half=True)
    _, tensors = pretrained.read(tmp_path / "half.safetensors")
    assert tensors["generator.layers.0.conv.weight"].dtype == torch.float16
    assert tensors["generator.layers.0.norm.running_var"].dtype == torch.float32
    again = zoo.load(tmp_path / "half.safetensors")
    assert {p.dtype for p in again.parameters()} == {torch.float32}
    assert torch.allclose(again.sample(4, seed=0), model.sample(4, seed=0), atol=1e-2)


def test_a_compiled_model_is_loaded_without_a_compiler(file: Path) -> None:
    header, _ = pretrained.read(file)
    rewrite(file, hparams=header["hparams"] | {"compile": True})
    model = zoo.load(file)
    assert model.generator._compiled_call_impl is None


def test_headers_of_every_length_are_read(tmp_path: Path) -> None:
    """The first bytes of a file are its header's length, which may look like the start of a pickle or of a zip."""
    for length in range(64):
        pretrained.save(tiny(), tmp_path / "m.safetensors", information={"note": "x" * length * 8})
        first = (tmp_path / "m.safetensors").read_bytes()[0]
        zoo.load(tmp_path / "m.safetensors")
        if first == 0x80:
            return
    raise AssertionError("no header began like a pickle")


def test_a_truncated_file(file: Path) -> None:
    content = file.read_bytes()
    for length in (0, 5, 100, len(content) // 2, len(content) - 1):
        file.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"tiny\.safetensors is damaged"):
            zoo.load(file)


def test_a_flipped_bit_anywhere_is_found(file: Path) -> None:
    """Every file says so in one line: no other exception, and no other weights."""
    content = file.read_bytes()
    samples = zoo.load(file).sample(1, seed=0)
    for position in range(0, len(content), 37):
        damaged = bytearray(content)
        damaged[position] ^= 1 << position % 8
        file.write_bytes(damaged)
        try:  # a bit of what is only said, such as a version's number, changes nothing
            assert torch.equal(zoo.load(file).sample(1, seed=0), samples)
            assert position < len(content) - 4 * 100
        except ValueError as error:
            assert "tiny.safetensors" in str(error)  # noqa: PT017


def test_a_pickle_is_not_opened(tmp_path: Path) -> None:
    for name, options in (("new.pth", {}), ("old.pth", {"_use_new_zipfile_serialization": False})):
        torch.save(tiny().state_dict(), tmp_path / name, **options)
        with pytest.raises(ValueError, match=r"is a pickle, which could run any code.*zoo import"):
            zoo.load(tmp_path / name)
        (tmp_path / name).rename(tmp_path / "weights.safetensors")
        with pytest.raises(ValueError, match="is a pickle"):
            zoo.load(tmp_path / "weights.safetensors")


@pytest.mark.parametrize("name", ["os.system", "zoo.dcgan.Generator", "zoo.dcgan.Nothing", "zoo", "zoo..os.system"])
def test_only_models_of_the_zoo_are_built(file: Path, name: str) -> None:
    rewrite(file, **{"class": name})
    with pytest.raises(ValueError, match=r"asks for"):
        zoo.load(file)


def test_a_file_of_other_hyperparameters(file: Path) -> None:
    header, _ = pretrained.read(file)
    rewrite(file, hparams=header["hparams"] | {"base_channels": 8})
    with pytest.raises(
        ValueError, match=r"is not a checkpoint of this zoo\.dcgan\.DCGAN: \S+ has shape \(\d.*expected"
    ):
        zoo.load(file)
    rewrite(file, hparams={"depth": 3})
    with pytest.raises(ValueError, match=r"has hyperparameters that zoo\.dcgan\.DCGAN does not take"):
        zoo.load(file)


def test_missing_and_unknown_keys(file: Path) -> None:
    content = file.read_bytes()
    _, tensors = pretrained.read(file)
    rewrite(file, {k: v for k, v in tensors.items() if k != "generator.layers.0.conv.weight"})
    with pytest.raises(ValueError, match=r"lacks generator\.layers\.0\.conv\.weight"):
        zoo.load(file)
    file.write_bytes(content)
    rewrite(file, tensors | {"generator.extra": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"unknown generator\.extra"):
        zoo.load(file)
    file.write_bytes(content)
    rewrite(file, {}, networks=[])
    with pytest.raises(ValueError, match="does not hold the network 'generator'"):
        zoo.load(file)
    with pytest.raises(ValueError, match="DCGAN has no network 'encoder': take of generator, discriminator"):
        pretrained.save(tiny(), file, networks=["encoder"])


def test_a_file_of_something_else_or_of_the_future(file: Path) -> None:
    rewrite(file, format=files.FORMAT + 1)
    with pytest.raises(ValueError, match="newer version"):
        zoo.load(file)
    file.write_bytes(serialize({"a": torch.zeros(1)}))
    with pytest.raises(ValueError, match="no header of this package"):
        zoo.load(file)


def test_a_renamed_key_is_migrated(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, tensors = pretrained.read(file)
    samples = zoo.load(file).sample(2, seed=0)
    rewrite(file, {key.replace("generator.layers.", "generator.blocks."): value for key, value in tensors.items()})
    monkeypatch.setattr(files, "FORMAT", 3)
    monkeypatch.setattr(
        files,
        "MIGRATIONS",
        {2: [("generator.blocks.", "generator.steps.")], 3: [("generator.steps.", "generator.layers.")]},
    )
    assert torch.equal(zoo.load(file).sample(2, seed=0), samples)


def test_an_unknown_name_suggests_the_nearest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LookupError, match="no checkpoint or file 'dcgan-emoji23': did you mean 'dcgan-emoji32'"):
        zoo.load("dcgan-emoji23")
    with pytest.raises(FileNotFoundError, match=r"there is no file gone\.safetensors"):
        zoo.load("gone.safetensors")
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    with pytest.raises(IsADirectoryError, match=r"run is a run folder: take its .*last\.ckpt"):
        zoo.load(tmp_path / "run")


# Fetching ------------------------------------------------------------------------------------------------------------


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves one file with ranges; breaks off the first transfer in the middle."""

    content = b""
    requests: list[str | None] = []  # noqa: RUF012
    honest = True

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        first = not self.requests
        self.requests.append(wanted)
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        body = self.content[start:]
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if first else body)

    def log_message(self, *args: Any) -> None:
        """Quiet."""


@pytest.fixture
def remote(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    Handler.content, Handler.requests = file.read_bytes(), []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    entry = {
        "file": "remote.safetensors",
        "sha256": hashlib.sha256(Handler.content).hexdigest(),
        "url": f"http://127.0.0.1:{server.server_port}/remote.safetensors",
    }
    monkeypatch.setattr(registries.Registry, "index", lambda self: {"remote": entry})
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("ZOO_OFFLINE", raising=False)
    yield entry
    server.shutdown()
    server.server_close()


def test_an_interrupted_transfer_goes_on(remote: dict[str, Any]) -> None:
    path = pretrained.pull("remote")
    assert path.read_bytes() == Handler.content
    assert Handler.requests == [None, f"bytes={len(Handler.content) // 2}-"]
    pretrained.pull("remote")
    assert len(Handler.requests) == 2, "fetched although it is in the cache"
    assert zoo.load("remote").sample(1, seed=0).shape == (1, 3, 8, 8)


def test_another_file_than_the_published_one_is_refused(remote: dict[str, Any]) -> None:
    remote["sha256"] = "0" * 64
    with pytest.raises(ValueError, match="is not the published file"):
        pretrained.pull("remote")
    assert not list(places.cache_dir().glob("*.safetensors"))


def test_a_flipped_bit_in_the_cache_is_found(remote: dict[str, Any]) -> None:
    path = pretrained.pull("remote")
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"is damaged: its sha256 is .* published is"):
        zoo.load("remote")


def test_offline_is_obeyed(remote: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_OFFLINE", "1")
    with pytest.raises(FileNotFoundError, match="ZOO_OFFLINE is set"):
        pretrained.pull("remote")
    assert not Handler.requests


def test_processes_that_ask_at_once_fetch_once(remote: dict[str, Any]) -> None:
    Handler.requests.append("so that the first transfer is whole")
    with ThreadPoolExecutor(4) as pool:
        paths = set(pool.map(pretrained.pull, ["remote"] * 4))
    assert len(paths) == 1
    assert len(Handler.requests) == 2
    assert not list(places.cache_dir().glob("*.part"))


def test_a_file_address(remote: dict[str, Any], file: Path) -> None:
    remote["url"] = file.as_uri()
    assert pretrained.pull("remote").read_bytes() == file.read_bytes()


def test_an_entry_of_wandb(remote: dict[str, Any], file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def artifact_folder(root: str) -> str:
        Path(root).mkdir()
        (Path(root) / "remote.safetensors").write_bytes(file.read_bytes())
        return root

    def artifact(name: str) -> Any:
        asked.append(name)
        return SimpleNamespace(download=artifact_folder)

    del remote["url"]
    remote["wandb"] = "someone/zoo/tiny:v0"
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(Api=lambda: SimpleNamespace(artifact=artifact)))
    assert pretrained.pull("remote").read_bytes() == file.read_bytes()
    assert asked == ["someone/zoo/tiny:v0"]
    assert {p.suffix for p in places.cache_dir().iterdir()} == {".safetensors", ".lock"}


def test_a_client_that_fails_or_is_not_installed(remote: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> str:
        raise RuntimeError("401 Client Error\nmore about it")

    del remote["url"]
    remote["wandb"] = "someone/zoo/tiny:v0"
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(Api=lambda: SimpleNamespace(artifact=fail)))
    with pytest.raises(OSError, match=r"cannot fetch or send remote: 401 Client Error$"):
        pretrained.pull("remote")
    for client, address in (("wandb", "wandb://a/b/c"), ("huggingface_hub", "hf://a/b")):
        monkeypatch.setitem(sys.modules, client, None)
        with pytest.raises(
            ModuleNotFoundError, match=rf"{address} needs {client}: pip install 'generative-zoo\[hub\]'"
        ):
            pretrained.pull(address)


def test_a_cache_that_cannot_be_written(remote: dict[str, Any], file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_HOME", str(file))
    with pytest.raises(OSError, match=r"cannot write to .*set ZOO_HOME elsewhere"):
        pretrained.pull("remote")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk(remote: dict[str, Any]) -> None:
    path = places.cache_dir() / f"{remote['sha256'][:16]}-remote.part"
    path.parent.mkdir(parents=True)
    path.symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"cannot fetch http.* into .*No space left on device"):
        pretrained.pull("remote")


def test_a_host_that_is_not_there(remote: dict[str, Any]) -> None:
    remote["url"] = "http://127.0.0.1:9/none.safetensors"
    with pytest.raises(OSError, match=r"cannot fetch http://127\.0\.0\.1:9"):
        pretrained.pull("remote")


# What is published ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("slug", pretrained.list_pretrained())
def test_published_files_are_what_the_index_says(slug: str) -> None:
    entry = pretrained.index()[slug]
    header, _ = pretrained.read(pretrained.pull(slug))
    assert header.items() <= entry.items()
    assert header["data"]["licence"] == entry["data"]["licence"] != "none stated"
    assert entry["bytes"] <= publish.MAX_FILE
    model = zoo.load(slug)
    noise = torch.rand(2, 3, 64, 64) * 2 - 1
    kind = entry.get("pictures", "samples")
    if kind == "samples":
        x = model.sample(2, seed=0)
        assert x.shape == (2, *model.image_shape)
    elif kind == "translations":
        x = model.translate(noise, entry["targets"][0])
    elif kind == "assembled images":
        x = model.assemble(noise[:, None].expand(-1, 3, -1, -1, -1), seed=0)[0]
    elif kind == "similarities":
        x = model.encode(noise) @ model.encode_text(["a red apple", "cat"]).T
    else:
        assert kind == "probabilities"
        x = model.classify(torch.rand(2, *model.image_shape) * 2 - 1)
        assert torch.allclose(x.sum(1), torch.ones(2))
    assert x.std() > (0.001 if kind == "similarities" else 0.1)
    folder = pretrained.weights_folder()
    picture = folder / f"{slug}.png"
    assert picture.exists() == (kind not in ("probabilities", "similarities"))
    text = pretrained.card(slug)
    for metric in entry["metrics"]:
        assert metric["protocol"] in text
        assert cards.value(metric) in text


def test_all_published_files_together_fit_the_wheel() -> None:
    folder = pretrained.weights_folder()
    assert sum(p.stat().st_size for p in folder.glob("*.safetensors")) <= publish.MAX_TOTAL
    assert {p.stem for p in folder.glob("*.safetensors")} == set(pretrained.list_pretrained())


def test_starters_of_the_wheel_are_few() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    starters = re.findall(r'^ *"([\w-]+\.safetensors)",$', text, re.M)
    assert len(starters) >= 5
    assert sum((pretrained.weights_folder() / name).stat().st_size for name in starters) <= 8 * 2**20
    # The extractors of digits and clothes are weights of ours, and needed by `zoo evaluate`.
    assert {"classifier-mnist28.safetensors", "classifier-fashionmnist28.safetensors"} <= set(starters)


def test_weights_of_the_other_distribution_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slug = "pixelrnn-mnist28-diagonal"
    content, known = (pretrained.weights_folder() / f"{slug}.safetensors").read_bytes(), pretrained.index()
    monkeypatch.setattr(registries, "weights_folder", lambda: tmp_path / "wheel")
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "home"))
    (tmp_path / "wheel").mkdir()
    (tmp_path / "wheel" / "index.json").write_text(json.dumps(known))
    with pytest.raises(FileNotFoundError, match="pip install generative-zoo-weights"):
        pretrained.pull(slug)
    other = tmp_path / "site" / "generative_zoo_weights"
    other.mkdir(parents=True)
    (other / "__init__.py").touch()
    (other / f"{slug}.safetensors").write_bytes(content)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    assert pretrained.pull(slug) == other / f"{slug}.safetensors"


def test_index_and_card_import_little() -> None:
    code = "import sys, zoo.cli; from zoo import pretrained as p; p.index(); p.list_pretrained(); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, env=os.environ | {"PYTHONPATH": "."}, capture_output=True, text=True
    )
    assert not {"torch", "lightning", "numpy", "urllib.request"} & set(done.stdout.split())
