"""Multi-scale PixelRNN: a small image first, then the whole one given the small one.

    log p(x) >= log p(s(x)) + log p(x | s(x)),   s(x): every k-th pixel of every k-th row

The small image is drawn by an ordinary PixelRNN. Transposed convolutions blow it up to a map of the full size, which
enters the gates of every layer of a second PixelRNN. The bound is not tight only because the second network may also
give weight to images with other small ones. van den Oord et al., "Pixel Recurrent Neural Networks", ICML 2016,
arXiv 1601.06759, section 3.6.
"""

from __future__ import annotations

from functools import partial
from typing import Any, cast

from torch import Tensor, nn

from zoo.base import inference
from zoo.base.autoregressive import NaiveSampler
from zoo.engine import rng
from zoo.pixelrnn import SAMPLERS, PixelRNN

__all__ = ["MultiScalePixelRNN", "Upsampling"]


class Upsampling(nn.Sequential):
    """Transposed convolutions that double the side until it is that of the image.

    Args:
        channels: channels of the image.
        features: maps of the result.
        doublings: how often.

    Shape:
        input: (N, C, s, s); output: (N, features, 2^doublings s, 2^doublings s).
    """

    def __init__(self, channels: int, features: int, doublings: int) -> None:
        layers: list[nn.Module] = []
        for i in range(doublings):
            layers += [nn.ConvTranspose2d(features if i else channels, features, 4, 2, 1), nn.ReLU(True)]
        super().__init__(*layers[:-1])


class MultiScalePixelRNN(PixelRNN):
    """PixelRNN conditioned on a small version of the image, which it draws itself.

    Args:
        image_size: side of the images.
        image_channels: 1 or 3.
        levels: values of a sub-pixel; 2 for binary images.
        small_size: side of the small image; the side of the images is this times a power of two.
        options: further arguments of `PixelRNN`; they hold for both networks.

    Raises:
        ValueError: the sizes do not fit each other, or as for `PixelRNN`.

    References:
        van den Oord et al. 2016, section 3.6.
    """

    inference_networks = ("network", "upsampling", "conditional")

    def __init__(
        self, image_size: int = 32, image_channels: int = 1, levels: int = 2, *, small_size: int = 8, **options: Any
    ) -> None:
        super().__init__(image_size, image_channels, levels, **options)
        self.save_hyperparameters({"small_size": small_size})
        doublings = (image_size // max(small_size, 1)).bit_length() - 1
        if doublings < 1 or small_size * 2**doublings != image_size:
            raise ValueError(f"image_size {image_size} is not small_size {small_size} times a power of two")
        self.stride = image_size // small_size
        features = self.hparams["features"]
        self.upsampling = Upsampling(image_channels, features, doublings)
        self.conditional = self.build(features)

    def small(self, x: Tensor) -> Tensor:
        """The small image: every k-th pixel.

        Shape:
            x: (N, C, H, W); output: (N, C, H / k, W / k).
        """
        return x[..., :: self.stride, :: self.stride]

    def logits(self, x: Tensor) -> Tensor:
        """Logits of each sub-pixel given all earlier ones and the small image of x.

        Shape:
            x: (N, C, H, W) in [-1, 1]; output: (N, K, C, H, W).
        """
        return cast(Tensor, self.conditional(x, self.upsampling(self.small(x))))

    def log_likelihood(self, x: Tensor) -> Tensor:
        """The bound on log p of images, with gradients.

        Shape:
            x: (N, C, H, W) in [-1, 1]; output: (N,) nats.
        """
        target = self.to_levels(x)
        small = self.network(self.small(self.to_images(target)))
        return super().log_likelihood(x) + self.density(small, self.small(target))

    @inference
    def sample(
        self,
        n: int,
        *,
        seed: int | None = None,
        first: int = 0,
        temperature: float = 1.0,
        prefix: Tensor | None = None,
        naive: bool = False,
        **conditions: Any,
    ) -> Tensor:
        """Draw small images, then whole ones given these; arguments and errors as for `PixelRNN`.

        With a prefix, the small image is completed from the pixels of the prefix that belong to it.

        Shape:
            prefix: (n or 1, C, rows, W) in [-1, 1]; output: (n, C, H, W) in [-1, 1].
        """
        x, rows = self.canvas(n, temperature, prefix, conditions)
        seed = self.resolve_seed(seed)
        options: dict[str, Any] = {"device": x.device, "dtype": x.dtype}
        sampler = SAMPLERS[self.hparams["layer"]]

        small = self.small(x).clone()
        u = rng.uniform(small.shape, rng.key(seed, "small"), first, **options)
        width = small.size(3)
        drawer = NaiveSampler(self.network) if naive else sampler(self.network, n, width)
        self.fill(small, -(-rows // self.stride), u, temperature, drawer)

        context = self.upsampling(small)
        u = rng.uniform(x.shape, rng.key(seed, "sample"), first, **options)
        given = partial(self.conditional, context=context)
        drawer = NaiveSampler(given) if naive else sampler(self.conditional, n, x.size(3), context)
        self.fill(x, rows, u, temperature, drawer)
        return x
