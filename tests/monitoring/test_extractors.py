from __future__ import annotations

import hashlib
import http.server
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

import zoo
from tests.numerics import assert_near
from tests.ranks import on_ranks
from zoo.callbacks.extractors import EXTRACTORS, Extractor, InceptionV3, features_of, inception, load_extractor
from zoo.engine.images import to_levels


class Echo(Extractor):
    """Gives the pixels of the first channel, and notes nothing."""

    name = "echo"
    resize = "none"

    def forward(self, x: Tensor) -> Tensor:
        return x[:, 0].flatten(1)


def test_images_are_rounded_to_8_bits_first() -> None:
    x = torch.rand(4, 1, 5, 5) * 2 - 1
    found = features_of(Echo(), x)
    levels = to_levels(x).flatten(1).float()
    assert torch.equal(found, levels / 127.5 - 1)
    assert torch.equal(features_of(Echo(), (levels / 127.5 - 1).view_as(x)), found)  # rounded ones stay
    assert features_of(Echo(), torch.full((1, 1, 1, 1), 1.3)).item() == 1


@pytest.mark.parametrize("name", [name for name in EXTRACTORS if name not in ("inception", "dinov2")])
def test_named_extractors_are_frozen_and_say_what_they_are(name: str) -> None:
    if name == "efficientnet-lite0":
        pytest.importorskip("efficientnet_lite_pytorch")
    network = load_extractor(name)
    assert isinstance(network, Extractor)
    assert name in (network.name, "inception")
    assert not network.is_inception
    network.train()
    assert not any(module.training for module in network.modules() if module is not network)
    assert not any(parameter.requires_grad for parameter in network.parameters())
    features = features_of(network, torch.rand(2, 1, 28, 28) * 2 - 1)
    assert features.shape == (2, network.num_features)
    assert network.logits(features).shape == (2, network.num_classes)
    assert network.resize


@pytest.mark.parametrize("slug", ["classifier-mnist28", "classifier-fashionmnist28"])
def test_own_classifiers_see_their_images_as_they_were_trained(slug: str) -> None:
    network, model = load_extractor(slug), zoo.load(slug)
    x = to_levels(torch.rand(3, 1, 28, 28) * 2 - 1).float() / 127.5 - 1
    features = features_of(network, x)
    assert_near(network.logits(features).softmax(1), model.classify(x))
    assert_near(features_of(network, F.pad(x, (2, 2, 2, 2), value=-1.0)), features)  # as the DataModules pad to 32
    assert features_of(network, torch.rand(2, 3, 64, 64)).shape == (2, features.shape[1])


# DINOv2 --------------------------------------------------------------------------------------------------------------


class Mean(nn.Module):
    """In the place of DINOv2: the mean of the 224 x 224 pixels, after checks of what it is given."""

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[1:] == (3, 224, 224)
        return x.mean((2, 3))


def test_dinov2_sees_images_as_a_library_of_pictures_resizes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def fetched(*args: Any, **options: Any) -> str:
        asked.append(options)
        return "model.safetensors"

    monkeypatch.setenv("ZOO_HOME", str(tmp_path))
    monkeypatch.setenv("ZOO_OFFLINE", "1")
    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(hf_hub_download=fetched))
    monkeypatch.setitem(sys.modules, "timm", SimpleNamespace(create_model=lambda name, **options: Mean()))
    network = load_extractor("dinov2")
    assert asked == [{"cache_dir": str(tmp_path / "extractors"), "local_files_only": True}]
    levels = torch.randint(0, 256, (1, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    picture = Image.fromarray(levels[0].permute(1, 2, 0).numpy()).resize((224, 224), Image.Resampling.BICUBIC)
    mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    expected = ((np.asarray(picture) / 255 - mean) / deviation).mean((0, 1))
    assert features_of(network, levels / 127.5 - 1)[0].numpy() == pytest.approx(expected, abs=1e-3)


def test_dinov2_without_its_package_or_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **options: Any) -> str:
        raise RuntimeError("no such host\nmore about it")

    monkeypatch.setenv("ZOO_HOME", str(tmp_path))
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ModuleNotFoundError, match=r"^dinov2 needs timm: pip install .*\[dinov2\]', or take .*lite0'$"):
        load_extractor("dinov2")
    monkeypatch.setitem(sys.modules, "timm", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(hf_hub_download=fail))
    with pytest.raises(OSError, match=r"^cannot fetch dinov2 \(no such host\): fetch timm/vit_\S+ with .*lite0'$"):
        load_extractor("dinov2")


