"""Importers of reference checkpoints: one function per architecture, one branch per layout (`zoo.layouts`).

Sizes, widths and channels are read off the weights' shapes; what a file does not say, such as beta, has the
architecture's default.
"""

from zoo.convert.gans import dcgan, infogan
from zoo.convert.latent import beta_vae, vae
from zoo.convert.likelihood import nade, pixelcnn
from zoo.convert.progressive import progressive_gan
from zoo.convert.puzzle import puzzlegan
from zoo.convert.text import text_encoder
from zoo.convert.translation import cyclegan, stargan

__all__ = [
    "beta_vae",
    "cyclegan",
    "dcgan",
    "infogan",
    "nade",
    "pixelcnn",
    "progressive_gan",
    "puzzlegan",
    "stargan",
    "text_encoder",
    "vae",
]
