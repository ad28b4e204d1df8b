"""DCGAN: a GAN of strided convolutions, batch normalisation and no pooling, which made GAN training routine.

    D minimises  -E log D(x) - E log(1 - D(G(z))),   G minimises  -E log D(G(z)),   z ~ N(0, I)

Radford, Metz and Chintala, "Unsupervised Representation Learning with Deep Convolutional Generative Adversarial
Networks", ICLR 2016, arXiv 1511.06434. The defaults are those of the widely used PyTorch example (4x4 kernels, width
64, Gaussian noise); `DCGAN.paper()` and `DCGAN.paper_mnist()` are those of the authors' code (5x5 kernels, width 128,
uniform noise, linear first and last layers).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm
from torch.optim import Optimizer

from zoo.base import Batch, Terms
from zoo.base.noise import NoiseModel
from zoo.engine import rng
from zoo.nn.augment import diff_augment
from zoo.nn.layers import StartMap, stages
from zoo.nn.losses import AdversarialLoss, discriminator_loss, generator_loss, gradient_penalty, r1_penalty

__all__ = ["DCGAN", "Discriminator", "Generator"]

Norm = Literal["batch", "instance", "spectral", "none"]


def with_label(x: Tensor, label: Tensor | None, num_classes: int) -> Tensor:
    """Append the one-hot label to vectors, or to feature maps as constant maps; None appends nothing."""
    if label is None:
        return x
    onehot = F.one_hot(label, num_classes).to(x.dtype)  # (N, K)
    if x.dim() == 4:
        onehot = onehot.view(*onehot.shape, 1, 1).expand(-1, -1, *x.shape[2:])  # (N, K, H, W)
    return torch.cat([x, onehot], 1)


class Layer(nn.Sequential):
    """Convolution or linear map, normalisation, activation, under the names `conv`, `norm` and `act`."""

    def __init__(self, conv: nn.Module, norm: nn.Module | None, act: nn.Module | None) -> None:
        super().__init__()
        for name, module in (("conv", conv), ("norm", norm), ("act", act)):
            if module is not None:
                self.add_module(name, module)


class Generator(nn.Module):
    """Noise to image: a start map of start x start, doubled by strided transposed convolutions.

    Arguments as for `DCGAN`.

    Shape:
        z: (N, latent_dim); label: (N,) int64; output: (N, image_channels, image_size, image_size) in (-1, 1).
    """

    def __init__(
        self,
        image_size: int,
        image_channels: int,
        latent_dim: int,
        base_channels: int,
        kernel_size: int,
        linear: bool,
        hidden_features: int,
        num_classes: int,
        norm_eps: float,
        norm_affine: bool,
    ) -> None:
        super().__init__()
        start, doublings = stages(image_size)
        self.num_classes = num_classes
        width = base_channels * 2 ** (doublings - 1)
        self.start_shape = (width, start, start)
        up: dict[str, Any] = {"kernel_size": kernel_size, "stride": 2, "bias": False}
        up |= {"padding": 1} if kernel_size == 4 else {"padding": 2, "output_padding": 1}
        norm: dict[str, Any] = {"eps": norm_eps, "affine": norm_affine}

        layers: list[nn.Module] = []
        features = latent_dim + num_classes
        if hidden_features:
            hidden = nn.Linear(features, hidden_features, bias=False)
            layers.append(Layer(hidden, nn.BatchNorm1d(hidden_features, **norm), nn.ReLU(True)))  # (N, hidden)
            features = hidden_features + num_classes
        self.first_map = len(layers)
        first: nn.Module
        if linear:
            first = nn.Linear(features, width * start * start, bias=False)
            layers.append(Layer(first, nn.BatchNorm1d(width * start * start, **norm), nn.ReLU(True)))
        else:
            first = StartMap(features, width, start, bias=False)
            layers.append(Layer(first, nn.BatchNorm2d(width, **norm), nn.ReLU(True)))  # (N, C, start, start)
        for _ in range(doublings - 1):
            conv = nn.ConvTranspose2d(width + num_classes, width // 2, **up)
            width //= 2
            layers.append(Layer(conv, nn.BatchNorm2d(width, **norm), nn.ReLU(True)))  # (N, C / 2, 2H, 2W)
        layers.append(Layer(nn.ConvTranspose2d(width + num_classes, image_channels, **up), None, nn.Tanh()))
        self.layers = nn.ModuleList(layers)

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """Generate images from noise."""
        x = z
        for i, layer in enumerate(self.layers):
            x = with_label(x, label, self.num_classes)
            x = layer(x)
            if i == self.first_map:
                x = x.view(len(x), *self.start_shape) if x.dim() == 2 else x
        return x


class Discriminator(nn.Module):
    """Image to logit: strided convolutions that halve the side and double the channels.

    Arguments as for `DCGAN`; "spectral" normalises every layer's weights, other norms leave out the first and last.

    Shape:
        x: (N, image_channels, image_size, image_size); label: (N,) int64; output: (N,) logits.
    """

    def __init__(
        self,
        image_size: int,
        image_channels: int,
        base_channels: int,
        kernel_size: int,
        linear: bool,
        hidden_features: int,
        num_classes: int,
        norm: Norm,
        norm_eps: float,
        norm_affine: bool,
    ) -> None:
        super().__init__()
        start, doublings = stages(image_size)
        self.num_classes = num_classes
        down: dict[str, Any] = {
            "kernel_size": kernel_size,
            "stride": 2,
            "padding": {4: 1, 5: 2}[kernel_size],
        }
        weight = cast(Callable[[nn.Module], nn.Module], spectral_norm) if norm == "spectral" else lambda module: module
        # A shift by the normalisation makes the convolution's bias useless; the reference has none at either end too.
        bias = norm in ("spectral", "none")

        def normalise(channels: int, dims: int = 2) -> nn.Module | None:
            if norm == "batch":
                kind = nn.BatchNorm2d if dims == 2 else nn.BatchNorm1d
                return kind(channels, eps=norm_eps, affine=norm_affine)
            return nn.InstanceNorm2d(channels, eps=norm_eps, affine=True) if norm == "instance" and dims == 2 else None

        width = base_channels
        first = nn.Conv2d(image_channels + num_classes, width, bias=False, **down)
        layers = [Layer(weight(first), None, nn.LeakyReLU(0.2, True))]  # (N, C, H / 2, W / 2)
        for _ in range(doublings - 1):
            conv = nn.Conv2d(width + num_classes, 2 * width, bias=bias, **down)
            width *= 2
            layers.append(Layer(weight(conv), normalise(width), nn.LeakyReLU(0.2, True)))  # (N, 2C, H / 2, W / 2)
        self.flatten_at = len(layers) if linear else -1
        features = width * start * start
        if hidden_features:
            hidden = nn.Linear(features + num_classes, hidden_features, bias=bias)
            layers.append(Layer(weight(hidden), normalise(hidden_features, 1), nn.LeakyReLU(0.2, True)))
            features = hidden_features
        last: nn.Module
        if linear:
            last = nn.Linear(features + num_classes, 1, bias=False)
        else:
            last = nn.Conv2d(width + num_classes, 1, start, 1, 0, bias=False)
        layers.append(Layer(weight(last), None, None))
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        """Logits: positive for images taken for real."""
        for i, layer in enumerate(self.layers):
            x = x.flatten(1) if i == self.flatten_at else x
            x = layer(with_label(x, label, self.num_classes))
        return x.flatten()  # (N,)


def initialise(module: nn.Module) -> None:
    """Draw weights of convolutions and linear maps from N(0, 0.02), scales of norms from N(1, 0.02); shifts are 0."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        # Behind a spectral norm `weight` is computed anew at each use; the parameter is the original.
        parametrized = torch.nn.utils.parametrize.is_parametrized(module, "weight")
        nn.init.normal_(module.parametrizations.weight.original if parametrized else module.weight, 0.0, 0.02)  # type: ignore[union-attr, arg-type]
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.InstanceNorm2d) and module.affine:
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)


