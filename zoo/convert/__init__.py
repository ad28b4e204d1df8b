"""Importers of reference checkpoints: one function per architecture, one branch per layout (`zoo.convert.layouts`).

Sizes, widths and channels are read off the weights' shapes; what a file does not say, such as beta, has the
architecture's default.
"""

from zoo.engine.lazy import lazy_exports

_EXPORTS = {
    "dcgan": "zoo.convert.gans",
    "infogan": "zoo.convert.infogans",
    "beta_vae": "zoo.convert.latent",
    "vae": "zoo.convert.latent",
    "nade": "zoo.convert.likelihood",
    "pixelcnn": "zoo.convert.likelihood",
    "progressive_gan": "zoo.convert.progressive",
    "puzzlegan": "zoo.convert.puzzle",
    "text_encoder": "zoo.convert.text",
    "cyclegan": "zoo.convert.translation",
    "stargan": "zoo.convert.translation",
}
__all__ = sorted(_EXPORTS)
__getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)
