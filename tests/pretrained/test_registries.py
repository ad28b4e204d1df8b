"""Registries: folders and web servers with an index, and the order in which a name is looked up in them."""

from __future__ import annotations

import functools
import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import zoo
from zoo import pretrained
from zoo.dcgan import DCGAN
from zoo.pretrained import places
from zoo.pretrained.push import push, push_model


def tiny(latent_dim: int = 5) -> DCGAN:
    return DCGAN(8, base_channels=4, latent_dim=latent_dim)


@pytest.fixture(autouse=True)
def _own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.delenv("ZOO_OFFLINE", raising=False)


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A registry with the checkpoint `tiny`."""
    push_model(tiny(), f"{tmp_path}/shared/tiny")
    return tmp_path / "shared"


class Server:
    """A folder on a web server; `broken` breaks off so many answers in the middle."""

    def __init__(self, folder: Path) -> None:
        self.requests: list[tuple[str, str | None]] = []
        self.broken = 0
        server = self

        class Handler(http.server.SimpleHTTPRequestHandler):
            def log_message(self, *args: Any) -> None:
                """Quiet."""

            def do_GET(self) -> None:
                wanted, path = self.headers.get("Range"), Path(self.translate_path(self.path))
                server.requests.append((self.path, wanted))
                if not path.is_file():
                    self.send_error(404)
                    return
                content = path.read_bytes()
                body = content[int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0 :]
                self.send_response(206 if wanted else 200)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Last-Modified", self.date_time_string(int(path.stat().st_mtime)))
                self.end_headers()
                if path.suffix == ".safetensors" and server.broken:
                    server.broken -= 1
                    body = body[: len(body) // 2]
                try:
                    self.wfile.write(body)
                except ConnectionError:
                    self.close_connection = True

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder))
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def web(shared: Path) -> Iterator[Server]:
    server = Server(shared)
    yield server
    server.server.shutdown()
    server.server.server_close()


# Folders -------------------------------------------------------------------------------------------------------------


def test_a_folder_holds_file_card_grid_and_entry(shared: Path, tmp_path: Path) -> None:
    assert push("gan-mnist28", shared) == f"{shared}/gan-mnist28"
    names = {path.name for path in shared.iterdir()} - {".index.lock"}
    assert names == {f"{slug}.{end}" for slug in ("tiny", "gan-mnist28") for end in ("safetensors", "md", "png")} | {
        "index.json"
    }
    assert pretrained.index(shared)["gan-mnist28"] == pretrained.index()["gan-mnist28"]
    model = zoo.load(f"{shared}/gan-mnist28")
    assert torch.equal(model.sample(2, seed=0), zoo.load("gan-mnist28").sample(2, seed=0))
    assert f'zoo.load("{shared}/gan-mnist28")' in pretrained.card(f"{shared}/gan-mnist28")
    assert pretrained.pull(f"{shared}/tiny") == shared / "tiny.safetensors", "a folder's files are used in place"
    with pytest.raises(LookupError, match="has no checkpoint 'tinny': did you mean 'tiny'"):
        zoo.load(f"{shared}/tinny")
    with pytest.raises(LookupError, match=r"there is no checkpoint or file '.*/nowhere/tiny': .*/nowhere has no index"):
        zoo.load(f"{tmp_path}/nowhere/tiny")


def test_a_name_is_looked_up_in_order(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LookupError, match="there is no checkpoint or file 'tiny'"):
        zoo.load("tiny")
    push_model(tiny(latent_dim=6), f"{tmp_path}/data/generative-zoo/tiny")
    assert zoo.load("tiny").hparams["latent_dim"] == 6, "the user's own"
    monkeypatch.setenv("ZOO_REGISTRY", f" {shared} ,")
    assert zoo.load("tiny").hparams["latent_dim"] == 5, "a named registry comes before the user's own"
    push_model(tiny(), f"{shared}/gan-mnist28")
    assert type(zoo.load("gan-mnist28")).__name__ == "GAN", "the package comes first"
    assert {"tiny", "gan-mnist28"} <= set(zoo.list_pretrained())
    assert zoo.list_pretrained("tin") == ["tiny"]
    assert "tiny" not in pretrained.index(), "the package's own index"
    monkeypatch.setenv("ZOO_REGISTRY", str(tmp_path / "gone"))
    with pytest.raises(FileNotFoundError, match=r"gone is no registry: it has no index\.json"):
        zoo.load("tiny")


def test_other_weights_of_a_name_are_not_replaced_in_silence(shared: Path) -> None:
    before = (shared / "tiny.safetensors").read_bytes()
    push_model(tiny(), f"{shared}/gan-mnist28")
    with pytest.raises(
        FileExistsError, match="has other weights under the name gan-mnist28: take another name, or --f"
    ):
        push("gan-mnist28", shared)
    push("gan-mnist28", shared, force=True)
    push("gan-mnist28", shared)  # the same again
    push("gan-mnist28", shared, slug="digits")
    assert (shared / "tiny.safetensors").read_bytes() == before
    assert set(pretrained.index(shared)) == {"tiny", "gan-mnist28", "digits"}


def test_processes_that_push_at_once_are_both_in_the_index(tmp_path: Path) -> None:
    code = "import sys; from zoo.pretrained.push import push; push(*sys.argv[1:3])"
    slugs = ["gan-mnist28", "pixelrnn-mnist28-diagonal", "pixelrnn-mnist28-row"]
    runs = [
        subprocess.Popen([sys.executable, "-c", code, slug, f"{tmp_path}/both"], env=os.environ | {"PYTHONPATH": "."})
        for slug in slugs
    ]
    assert [run.wait(300) for run in runs] == [0] * len(slugs)
    assert sorted(pretrained.index(tmp_path / "both")) == slugs


def test_a_changed_file_and_a_damaged_index_are_refused(shared: Path) -> None:
    push_model(tiny(latent_dim=6), f"{shared}/other")
    (shared / "tiny.safetensors").write_bytes((shared / "other.safetensors").read_bytes())
    with pytest.raises(ValueError, match=r"tiny\.safetensors is damaged: its sha256 is"):
        zoo.load(f"{shared}/tiny")
    entries = pretrained.index(shared)
    for file in ("../tiny.safetensors", "/etc/passwd", "tiny.ckpt", 3):
        (shared / "index.json").write_text(json.dumps({"tiny": entries["tiny"] | {"file": file}}))
        with pytest.raises(ValueError, match=r"the index of .*shared is damaged: 'tiny' has no valid file or sha256"):
            zoo.load(f"{shared}/tiny")
    sneaky = json.dumps({"../tiny": entries["tiny"]})
    for text in ("{", "[]", '{"tiny": 1}', sneaky):
        (shared / "index.json").write_text(text)
        with pytest.raises(ValueError, match=r"the index of .* is damaged"):
            zoo.load(f"{shared}/tiny")


# Web servers ---------------------------------------------------------------------------------------------------------


def test_a_served_folder_is_a_registry(web: Server, shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    web.broken = 1
    path = pretrained.pull(f"{web.url}/tiny")
    assert path.read_bytes() == (shared / "tiny.safetensors").read_bytes()
    assert path.parent == places.cache_dir()
    files = [(name, wanted) for name, wanted in web.requests if name.endswith(".safetensors")]
    assert [bool(wanted) for _, wanted in files] == [False, True], "an interrupted transfer goes on"
    assert f'zoo.load("{web.url}/tiny")' in pretrained.card(f"{web.url}/tiny")
    monkeypatch.setenv("ZOO_REGISTRY", web.url)
    zoo.load("tiny")
    assert zoo.list_pretrained("tiny") == ["tiny"]
    assert len([name for name, _ in web.requests if name.endswith(".safetensors")]) == 2, "it was in the cache"
    monkeypatch.setenv("ZOO_OFFLINE", "1")
    count = len(web.requests)
    zoo.load("tiny")
    zoo.load(f"{web.url}/tiny")
    assert "tiny" in pretrained.card("tiny")
    assert len(web.requests) == count
    with pytest.raises(FileNotFoundError, match="is not in the cache and ZOO_OFFLINE is set"):
        zoo.load(f"{web.url}/folder/tiny")


def test_a_changed_file_on_a_server_is_refused(web: Server, shared: Path) -> None:
    push_model(tiny(latent_dim=6), f"{shared}/other")
    (shared / "tiny.safetensors").write_bytes((shared / "other.safetensors").read_bytes())
    with pytest.raises(ValueError, match=r"what was fetched for .*/tiny is not the published file"):
        zoo.load(f"{web.url}/tiny")
    assert not list(places.cache_dir().glob("*tiny.safetensors"))


def test_a_file_on_a_server(web: Server, shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"{web.url}/tiny.safetensors"
    web.broken = 2  # the first answer is only looked at
    assert torch.equal(zoo.load(address).sample(1, seed=0), zoo.load(f"{shared}/tiny").sample(1, seed=0))
    assert any(wanted for _, wanted in web.requests), "an interrupted transfer goes on"
    card = pretrained.card(address)
    assert f'zoo.load("{address}")' in card
    assert "zoo.dcgan.DCGAN" in card
    push_model(tiny(latent_dim=6), f"{shared}/other")
    os.replace(shared / "other.safetensors", shared / "tiny.safetensors")
    os.utime(shared / "tiny.safetensors", (1, 1))
    assert zoo.load(address).hparams["latent_dim"] == 6, "the server's file is another one now"
    monkeypatch.setenv("ZOO_OFFLINE", "1")
    assert zoo.load(address).hparams["latent_dim"] == 6
    with pytest.raises(FileNotFoundError, match=r"is not in the cache .* and ZOO_OFFLINE is set"):
        zoo.load(f"{web.url}/more/tiny.safetensors")


def test_a_server_that_has_something_else(web: Server, shared: Path) -> None:
    torch.save({}, shared / "pickle.safetensors")
    with pytest.raises(ValueError, match="is a pickle, which could run any code, and was not opened"):
        zoo.load(f"{web.url}/pickle.safetensors")
    with pytest.raises(OSError, match=r"cannot fetch http://.*/none\.safetensors: HTTP Error 404"):
        zoo.load(f"{web.url}/none.safetensors")
    with pytest.raises(OSError, match=r"cannot fetch http://.*/none/index\.json: HTTP Error 404"):
        zoo.load(f"{web.url}/none/tiny")
    with pytest.raises(OSError, match=r"cannot fetch http://127\.0\.0\.1:9/index\.json: .*refused"):
        zoo.load("http://127.0.0.1:9/tiny")


# Pushing -------------------------------------------------------------------------------------------------------------


def test_where_nothing_can_be_pushed(shared: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a web server takes no push: push to the folder that serves https://h/zoo"):
        push("gan-mnist28", "https://h/zoo")
    with pytest.raises(ValueError, match="--private is for repositories of the Hugging Face Hub"):
        push("gan-mnist28", shared, private=True)
    with pytest.raises(ValueError, match=r"x\.safetensors is a file: push to the folder of a registry"):
        push("gan-mnist28", tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="'A B' is no name of a checkpoint"):
        push("gan-mnist28", shared, slug="A B")
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"cannot write to .*file/zoo"):
        push("gan-mnist28", tmp_path / "file" / "zoo")
    with pytest.raises(LookupError, match="there is no checkpoint or file 'gan-mnist82': did you mean 'gan-mnist28'"):
        push("gan-mnist82", shared)


def test_a_dry_run_writes_what_would_be_pushed(tmp_path: Path) -> None:
    folder = Path(push("gan-mnist28", "hf://me/digits", dry_run=True))
    assert {path.name for path in folder.iterdir()} == {"README.md", "config.json", "model.safetensors", "samples.png"}
    assert json.loads((folder / "config.json").read_text()) == pretrained.index()["gan-mnist28"]["hparams"]
    assert (folder / "README.md").read_text().startswith("---\nlicense: cc-by-sa-3.0\nlibrary_name: generative-zoo\n")
    assert zoo.load(folder / "model.safetensors").sample(1, seed=0).shape == (1, 1, 28, 28)


def test_a_full_file_travels_with_its_checkpoint(tmp_path: Path) -> None:
    """As `zoo publish --full` leaves it: a second file with all networks, to train on."""
    source, model = tmp_path / "source", tiny()
    source.mkdir()
    pretrained.save(model, source / "tiny-full.safetensors")
    path = source / "tiny-full.safetensors"
    full = {"file": path.name, "sha256": pretrained.sha256(path), "bytes": path.stat().st_size}
    full["networks"] = ["generator", "discriminator"]
    pretrained.save(model, source / "tiny.safetensors", networks=["generator"], information={"full": full})
    entry = {"sha256": pretrained.sha256(source / "tiny.safetensors"), "file": "tiny.safetensors", "parameters": 1}
    entry |= pretrained.read(source / "tiny.safetensors")[0] | {"bytes": 1}
    (source / "index.json").write_text(json.dumps({"tiny": entry}))
    assert push(source / "tiny", tmp_path / "shared", slug="other") == f"{tmp_path}/shared/other"
    assert pretrained.pull(f"{tmp_path}/shared/other-full").read_bytes() == path.read_bytes()
    assert pretrained.pull(f"{tmp_path}/shared/other", full=True).name == "other-full.safetensors"
    assert zoo.load(f"{tmp_path}/shared/other").available_networks == ("generator",)
    assert set(zoo.load(f"{tmp_path}/shared/other-full").available_networks or ()) == {"generator", "discriminator"}
    folder = Path(push(source / "tiny", "hf://me/tiny", dry_run=True))
    assert (folder / "tiny-full.safetensors").read_bytes() == path.read_bytes()
    with pytest.raises(
        LookupError, match="gan-mnist28 has no full file, only generator, discriminator: take gan-mnist28"
    ):
        zoo.load("gan-mnist28-full")