class DCGAN(NoiseModel):
    """Deep convolutional GAN; the class-conditional form with `num_classes`.

    Both phases use the same fakes, drawn once per batch; real and fake images pass the discriminator separately, each
    with its own batch statistics. Options beyond the paper are off by default.

    Args:
        image_size: side of the images: 28, or a power of two from 8.
        image_channels: channels of the images.
        latent_dim: length of the noise vector.
        base_channels: channels of the largest hidden feature map in both networks.
        num_classes: number of classes of the conditional form, whose batches carry `label`; 0 is unconditional.
        learning_rate: Adam's step size, for both networks.
        betas: Adam's decay rates.
        weight_decay: L2 penalty on all weights, added to the gradient.
        noise: distribution of the noise: N(0, 1) or U(-1, 1).
        kernel_size: 4 or 5.
        linear: make the generator's first and the discriminator's last layer linear.
        hidden_features: width of a further hidden linear layer in both networks (needs `linear`); 0 for none.
        norm_eps: constant in the batch normalisation.
        norm_affine: learn the batch normalisation's scale and shift.
        separate_batches: train the networks on batches in turn: the generator on one, the discriminator on the next.
        loss: objective.
        discriminator_norm: normalisation in the discriminator; gradient penalties need one other than "batch".
        gradient_penalty_weight: weight of WGAN-GP's penalty.
        r1_weight: weight of the R1 penalty (gamma).
        n_critic: discriminator steps per generator step.
        augment: DiffAugment before the discriminator, on real and fake images alike.
        ema_decay: keep an exponential moving average of the generator, which then makes the samples; None for none.
        accumulate: batches whose gradients make one step.
        gradient_clip: largest gradient norm per network; None does not clip.
        channels_last: lay out convolutions channels last, which is faster on most devices.
        compile: compile the networks with torch.compile.

    Raises:
        ValueError: an unsupported size, or options that exclude each other.

    References:
        Radford et al. 2016, section 3, and the authors' code for the conditional form; Miyato et al. 2018 (spectral
        norm); Mescheder et al. 2018 (R1); Gulrajani et al. 2017 (WGAN-GP); Zhao et al. 2020 (DiffAugment).
    """

    def __init__(
        self,
        image_size: int = 64,
        image_channels: int = 3,
        latent_dim: int = 100,
        base_channels: int = 64,
        num_classes: int = 0,
        *,
        learning_rate: float = 2e-4,
        betas: tuple[float, float] = (0.5, 0.999),
        weight_decay: float = 0.0,
        noise: Literal["normal", "uniform"] = "normal",
        kernel_size: Literal[4, 5] = 4,
        linear: bool = False,
        hidden_features: int = 0,
        norm_eps: float = 1e-5,
        norm_affine: bool = True,
        separate_batches: bool = False,
        loss: AdversarialLoss = "non_saturating",
        discriminator_norm: Norm = "batch",
        gradient_penalty_weight: float = 0.0,
        r1_weight: float = 0.0,
        n_critic: int = 1,
        augment: bool = False,
        ema_decay: float | None = None,
        accumulate: int = 1,
        gradient_clip: float | None = None,
        channels_last: bool = False,
        compile: bool = False,
    ) -> None:
        super().__init__(every={"generator": n_critic}, accumulate=accumulate, gradient_clip=gradient_clip)
        self.save_hyperparameters()
        penalised = bool(gradient_penalty_weight or r1_weight)
        if penalised and discriminator_norm == "batch":
            raise ValueError(
                "a gradient penalty is ill-defined under batch normalisation: set discriminator_norm to "
                "'none', 'instance' or 'spectral'"
            )
        if penalised and compile:
            raise ValueError(
                "torch.compile cannot differentiate a gradient penalty: set compile=False, or both penalty weights to 0"
            )
        if hidden_features and not linear:
            raise ValueError("hidden_features needs linear=True")
        self.latent_dim = latent_dim
        self.num_classes = num_classes
        shared: dict[str, Any] = {
            "base_channels": base_channels,
            "kernel_size": kernel_size,
            "linear": linear,
            "hidden_features": hidden_features,
            "num_classes": num_classes,
            "norm_eps": norm_eps,
            "norm_affine": norm_affine,
        }
        self.generator = Generator(image_size, image_channels, latent_dim, **shared).apply(initialise)
        self.discriminator = Discriminator(image_size, image_channels, norm=discriminator_norm, **shared)
        self.discriminator.apply(initialise)
        if channels_last:
            self.to(memory_format=torch.channels_last)
        self.average_generator(ema_decay)
        if compile:
            self.generator.compile()
            self.discriminator.compile()

    @classmethod
    def paper(cls, image_size: int = 64, **options: Any) -> DCGAN:
        """The setting of the authors' code on faces; use a batch size of 128.

        Args:
            image_size: side of the images.
            options: replace further arguments of the constructor.
        """
        # NOTE(paper): the authors' sampling uses batch statistics; here samples use the running ones, so that a sample
        # does not depend on those beside it.
        setting: dict[str, Any] = {
            "base_channels": 128,
            "noise": "uniform",
            "kernel_size": 5,
            "linear": True,
            "norm_eps": 1e-8,
            "weight_decay": 1e-5,
            "separate_batches": True,
        }
        return cls(image_size, **setting | options)

    @classmethod
    def paper_mnist(cls, **options: Any) -> DCGAN:
        """The class-conditional setting of the authors' code on MNIST; use a batch size of 128.

        Args:
            options: replace further arguments of the constructor.
        """
        # NOTE(paper): the authors' images lie in [0, 1] behind a sigmoid; here they lie in [-1, 1] behind a tanh, the
        # same function up to the scale of its argument.
        setting: dict[str, Any] = {
            "image_size": 28,
            "image_channels": 1,
            "base_channels": 64,
            "num_classes": 10,
            "hidden_features": 1024,
            "norm_affine": False,
            "weight_decay": 2.5e-5,
        }
        return cls.paper(**setting | options)

    # Training --------------------------------------------------------------------------------------------------------

    def forward_shared(self, batch: Batch) -> Tensor:
        """The fakes of this batch."""
        n = len(batch["image"])
        z = self.noise(n, self.draw_key("z"), self.first_index(n))
        with torch.set_grad_enabled("generator" in self.due):
            return cast(Tensor, self.generator(z, self._label(batch)))

    def discriminator_loss(self, batch: Batch, fake: Tensor) -> Terms:
        """-E log D(x) - E log(1 - D(G(z))), or the chosen objective, and the penalties that are on.

        Shape:
            fake: (N, C, H, W); output: scalars.
        """
        real, fake = self._images(batch["image"], "real"), self._images(fake.detach(), "fake")
        label = self._label(batch)
        # Separately: the statistics of real and fake images must not mix in the batch normalisation.
        terms = discriminator_loss(
            self.hparams["loss"], self.discriminator(real, label), self.discriminator(fake, label)
        )
        if weight := self.hparams["gradient_penalty_weight"]:
            n = len(real)
            mix = rng.uniform((n,), self.draw_key("mix"), self.first_index(n), device=self.device, dtype=real.dtype)
            penalty = gradient_penalty(lambda x: self.discriminator(x, label), real, fake, mix)
            terms["gradient_penalty"] = weight * penalty
        if weight := self.hparams["r1_weight"]:
            terms["r1"] = weight * r1_penalty(lambda x: self.discriminator(x, label), real)
        return terms

    def generator_loss(self, batch: Batch, fake: Tensor) -> Terms:
        """-E log D(G(z)), or the chosen objective.

        Shape:
            fake: (N, C, H, W); output: scalar.
        """
        logits = self.discriminator(self._images(fake, "fake"), self._label(batch))
        return {"adversarial": generator_loss(self.hparams["loss"], logits)}

    def is_due(self, phase: str, step: int) -> bool:
        """With `separate_batches` the generator trains on even steps, the discriminator on odd ones."""
        if self.hparams["separate_batches"]:
            return (step % 2 == 0) == (phase == "generator")
        return super().is_due(phase, step)

    def configure_optimizers(self) -> list[Optimizer]:
        """Adam for each network."""
        hparams = self.hparams
        return [
            self.adam(
                network.parameters(),
                hparams["learning_rate"],
                betas=tuple(hparams["betas"]),
                weight_decay=hparams["weight_decay"],
            )
            for network in (self.discriminator, self.generator)
        ]

    def _label(self, batch: Batch) -> Tensor | None:
        return batch["label"] if self.num_classes else None

    def _images(self, x: Tensor, purpose: str) -> Tensor:
        """Images as the discriminator takes them: laid out and augmented."""
        if self.hparams["channels_last"]:
            x = x.contiguous(memory_format=torch.channels_last)
        if self.hparams["augment"]:
            x = diff_augment(x, self.draw_key(f"augment/{purpose}"), self.first_index(len(x)))
        return x
