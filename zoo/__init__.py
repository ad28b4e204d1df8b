"""The library: one module per architecture, `load` for published weights, and the base on which all stand.

>>> from zoo import load
>>> load("dcgan-emoji32").sample(16, seed=0).shape  # doctest: +SKIP
torch.Size([16, 3, 32, 32])

Everything is imported on first use, so that `import zoo` and the commands that only look things up need no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from zoo.engine import published
from zoo.engine.lazy import lazy_exports

if TYPE_CHECKING:
    from zoo.aae import AAE as AAE
    from zoo.autoencoder import Autoencoder as Autoencoder
    from zoo.beta_vae import BetaVAE as BetaVAE
    from zoo.classifier import Classifier as Classifier
    from zoo.clustering_aae import ClusteringAAE as ClusteringAAE
    from zoo.conditional_dcgan import ConditionalDCGAN as ConditionalDCGAN
    from zoo.conv_infogan import ConvInfoGAN as ConvInfoGAN
    from zoo.cyclegan import CycleGAN as CycleGAN
    from zoo.dcgan import DCGAN as DCGAN
    from zoo.engine.pictures import gif as gif
    from zoo.engine.pictures import grid as grid
    from zoo.engine.pictures import scatter as scatter
    from zoo.gan import GAN as GAN
    from zoo.gaussian_wae import GaussianWAE as GaussianWAE
    from zoo.gru_pixelrnn import GRUPixelRNN as GRUPixelRNN
    from zoo.infogan import InfoGAN as InfoGAN
    from zoo.label_prior_aae import LabelPriorAAE as LabelPriorAAE
    from zoo.multiscale_pixelrnn import MultiScalePixelRNN as MultiScalePixelRNN
    from zoo.nade import NADE as NADE
    from zoo.orderless_nade import OrderlessNADE as OrderlessNADE
    from zoo.pixel_transformer import PixelTransformer as PixelTransformer
    from zoo.pixelcnn import PixelCNN as PixelCNN
    from zoo.pixelrnn import PixelRNN as PixelRNN
    from zoo.pretrained import list_pretrained as list_pretrained
    from zoo.pretrained import load as load
    from zoo.pretrained.evaluation import evaluate as evaluate
    from zoo.progressive_gan import ProgressiveGAN as ProgressiveGAN
    from zoo.projection_text2image import ProjectionText2Image as ProjectionText2Image
    from zoo.puzzlegan import PuzzleGAN as PuzzleGAN
    from zoo.recipes import list_recipes as list_recipes
    from zoo.rnade import RNADE as RNADE
    from zoo.semi_supervised_aae import SemiSupervisedAAE as SemiSupervisedAAE
    from zoo.sngan import SNGAN as SNGAN
    from zoo.stargan import StarGAN as StarGAN
    from zoo.stargan_critics import DomainCriticStarGAN as DomainCriticStarGAN
    from zoo.supervised_aae import SupervisedAAE as SupervisedAAE
    from zoo.tanh_pixelrnn import TanhPixelRNN as TanhPixelRNN
    from zoo.text2image import Text2Image as Text2Image
    from zoo.text_encoder import TextEncoder as TextEncoder
    from zoo.transform_invariant_infogan import TransformInvariantInfoGAN as TransformInvariantInfoGAN
    from zoo.vae import VAE as VAE
    from zoo.wae import WAE as WAE
    from zoo.wae_gan import WAEGAN as WAEGAN
    from zoo.wgan_gp import WGANGP as WGANGP

    __version__: str

ARCHITECTURES = {
    "AAE": "zoo.aae",
    "Autoencoder": "zoo.autoencoder",
    "BetaVAE": "zoo.beta_vae",
    "Classifier": "zoo.classifier",
    "ClusteringAAE": "zoo.clustering_aae",
    "ConditionalDCGAN": "zoo.conditional_dcgan",
    "ConvInfoGAN": "zoo.conv_infogan",
    "CycleGAN": "zoo.cyclegan",
    "DCGAN": "zoo.dcgan",
    "DomainCriticStarGAN": "zoo.stargan_critics",
    "GAN": "zoo.gan",
    "GRUPixelRNN": "zoo.gru_pixelrnn",
    "GaussianWAE": "zoo.gaussian_wae",
    "InfoGAN": "zoo.infogan",
    "LabelPriorAAE": "zoo.label_prior_aae",
    "MultiScalePixelRNN": "zoo.multiscale_pixelrnn",
    "NADE": "zoo.nade",
    "OrderlessNADE": "zoo.orderless_nade",
    "PixelCNN": "zoo.pixelcnn",
    "PixelRNN": "zoo.pixelrnn",
    "PixelTransformer": "zoo.pixel_transformer",
    "ProgressiveGAN": "zoo.progressive_gan",
    "ProjectionText2Image": "zoo.projection_text2image",
    "PuzzleGAN": "zoo.puzzlegan",
    "RNADE": "zoo.rnade",
    "SNGAN": "zoo.sngan",
    "SemiSupervisedAAE": "zoo.semi_supervised_aae",
    "StarGAN": "zoo.stargan",
    "SupervisedAAE": "zoo.supervised_aae",
    "TanhPixelRNN": "zoo.tanh_pixelrnn",
    "Text2Image": "zoo.text2image",
    "TextEncoder": "zoo.text_encoder",
    "TransformInvariantInfoGAN": "zoo.transform_invariant_infogan",
    "VAE": "zoo.vae",
    "WAE": "zoo.wae",
    "WAEGAN": "zoo.wae_gan",
    "WGANGP": "zoo.wgan_gp",
}
"""Architectures by name, with the module that holds each."""

_EXPORTS = ARCHITECTURES | {
    "evaluate": "zoo.pretrained.evaluation",
    "gif": "zoo.engine.pictures",
    "grid": "zoo.engine.pictures",
    "list_pretrained": "zoo.pretrained",
    "list_recipes": "zoo.recipes",
    "load": "zoo.pretrained",
    "scatter": "zoo.engine.pictures",
}
__all__ = sorted([*_EXPORTS, "__version__"])


_get, _ = lazy_exports(__name__, _EXPORTS)
published.connect(
    lambda source, **options: _get("load")(source, **options),
    lambda model, address, **options: import_module("zoo.pretrained.push").push_model(model, address, **options),
)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("generative-zoo")
    return _get(name)


def __dir__() -> list[str]:
    return [*__all__, "ARCHITECTURES"]
