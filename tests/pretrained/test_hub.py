"""Repositories of the Hugging Face Hub: the Hub's own client on one side, a small server of ours on the other."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save as serialize

import zoo
from tests.pretrained.hub_server import TOKEN, Hub
from zoo import pretrained
from zoo.dcgan import DCGAN
from zoo.pretrained.push import push

client = pytest.importorskip("huggingface_hub")
constants = pytest.importorskip("huggingface_hub.constants")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub, and the environment of the user `me`."""
    server = Hub()
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("ZOO_OFFLINE", raising=False)
    # The client reads these once, when it is imported.
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    yield server
    server.close()


@pytest.fixture
def model() -> DCGAN:
    return DCGAN(8, base_channels=4, latent_dim=5)


def test_a_checkpoint_travels_over_the_hub(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    assert push("gan-mnist28", "hf://me/digits") == "hf://me/digits"
    held = hub.repositories["me/digits"]
    assert not held.private
    assert len(held.commits) == 2, "made, then one commit"
    commit = held.commits[held.branches["main"]]
    assert set(commit) == {".gitattributes", "README.md", "config.json", "model.safetensors", "samples.png"}
    monkeypatch.delenv("HF_TOKEN")
    again, ours = zoo.load("hf://me/digits"), zoo.load("gan-mnist28")
    assert torch.equal(again.sample(2, seed=0), ours.sample(2, seed=0))
    assert pretrained.entry_of("hf://me/digits")["metrics"] == pretrained.index()["gan-mnist28"]["metrics"]
    card = pretrained.card("hf://me/digits")
    assert card.startswith("# gan-mnist28")
    assert 'zoo.load("hf://me/digits")' in card
    monkeypatch.setenv("ZOO_OFFLINE", "1")
    count = len(hub.requests)
    assert pretrained.pull("hf://me/digits").is_file()
    assert len(hub.requests) == count
    with pytest.raises(FileNotFoundError, match="hf://me/other is not in the cache and ZOO_OFFLINE is set"):
        zoo.load("hf://me/other")
    with pytest.raises(OSError, match="ZOO_OFFLINE is set"):
        push("gan-mnist28", "hf://me/digits")


def test_the_card_is_what_the_hub_s_tools_read(hub: Hub) -> None:
    push("gan-mnist28", "hf://me/digits")
    path = client.HfApi(endpoint=hub.url).hf_hub_download("me/digits", "README.md")
    card = client.ModelCard.load(path)
    assert card.data.library_name == "generative-zoo"
    assert card.data.pipeline_tag == "unconditional-image-generation"
    assert card.data.license == "cc-by-sa-3.0"
    assert {"generative-zoo", "gan"} <= set(card.data.tags)
    metric = pretrained.index()["gan-mnist28"]["metrics"][0]
    first = card.data.eval_results[0]
    assert (first.metric_type, first.metric_value, first.metric_name) == (
        metric["name"],
        metric["value"],
        metric["protocol"],
    )
    assert first.dataset_type == "ylecun/mnist"


def test_the_hub_s_mixin_reads_our_repository(hub: Hub, model: DCGAN) -> None:
    model.push_to_hub("me/tiny")

    class Theirs(client.PyTorchModelHubMixin, DCGAN):  # type: ignore[misc, name-defined]
        """A class that loads as the Hub's tools do."""

    api = client.HfApi(endpoint=hub.url)
    folder = Path(api.hf_hub_download("me/tiny", "config.json")).parent
    api.hf_hub_download("me/tiny", "model.safetensors")
    theirs = Theirs.from_pretrained(str(folder), strict=True)
    assert torch.equal(theirs.sample(2, seed=0), model.eval().sample(2, seed=0))


def test_models_push_and_load_themselves(hub: Hub, model: DCGAN) -> None:
    assert model.push_to_hub("me/tiny", private=True) == "hf://me/tiny"
    again = DCGAN.from_pretrained("me/tiny")
    for key, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key
    with pytest.raises(ValueError, match="me/tiny is a DCGAN, no VAE"):
        zoo.VAE.from_pretrained("me/tiny")


def test_revisions(hub: Hub, model: DCGAN) -> None:
    model.push_to_hub("me/tiny")
    first = hub.repositories["me/tiny"].branches["main"]
    other = DCGAN(8, base_channels=4, latent_dim=6)
    other.push_to_hub("me/tiny")
    model.push_to_hub("me/tiny@wide")
    assert zoo.load("hf://me/tiny").hparams["latent_dim"] == 6
    assert zoo.load(f"hf://me/tiny@{first}").hparams["latent_dim"] == 5
    assert zoo.load("hf://me/tiny@wide").hparams["latent_dim"] == 5
    with pytest.raises(LookupError, match=r"me/tiny has no revision 'v9': take a branch, a tag or a commit of it$"):
        zoo.load("hf://me/tiny@v9")
    count = len(hub.repositories["me/tiny"].commits)
    other.push_to_hub("me/tiny")
    assert len(hub.repositories["me/tiny"].commits) == count, "nothing has changed"


def test_private_repositories_and_tokens(hub: Hub, model: DCGAN, monkeypatch: pytest.MonkeyPatch) -> None:
    model.push_to_hub("me/mine", private=True)
    assert hub.repositories["me/mine"].private
    zoo.load("hf://me/mine")
    model.push_to_hub("me/open")
    with pytest.raises(ValueError, match="me/open exists and is public"):
        model.push_to_hub("me/open", private=True)
    with pytest.raises(PermissionError, match=r"the Hub refuses this token for hf://them/x \(403\)"):
        model.push_to_hub("them/x")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    for act in (lambda: zoo.load("hf://me/mine"), lambda: model.push_to_hub("me/mine")):
        with pytest.raises(PermissionError, match=r"the Hub refuses this token for hf://me/mine \(401\): set HF_TOKEN"):
            act()
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(LookupError, match="the Hub has no repository me/mine, or it is private and you have no access"):
        zoo.load("hf://me/mine")
    with pytest.raises(PermissionError, match="cannot push to hf://me/mine without a token: set HF_TOKEN, or log in"):
        model.push_to_hub("me/mine")


def test_an_interrupted_upload_is_repeated(hub: Hub, model: DCGAN) -> None:
    hub.break_upload = 1000
    try:
        model.push_to_hub("me/tiny")
    except OSError as error:  # the client may try again by itself
        assert "cannot fetch or send hf://me/tiny" in str(error) or "cannot reach" in str(error)  # noqa: PT017
        held = hub.repositories["me/tiny"]
        assert set(held.commits[held.branches["main"]]) == {".gitattributes"}, "half a push is no push"
        model.push_to_hub("me/tiny")
    assert torch.equal(zoo.load("hf://me/tiny").sample(1, seed=0), model.eval().sample(1, seed=0))


def test_an_interrupted_download_goes_on(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 2**16)
    push("gan-mnist28", "hf://me/digits")
    whole = pretrained.pull("gan-mnist28").read_bytes()
    hub.break_download = (len(whole) // 2, 1)
    assert pretrained.pull("hf://me/digits").read_bytes() == whole
    ranges = [wanted for method, path, wanted in hub.requests if method == "GET" and path.startswith("/cdn/")]
    assert ranges == [None, f"bytes={len(whole) // 2 // 2**16 * 2**16}-"]


def test_a_changed_file_is_refused_and_fetched_anew(hub: Hub, model: DCGAN) -> None:
    model.push_to_hub("me/tiny")
    hub.damage = True
    with pytest.raises(ValueError, match=r"what was fetched for hf://me/tiny is not the published file \(sha256 "):
        zoo.load("hf://me/tiny")
    hub.damage = False
    zoo.load("hf://me/tiny")


def test_what_is_no_repository_of_ours(hub: Hub) -> None:
    api = client.HfApi(endpoint=hub.url)
    for name, files_ in (("text", {"README.md": b"x"}), ("pickle", {"pytorch_model.bin": b"PK"})):
        api.create_repo(f"me/{name}")
        hub.repositories[f"me/{name}"].commit("main", files_)
    with pytest.raises(
        LookupError, match=r"hf://me/text holds no checkpoint of this package \(no model\.safetensors\)"
    ):
        zoo.load("hf://me/text")
    with pytest.raises(LookupError, match=r"pytorch_model\.bin is a pickle, which could run any code, and was not fet"):
        zoo.load("hf://me/pickle")
    hub.repositories["me/text"].commit("main", {"model.safetensors": serialize({"a": torch.zeros(1)})})
    with pytest.raises(ValueError, match=r"hf://me/text holds no checkpoint of this package: .*no header of this"):
        zoo.load("hf://me/text")
    with pytest.raises(LookupError, match="the Hub has no repository nobody/nothing"):
        zoo.load("hf://nobody/nothing")


def test_no_network_and_no_space(hub: Hub, model: DCGAN, monkeypatch: pytest.MonkeyPatch) -> None:
    model.push_to_hub("me/tiny")

    def full(*args: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("huggingface_hub.file_download.http_get", full)
    with pytest.raises(OSError, match="cannot fetch or send hf://me/tiny: No space left on device"):
        zoo.load("hf://me/tiny")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    for act in (lambda: zoo.load("hf://me/tiny"), lambda: model.push_to_hub("me/tiny")):
        with pytest.raises(ConnectionError, match=r"cannot reach http://127\.0\.0\.1:9 for hf://me/tiny: try again"):
            act()


def test_a_class_of_one_s_own_needs_trust(hub: Hub, model: DCGAN, tmp_path: Path) -> None:
    model.push_to_hub("me/tiny")
    held = hub.repositories["me/tiny"]
    content = held.commits[held.branches["main"]]["model.safetensors"]
    path = tmp_path / "m.safetensors"
    path.write_bytes(content)
    header, tensors = pretrained.read(path)
    changed = json.dumps(header | {"class": "os.system"})
    held.commit("main", {"model.safetensors": serialize(tensors, {"zoo": changed})})
    with pytest.raises(
        ValueError, match=r"'os\.system'; only classes under 'zoo\.' are built, unless you trust the code"
    ):
        zoo.load("hf://me/tiny")


def test_a_full_file_travels_too(hub: Hub, model: DCGAN, tmp_path: Path) -> None:
    path = tmp_path / "tiny-full.safetensors"
    pretrained.save(model, path)
    full = {"file": path.name, "sha256": pretrained.sha256(path), "bytes": path.stat().st_size, "networks": []}
    pretrained.save(model, tmp_path / "tiny.safetensors", networks=["generator"], information={"full": full})
    stated = pretrained.read(tmp_path / "tiny.safetensors")[0]
    entry = {"file": "tiny.safetensors", "sha256": pretrained.sha256(tmp_path / "tiny.safetensors"), "bytes": 1}
    (tmp_path / "index.json").write_text(json.dumps({"tiny": stated | entry | {"parameters": 1}}))
    push(tmp_path / "tiny", "hf://me/tiny")
    assert zoo.load("hf://me/tiny").available_networks == ("generator",)
    assert pretrained.pull("hf://me/tiny", full=True).read_bytes() == path.read_bytes()