# Inception -----------------------------------------------------------------------------------------------------------


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves one file with ranges; breaks off the first transfer in the middle."""

    content = b""
    requests: list[str | None] = []  # noqa: RUF012

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.requests.append(wanted)
        body = self.content[int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0 :]
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if len(self.requests) == 1 else body)

    def log_message(self, *args: Any) -> None:
        """Quiet."""


class Network(nn.Module):
    """In the place of torchmetrics' network: the mean pixel, and its layer of classes from the file."""

    def __init__(self, name: str, features_list: list[str], feature_extractor_weights_path: str, antialias: bool):
        super().__init__()
        self.fc = nn.Linear(3, 1008)
        self.load_state_dict(torch.load(feature_extractor_weights_path, weights_only=True))

    def forward(self, x: Tensor) -> Tensor:
        assert x.dtype == torch.uint8
        return x.float().mean((2, 3))


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """Address and sum of a file of weights for `Network`, and a cache that is empty."""
    torch.save(nn.ModuleDict({"fc": nn.Linear(3, 1008)}).state_dict(), tmp_path / "weights.pth")
    Handler.content, Handler.requests = (tmp_path / "weights.pth").read_bytes(), []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("ZOO_OFFLINE", raising=False)
    facts = {
        "INCEPTION_URL": f"http://127.0.0.1:{server.server_port}/weights.pth",
        "INCEPTION_SHA256": hashlib.sha256(Handler.content).hexdigest(),
    }
    yield facts
    server.shutdown()
    server.server_close()


def patch(monkeypatch: pytest.MonkeyPatch, facts: dict[str, str]) -> None:
    for name, value in facts.items():
        monkeypatch.setattr(inception, name, value)
    monkeypatch.setattr("torchmetrics.image.fid.NoTrainInceptionV3", Network)
    monkeypatch.setattr("torchmetrics.utilities.imports._TORCH_FIDELITY_AVAILABLE", True)


def features_on_this_rank(facts: dict[str, str], images: Tensor) -> Tensor:
    with pytest.MonkeyPatch.context() as monkeypatch:
        patch(monkeypatch, facts)
        return features_of(load_extractor("inception"), images)


@pytest.mark.slow
def test_three_ranks_fetch_inception_once(served: dict[str, str], tmp_path: Path) -> None:
    images = torch.rand(2, 1, 8, 8) * 2 - 1
    found = on_ranks(3, features_on_this_rank, served, images)
    assert all(torch.equal(features, found[0]) for features in found)
    assert Handler.requests == [None, f"bytes={len(Handler.content) // 2}-"]  # once, resumed where it broke off
    (path,) = (tmp_path / "home/extractors").glob("*.pth")
    assert path.read_bytes() == Handler.content


def test_inception_is_fetched_verified_and_used(
    served: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patch(monkeypatch, served)
    network = load_extractor("inception")
    assert isinstance(network, InceptionV3)
    assert network.is_inception
    assert Handler.requests == [None, f"bytes={len(Handler.content) // 2}-"]
    features = features_of(network, torch.rand(5, 3, 8, 8) * 2 - 1)
    weight = torch.load(tmp_path / "weights.pth", weights_only=True)["fc.weight"]
    assert torch.equal(network.logits(features), features @ weight.T)  # without the bias
    (path,) = (tmp_path / "home/extractors").glob("*.pth")
    for again in ("inception", path, str(path)):
        assert torch.equal(features_of(load_extractor(again), torch.ones(1, 3, 8, 8)), torch.full((1, 3), 255.0))
    assert len(Handler.requests) == 2
    monkeypatch.setenv("ZOO_OFFLINE", "1")
    load_extractor("inception")  # the cache needs no network


def test_weights_of_a_wrong_sum_are_refused(
    served: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patch(monkeypatch, served | {"INCEPTION_SHA256": "0" * 64})
    with pytest.raises(ValueError, match=r"^what was fetched for inception is not the published file .*$"):
        load_extractor("inception")
    assert not list((tmp_path / "home/extractors").glob("*.p[ta]*"))
    with pytest.raises(ValueError, match=r"^inception_weights: .*weights.pth has sha256 .* FID needs .*$"):
        load_extractor(tmp_path / "weights.pth")


@pytest.mark.parametrize("offline", [True, False])
def test_without_a_network_the_message_says_what_to_put_where(
    served: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: bool
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    patch(monkeypatch, served | {"INCEPTION_URL": "http://127.0.0.1:9/weights.pth"})
    if offline:
        monkeypatch.setenv("ZOO_OFFLINE", "1")
    with pytest.raises(
        OSError, match=r"put http://127\.0\.0\.1:9/weights.pth there as .*, or take .*lite0'$"
    ) as caught:
        load_extractor("inception")
    assert str(tmp_path / "home/extractors/pt_inception-2015-12-05-6726825d.pth") in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not Handler.requests


def test_without_torch_fidelity_nothing_is_fetched(served: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    patch(monkeypatch, served)
    monkeypatch.setattr("torchmetrics.utilities.imports._TORCH_FIDELITY_AVAILABLE", False)
    with pytest.raises(ModuleNotFoundError, match=r"^inception needs torch-fidelity: pip install .*\[fid\].*lite0'$"):
        load_extractor("inception")
    assert not Handler.requests


def test_unknown_names() -> None:
    with pytest.raises(ValueError, match="unknown extractor 'inceptoin': did you mean 'inception'"):
        load_extractor("inceptoin")
    with pytest.raises(ValueError, match="SimpleModule needs a `name`"):
        load_extractor(type("SimpleModule", (nn.Module,), {})())
