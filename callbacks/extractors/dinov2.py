"""DINOv2: features that agree with people's judgment of images better than Inception's."""

from __future__ import annotations

import importlib
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.callbacks.extractors.base import Extractor
from zoo.engine.download import is_offline
from zoo.engine.files import cache_home

__all__ = ["DINOv2"]

NAME = "vit_base_patch14_dinov2.lvd142m"
OTHERWISE = "or take the extractor 'efficientnet-lite0'"


class DINOv2(Extractor):
    """The class token (768 numbers) of DINOv2's ViT-B/14 at 224 pixels.

    timm has the network, and fetches its weights once from the Hugging Face Hub into `$ZOO_HOME/extractors`. Embeddings
    of places are resampled to 16 x 16 patches with antialiasing, which the authors' own code does without, so values
    are not exactly those of that code.

    Raises:
        ModuleNotFoundError: timm is not installed.
        OSError: the weights are not there and cannot be fetched.

    References:
        Oquab et al. 2023, "DINOv2: learning robust visual features without supervision"; Stein et al. 2023, "Exposing
        flaws of generative model evaluation metrics and their unfair treatment of diffusion models", section 3, who
        take ViT-L/14.
    """

    name = "dinov2-vitb14"
    resize = "antialias-bicubic-224"
    num_features = 768

    def __init__(self) -> None:
        super().__init__()
        try:
            timm, hub = importlib.import_module("timm"), importlib.import_module("huggingface_hub")
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                f"dinov2 needs {error.name}: pip install 'generative-zoo[dinov2]', {OTHERWISE}"
            ) from error
        folder = cache_home() / "extractors"
        try:
            path = hub.hf_hub_download(
                f"timm/{NAME}", "model.safetensors", cache_dir=str(folder), local_files_only=is_offline()
            )
        except Exception as error:  # the client has exceptions of its own, and many
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise OSError(
                f"cannot fetch dinov2 ({reason[0]}): fetch timm/{NAME} with huggingface_hub into {folder}, {OTHERWISE}"
            ) from error
        network = timm.create_model(
            NAME, pretrained=True, pretrained_cfg_overlay={"file": path}, img_size=224, num_classes=0
        )
        self.network = self.frozen(network)
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Features of images.

        Shape:
            x: (N, 3, H, W) in [-1, 1]; output: (N, 768).
        """
        # Rounded as pictures are that a library of pictures has resized.
        levels = F.interpolate((x + 1) * 127.5, (224, 224), mode="bicubic", antialias=True).round().clamp(0, 255)
        return cast(Tensor, self.network((levels / 255 - cast(Any, self.mean)) / cast(Any, self.deviation)))
