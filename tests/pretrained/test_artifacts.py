"""Artifacts of wandb, logged by its own client without a network. Pulling needs its server: a client stands in."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import zoo
from zoo import pretrained
from zoo.dcgan import DCGAN
from zoo.pretrained import artifacts
from zoo.pretrained.push import push

wandb = pytest.importorskip("wandb")


@pytest.fixture(autouse=True)
def _own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "staging"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.delenv("ZOO_OFFLINE", raising=False)
    yield
    wandb.teardown()  # its process keeps the folders of the environment in which it was started


def content_of(path: Path) -> bytes:
    """What an offline run's log holds: LevelDB's blocks of 32 KiB cut records, and with them words, in two."""
    data, content, at, block = path.read_bytes(), b"", 7, 2**15  # after the file's own header
    while at + 7 <= len(data):
        if block - at % block < 7:
            at += block - at % block
            continue
        length = int.from_bytes(data[at + 4 : at + 6], "little")
        content += data[at + 7 : at + 7 + length]
        at += 7 + length
    return content


def test_an_artifact_is_logged_offline(tmp_path: Path) -> None:
    said = push("gan-mnist28", "wandb://me/digits/gan")
    (folder,) = (tmp_path / "data" / "generative-zoo" / "wandb").glob("offline-run-*")
    assert said == f"{folder} (send it with `wandb sync {folder}`)"
    log = content_of(next(folder.glob("*.wandb")))
    for text in (b"gan", b"model.safetensors", b"README.md", b"parzen"):
        assert text in log, text


@pytest.mark.slow
def test_the_run_that_trained_it_logs_it(tmp_path: Path) -> None:
    """The run goes on under its identifier, so wandb shows the artifact as its output."""
    run = tmp_path / "run"
    with wandb.init(project="generative-zoo", dir=run, mode="offline") as trained:
        trained.log({"loss": 1.0})
    (before,) = (run / "wandb").glob("offline-run-*")
    folder = tmp_path / "files"
    folder.mkdir()
    pretrained.save(DCGAN(8, base_channels=4), folder / "model.safetensors")
    artifacts.log("wandb://me/generative-zoo/x", "me/generative-zoo/x", folder, {"values": {"fd": 3.0}}, run=run)
    after = sorted((run / "wandb").glob("offline-run-*"))
    assert {artifacts.run_id(path) for path in after} == {trained.id}, "another run than the one that trained"
    logs = [log for path in after for log in path.glob("*.wandb") if path != before or len(after) == 1]
    end = time.monotonic() + 60  # the client's process may still be writing
    while not (found := any(b"model.safetensors" in content_of(log) for log in logs)) and time.monotonic() < end:
        time.sleep(0.2)
    assert found


def test_an_artifact_is_pulled_once_and_kept_for_offline_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    model = DCGAN(8, base_channels=4, latent_dim=5)

    def download(root: str) -> str:
        Path(root).mkdir(parents=True)
        pretrained.save(model, Path(root) / "model.safetensors")
        (Path(root) / "README.md").write_text("# x\n")
        asked.append(root)
        return root

    def artifact(name: str) -> Any:
        if name.endswith(":v9"):
            raise ValueError("artifact version v9 does not exist")
        return SimpleNamespace(digest="0123456789abcdef0123", download=download)

    monkeypatch.setattr(wandb, "Api", lambda: SimpleNamespace(artifact=artifact))
    assert torch.equal(zoo.load("wandb://me/p/x").sample(1, seed=0), model.eval().sample(1, seed=0))
    assert pretrained.card("wandb://me/p/x") == "# x\n"
    zoo.load("wandb://me/p/x:latest")
    assert len(asked) == 2, "one for each file"
    with pytest.raises(OSError, match="cannot fetch or send wandb://me/p/x:v9: artifact version v9 does not exist"):
        zoo.load("wandb://me/p/x:v9")
    monkeypatch.setenv("ZOO_OFFLINE", "1")
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert zoo.load("wandb://me/p/x").hparams["latent_dim"] == 5
    with pytest.raises(FileNotFoundError, match=r"wandb://me/p/y is not in the cache .* and ZOO_OFFLINE is set"):
        zoo.load("wandb://me/p/y")
