"""Multi-scale PixelRNN: a small image first, then the whole one given the small one.

    log p(x) >= log p(s(x)) + log p(x | s(x)),   s(x): every k-th pixel of every k-th row

An ordinary PixelRNN draws the small image. Transposed convolutions enlarge it to a map of the full size, which enters
the gates of every layer of a second PixelRNN. The bound is an equality but for the weight that the second network gives
to images with another small image. van den Oord et al., "Pixel Recurrent Neural Networks", ICML 2016, arXiv 1601.06759,
section 3.6.
"""

from __future__ import annotations

from functools import partial
from typing import Any, cast

from torch import Tensor, nn

from zoo.nn.sampling import NaiveSampler
from zoo.pixelrnn import PixelRNN

__all__ = ["MultiScalePixelRNN", "Upsampling"]


class Upsampling(nn.Sequential):
    """Transposed convolutions that double the side until it is that of the image.

    Args:
        image_channels: channels of the image.
        channels: maps of the result.
        doublings: how often.

    Shape:
        input: (N, image_channels, s, s); output: (N, channels, 2^doublings s, 2^doublings s).
    """

    def __init__(self, image_channels: int, channels: int, doublings: int) -> None:
        layers: list[nn.Module] = []
        for i in range(doublings):
            layers += [nn.ConvTranspose2d(channels if i else image_channels, channels, 4, 2, 1), nn.ReLU(True)]
        super().__init__(*layers[:-1])


class MultiScalePixelRNN(PixelRNN):
    """PixelRNN conditioned on a small version of the image, which the model draws first.

    Args:
        image_size: side of the images.
        image_channels: 1 or 3.
        num_levels: values of a sub-pixel; 2 for binary images.
        small_size: side of the small image; the side of the images is this times a power of two.
        options: further arguments of `PixelRNN`; they hold for both networks.

    Raises:
        ValueError: the sizes do not fit each other, or as for `PixelRNN`.

    References:
        van den Oord et al. 2016, section 3.6.
    """

    inference_networks = ("network", "upsampling", "conditional")

    def __init__(
        self, image_size: int = 32, image_channels: int = 1, num_levels: int = 2, *, small_size: int = 8, **options: Any
    ) -> None:
        super().__init__(image_size, image_channels, num_levels, **options)
        doublings = (image_size // max(small_size, 1)).bit_length() - 1
        if doublings < 1 or small_size * 2**doublings != image_size:
            raise ValueError(f"image_size {image_size} is not small_size {small_size} times a power of two")
        self.stride = image_size // small_size
        context_channels = self.hparams["hidden_channels"]
        self.upsampling = Upsampling(image_channels, context_channels, doublings)
        self.conditional = self.build(context_channels)

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

    def draw_images(self, x: Tensor, rows: int, *, seed: int, first: int, temperature: float, naive: bool) -> Tensor:
        """Draw small images, then whole ones given these.

        With given rows, the small image is completed from their pixels that belong to it.
        """
        n, width, sampler = len(x), x.size(3), self.layer.sampler
        small = self.small(x).clone()
        drawer = NaiveSampler(self.network) if naive else sampler(self.network, n, small.size(3))
        self.fill(small, -(-rows // self.stride), self.draws(small, seed, "small", first), temperature, drawer)

        context = self.upsampling(small)
        given = partial(self.conditional, context=context)
        drawer = NaiveSampler(given) if naive else sampler(self.conditional, n, width, context)
        self.fill(x, rows, self.draws(x, seed, "sample", first), temperature, drawer)
        return x
