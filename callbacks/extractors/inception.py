"""Inception: the features of FID, KID and the Inception Score."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import cast

from torch import Tensor, nn

from zoo.callbacks.extractors.base import Extractor
from zoo.engine.download import download, fetch_once, sha256
from zoo.engine.files import cache_home

__all__ = ["INCEPTION_SHA256", "INCEPTION_URL", "InceptionV3", "inception_file"]

INCEPTION_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
INCEPTION_URL = (
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
)
"""torch-fidelity publishes pytorch-fid's `pt_inception-2015-12-05-6726825d.pth` under this name: both names have the
beginning of the sum."""


def inception_file() -> Path:
    """The file of the weights in the cache, fetched if need be.

    Raises:
        OSError: it could not be fetched.
        ValueError: what was fetched is another file.
    """
    path = cache_home() / "extractors" / "pt_inception-2015-12-05-6726825d.pth"
    if not path.exists():
        try:
            fetch_once("inception", path, INCEPTION_SHA256, partial(download, INCEPTION_URL))
        except OSError as error:
            raise OSError(
                f"{error}: put {INCEPTION_URL} there as {path}, or take the extractor 'efficientnet-lite0'"
            ) from error
    return path


class InceptionV3(Extractor):
    """The Inception features of FID (2,048, of the network of 2015-12-05), resized as TensorFlow 1 did.

    Args:
        weights: path of `pt_inception-2015-12-05-6726825d.pth`; None fetches it once.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: it could not be fetched.
        ValueError: it is another file: its values would not be FID.
        ModuleNotFoundError: torch-fidelity, which holds the network, is not installed.
    """

    name = "inception-2015-12-05"
    resize = "tf1"
    num_features = 2048
    num_classes = 1008

    def __init__(self, weights: str | Path | None = None) -> None:
        super().__init__()
        path = None if weights is None else Path(weights).expanduser()
        if path is not None and not path.is_file():
            raise FileNotFoundError(f"inception_weights: there is no file {path}")
        if path is not None:
            _verify(path)
        from torchmetrics.image.fid import NoTrainInceptionV3
        from torchmetrics.utilities.imports import _TORCH_FIDELITY_AVAILABLE

        if not _TORCH_FIDELITY_AVAILABLE:  # said before 92 MB are fetched
            raise ModuleNotFoundError(
                "inception needs torch-fidelity: pip install 'generative-zoo[fid]', or take the extractor "
                "'efficientnet-lite0'"
            )
        if path is None:
            path = inception_file()
            _verify(path)
        network = NoTrainInceptionV3(
            name="inception-v3-compat",
            features_list=["2048"],
            feature_extractor_weights_path=str(path),
            antialias=False,  # torchmetrics' default departs from the FID of the literature
        )
        self.network = self.frozen(network)

    def forward(self, x: Tensor) -> Tensor:
        """Features of images.

        Shape:
            x: (N, 3, H, W) in [-1, 1]; output: (N, 2048).
        """
        return cast(Tensor, self.network(((x + 1) * 127.5).round().clamp(0, 255).byte()))

    def logits(self, features: Tensor) -> Tensor:
        """Logits of the network's classes without the bias, as the authors of the Inception Score took them.

        Shape:
            features: (N, 2048); output: (N, 1008).
        """
        return features @ cast(nn.Linear, self.network.fc).weight.T


def _verify(path: Path) -> None:
    if (found := sha256(path)) != INCEPTION_SHA256:
        raise ValueError(
            f"inception_weights: {path} has sha256 {found[:12]}..., FID needs pt_inception-2015-12-05-6726825d.pth "
            f"with {INCEPTION_SHA256[:12]}...; for a distance of other features give `extractor` instead"
        )
