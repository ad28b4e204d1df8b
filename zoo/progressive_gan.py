"""Progressive GAN: both networks start at 4x4 pixels and grow, one faded-in doubling after the other, up to 1024.

    D minimises  E D(G(z)) - E D(x) + w / t^2 E (||grad D(x')||_2 - t)^2 + e E D(x)^2,    G minimises  -E D(G(z)),
    z ~ N(0, I), x' between x and G(z)

Karras, Aila, Laine and Lehtinen, "Progressive growing of GANs for improved quality, stability, and variation", ICLR
2018, arXiv 1710.10196. All layers exist from the start; those of later stages rest, without a gradient. The stage is a
function of the images seen (`zoo.nn.progressive_gan_growth`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from zoo.base import Batch, Terms, inference
from zoo.base.noise import NoiseToImageGAN
from zoo.engine import rng
from zoo.nn.losses import discriminator_terms, generator_term, gradient_penalty
from zoo.nn.progressive_gan import Conv, DownConv, Linear, UpConv, activate, doubled, pixel_norm, stddev_map
from zoo.nn.progressive_gan_growth import Growth

__all__ = ["Discriminator", "Generator", "ProgressiveGAN"]


class Start(Linear):
    """Latent vector to a map of 4x4, with a bias per channel.

    Args:
        inputs: length of the vector.
        channels: channels of the map.
        unit_bias: a bias per channel and pixel instead.
    """

    def __init__(self, inputs: int, channels: int, unit_bias: bool) -> None:
        # The gain makes up for the fan-in that a transposed convolution of 4x4 would have.
        super().__init__(inputs, 16 * channels, math.sqrt(2) / 4)
        self.bias = nn.Parameter(torch.zeros(16 * channels if unit_bias else channels))

    def forward(self, input: Tensor) -> Tensor:
        """The map, (N, C, 4, 4)."""
        x = F.linear(input * self.scale, self.weight).view(len(input), -1, 4, 4)
        return x + (self.bias.view(-1, 1, 1) if len(self.bias) == x.size(1) else self.bias.view(x.shape[1:]))


class GeneratorBlock(nn.Module):
    """The layers of one stage: (N, C, S, S) to (N, C', 2S, 2S), at the first stage from 4x4 to 4x4."""

    def __init__(self, inputs: int, outputs: int, up: bool) -> None:
        super().__init__()
        if up:
            self.conv0 = UpConv(inputs, outputs)
        self.conv1 = Conv(outputs if up else inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """The maps of the stage."""
        for conv in self.children():
            x = pixel_norm(activate(conv(x)))
        return x


class Generator(nn.Module):
    """Noise to image, at any of its stages: stage s makes 4 * 2^s pixels.

    Args:
        widths: channels of each stage.
        image_channels: channels of the images.
        latent_dim: length of the noise vector.
        num_classes: number of classes, whose one-hot vector is appended to the noise.
        unit_bias: see `Start`.

    Shape:
        z: (N, latent_dim); label: (N,) int64; output: (N, image_channels, S, S), linear.
    """

    stage: Tensor
    alpha: Tensor

    def __init__(
        self, widths: list[int], image_channels: int, latent_dim: int, num_classes: int, unit_bias: bool
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.start = Start(latent_dim + num_classes, widths[0], unit_bias)
        inputs = [widths[0], *widths]
        self.blocks = nn.ModuleList(
            GeneratorBlock(before, width, up=s > 0)
            for s, (before, width) in enumerate(zip(inputs, widths, strict=False))
        )
        self.to_rgb = nn.ModuleList(Conv(width, image_channels, 1, gain=1.0) for width in widths)
        # Where it is, for those who have the weights only.
        self.register_buffer("stage", torch.tensor(0))
        self.register_buffer("alpha", torch.tensor(1.0))

    def forward(
        self, z: Tensor, label: Tensor | None = None, stage: int | None = None, alpha: float | None = None
    ) -> Tensor:
        """Images of a stage, faded from those of the stage before; by default those of where the network is."""
        stage = int(self.stage) if stage is None else stage
        alpha = float(self.alpha) if alpha is None else alpha
        if label is not None:
            z = torch.cat([z, F.one_hot(label, self.num_classes).to(z.dtype)], 1)
        before = x = pixel_norm(activate(self.start(pixel_norm(z))))
        for block in self.blocks[: stage + 1]:
            before, x = x, block(x)
        image: Tensor = self.to_rgb[stage](x)
        if alpha < 1 and stage:
            image = torch.lerp(doubled(self.to_rgb[stage - 1](before)).to(image.dtype), image, alpha)
        return image

    def active(self, stage: int, alpha: float) -> Iterator[nn.Parameter]:
        """Parameters that `forward` uses."""
        yield from self.start.parameters()
        yield from self.blocks[: stage + 1].parameters()
        for to_rgb in self.to_rgb[max(0, stage - (alpha < 1)) : stage + 1]:
            yield from to_rgb.parameters()


class DiscriminatorBlock(nn.Module):
    """The layers of one stage: (N, C, 2S, 2S) to (N, C', S, S)."""

    def __init__(self, inputs: int, outputs: int, fused: bool) -> None:
        super().__init__()
        self.conv0 = Conv(inputs, inputs)
        self.conv1 = (DownConv if fused else Conv)(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """The maps of the next smaller stage."""
        x = activate(self.conv1(activate(self.conv0(x))))
        return x if isinstance(self.conv1, DownConv) else F.avg_pool2d(x, 2)


class Discriminator(nn.Module):
    """Image to a value and to logits of the classes, at any stage.

    Args:
        widths: channels of each stage.
        image_channels: channels of the images.
        num_classes: number of classes.
        hidden_features: width of the linear layer.
        fused_downscale: take the mean of 2x2 pixels before the activation, see `ProgressiveGAN`.

    Shape:
        x: (N, image_channels, S, S); output: (N, 1 + num_classes).
    """

    def __init__(
        self, widths: list[int], image_channels: int, num_classes: int, hidden_features: int, fused_downscale: bool
    ) -> None:
        super().__init__()
        width = widths[0]
        self.from_rgb = nn.ModuleList(Conv(image_channels, inputs, 1) for inputs in widths)
        self.blocks = nn.ModuleList(
            DiscriminatorBlock(inputs, outputs, fused_downscale) for outputs, inputs in pairwise(widths)
        )
        self.conv = Conv(width + 1, width)
        self.hidden = Linear(16 * width, hidden_features)
        self.last = Linear(hidden_features, 1 + num_classes, gain=1.0)

    def forward(self, x: Tensor, stage: int, alpha: float, group: int) -> Tensor:
        """Values and logits; the images are those of the stage, `group` is the size of groups in `stddev_map`."""
        y = activate(self.from_rgb[stage](x))
        for s in range(stage, 0, -1):
            y = self.blocks[s - 1](y)
            if s == stage and alpha < 1:
                y = torch.lerp(activate(self.from_rgb[s - 1](F.avg_pool2d(x, 2))).to(y.dtype), y, alpha)
        y = torch.cat([y, stddev_map(y, group)], 1)  # (N, C + 1, 4, 4)
        y = activate(self.hidden(activate(self.conv(y)).flatten(1)))
        return cast(Tensor, self.last(y))

    def active(self, stage: int, alpha: float) -> Iterator[nn.Parameter]:
        """Parameters that `forward` uses."""
        for module in (self.conv, self.hidden, self.last, self.blocks[:stage]):
            yield from module.parameters()
        for from_rgb in self.from_rgb[max(0, stage - (alpha < 1)) : stage + 1]:
            yield from from_rgb.parameters()


class ProgressiveGAN(NoiseToImageGAN):
    """Progressive GAN; with `num_classes` the auxiliary-classifier form.

    Training follows the images seen: at each resolution for `training_images`, then the next one is faded in over
    `transition_images`; the number of images per step over all devices and the learning rate may differ by resolution.
    DataModules of this package serve the images of each resolution in batches of that size; images of other loaders are
    averaged down to the stage. Adam's moments are forgotten at either end of a fade.

    Samples are made by an exponential moving average of the generator, at the stage that has been reached; smaller
    ones are enlarged to the model's size, each pixel to a square.

    Args:
        image_size: side of the grown images, a power of two from 4.
        image_channels: channels of the images.
        latent_dim: length of the noise vector.
        num_classes: number of classes of the conditional form, whose batches carry `label`; 0 is unconditional.
        channel_base: maps of side s have 2 * channel_base / s channels,
        max_channels: but at most so many.
        training_images: images at each resolution between two fades.
        transition_images: images of a fade.
        first_resolution: where to start; `image_size` trains grown networks from the start.
        global_batch_size: images per step, over all devices.
        global_batch_sizes: other numbers at some resolutions, such as {256: 14}.
        repeats: steps between two looks at the schedule.
        learning_rate: Adam's step size, for both networks.
        learning_rates: others at some resolutions.
        betas: Adam's decay rates.
        loss: Wasserstein with gradient penalty, or least squares.
        gradient_penalty_weight: weight w of the gradient penalty, 0 for none; by default the paper's 10 with
            Wasserstein and 0 with least squares.
        gradient_target: norm t of the critic's gradient.
        penalty_every: steps from one gradient penalty to the next, with as many times its weight; the paper's is 1.
        drift: weight e of the real images' squared values; by default the paper's 0.001 with Wasserstein and 0 with
            least squares.
        stddev_group: images over which the minibatch standard deviation is taken, at most the global batch; 0 takes all
            of a device's batch.
        n_critic: discriminator steps per generator step.
        simultaneous: step both networks at once, from the same weights.
        ema_decay: share of the averaged generator that is kept at each step.
        fused_downscale: average 2x2 pixels before the activation, as the official code does, rather than after it, as
            the paper does: faster.
        unit_bias: a bias per channel and pixel at the generator's 4x4 map, which imported files have.
        channels_last: lay out convolutions channels last, which is faster on most devices.

    Raises:
        ValueError: an unsupported size or schedule.

    References:
        Karras et al. 2018, sections 2 to 4 and appendix A; Gulrajani et al. 2017 (WGAN-GP); Odena et al. 2017
        (classes); Karras et al. 2020, section 3.1 (`penalty_every`).
    """

    def __init__(
        self,
        image_size: int = 1024,
        image_channels: int = 3,
        latent_dim: int = 512,
        num_classes: int = 0,
        *,
        channel_base: int = 8192,
        max_channels: int = 512,
        training_images: int = 800_000,
        transition_images: int = 800_000,
        first_resolution: int = 4,
        global_batch_size: int = 16,
        global_batch_sizes: dict[int, int] | None = None,
        repeats: int = 4,
        learning_rate: float = 1e-3,
        learning_rates: dict[int, float] | None = None,
        betas: tuple[float, float] = (0.0, 0.99),
        loss: Literal["wasserstein", "least_squares"] = "wasserstein",
        gradient_penalty_weight: float | None = None,
        gradient_target: float = 1.0,
        penalty_every: int = 1,
        drift: float | None = None,
        stddev_group: int = 4,
        n_critic: int = 1,
        simultaneous: bool = False,
        ema_decay: float = 0.999,
        fused_downscale: bool = False,
        unit_bias: bool = False,
        channels_last: bool = False,
    ) -> None:
        super().__init__(
            update="simultaneous" if simultaneous else "alternating",
            step_every={"generator": n_critic},
            ema_decay=ema_decay,
        )
        # Files of published weights have texts for keys.
        global_batch_sizes = {int(size): batch for size, batch in (global_batch_sizes or {}).items()}
        learning_rates = {int(size): rate for size, rate in (learning_rates or {}).items()}
        # Resolved before they are saved, so that files have numbers.
        # NOTE(paper): with least squares the authors' code also weights the fake images' term by 0.1 and multiplies the
        # discriminator's activations by noise; neither is built.
        if gradient_penalty_weight is None:
            gradient_penalty_weight = 10.0 if loss == "wasserstein" else 0.0
        if drift is None:
            drift = 0.001 if loss == "wasserstein" else 0.0
        self.save_hyperparameters()
        if stddev_group < 0:
            raise ValueError(f"stddev_group must be at least 0 (all of a batch), not {stddev_group}")
        if min(channel_base, max_channels) < 1:
            raise ValueError("channel_base and max_channels must be at least 1")
        if penalty_every < 1:
            raise ValueError(f"penalty_every must be at least 1, not {penalty_every}")
        self.latent_dim = latent_dim
        self.num_classes = num_classes
        self.learning_rates: Mapping[int, float] = learning_rates
        self.growth = Growth(
            first_resolution,
            image_size,
            training_images,
            transition_images,
            global_batch_size,
            global_batch_sizes,
            repeats,
        )
        features = [max(1, min(2 * channel_base // side, max_channels)) for side in _sides(image_size)]
        self.generator = Generator(features, image_channels, latent_dim, num_classes, unit_bias)
        hidden = max(1, min(channel_base, max_channels))
        self.discriminator = Discriminator(features, image_channels, num_classes, hidden, fused_downscale)
        if channels_last:
            self.to(memory_format=torch.channels_last)
        self.average_networks()
        self.register_buffer("images_seen", torch.tensor(0))
        self._seen = 0  # the same, without a question to the device
        self.grow(0)

    images_seen: Tensor
    generator: Generator
    generator_ema: Generator

    @classmethod
    def paper(cls, image_size: int = 1024, **options: Any) -> ProgressiveGAN:
        """The paper's setting for CelebA-HQ and LSUN, on one device; 19 million images for 1024 pixels.

        Args:
            image_size: side of the images.
            options: replace further arguments of the constructor.
        """
        setting: dict[str, Any] = {"global_batch_sizes": {256: 14, 512: 6, 1024: 3}, "stddev_group": 0}
        return cls(image_size, **setting | options)

    @classmethod
    def official(cls, image_size: int = 1024, *, devices: Literal[1, 8] = 1, **options: Any) -> ProgressiveGAN:
        """The settings of the official code that came after the paper, for 12 million images.

        Args:
            image_size: side of the images.
            devices: number of devices that the setting is for.
            options: replace further arguments of the constructor.
        """
        setting: dict[str, Any] = {
            "training_images": 600_000,
            "transition_images": 600_000,
            "fused_downscale": True,
            "global_batch_size": 4,
            "global_batch_sizes": {4: 128, 8: 128, 16: 128, 32: 64, 64: 32, 128: 16, 256: 8, 512: 4},
            "learning_rates": {1024: 0.0015},
        }
        if devices == 8:
            setting |= {
                "global_batch_size": 32,
                "global_batch_sizes": {4: 512, 8: 256, 16: 128, 32: 64, 64: 32},
                "learning_rates": {128: 0.0015, 256: 0.002, 512: 0.003, 1024: 0.003},
            }
        return cls(image_size, **setting | options)

    @classmethod
    def cifar10(cls, **options: Any) -> ProgressiveGAN:
        """The paper's setting for CIFAR-10, for 20 million images.

        Args:
            options: replace further arguments of the constructor.
        """
        setting: dict[str, Any] = {
            "latent_dim": 128,
            "channel_base": 4096,
            "max_channels": 128,
            "training_images": 400_000,
            "transition_images": 400_000,
            "gradient_target": 750.0,
            "stddev_group": 0,
            "simultaneous": True,
            # The Theano code, whose preset this is, looks at the schedule before each batch.
            "repeats": 1,
        }
        return cls(32, **setting | options)

    # Where it is -----------------------------------------------------------------------------------------------------

    def schedule(self, images_seen: int) -> tuple[int, float, int]:
        """Resolution, alpha and global batch size of the step after so many images; DataModules ask this."""
        return self.growth(images_seen)

    def learning_rate(self, images_seen: int) -> float:
        """Adam's step size after so many images."""
        resolution, _, _ = self.schedule(images_seen)
        return self.learning_rates.get(resolution, cast(float, self.hparams["learning_rate"]))

    def grow(self, images_seen: int) -> None:
        """Take the stage of a number of images seen; layers that it does not use get no gradient."""
        resolution, alpha, _ = self.schedule(images_seen)
        self._take((resolution // 4).bit_length() - 1, alpha)

    def _take(self, stage: int, alpha: float) -> None:
        self.stage, self.alpha = stage, alpha
        for network in (self.generator, self.generator_ema):
            network.stage.fill_(stage)
            # The type of the weights must not round a fade to its end.
            network.alpha.fill_(min(alpha, 1 - torch.finfo(network.alpha.dtype).eps) if alpha < 1 else 1.0)
        for module in (self.generator, self.discriminator):
            active = {id(p) for p in module.active(stage, alpha)}
            for p in module.parameters():
                p.requires_grad = id(p) in active

    @property
    def progress(self) -> dict[str, float]:
        """Where training is: resolution, alpha and images seen."""
        network = self.generator_ema
        return {
            "resolution": 4 << int(network.stage),
            "alpha": float(network.alpha),
            "images_seen": int(self.images_seen),
        }

    # Sampling --------------------------------------------------------------------------------------------------------

    @inference
    def generate(
        self,
        z: Tensor,
        label: Tensor | None = None,
        *,
        resolution: int | None = None,
        alpha: float | None = None,
    ) -> Tensor:
        """Images from given noise.

        Args:
            z: noise vectors.
            label: classes, in the conditional form.
            resolution: side of the images; None takes the stage that has been reached, and enlarges its images.
            alpha: how far this resolution is faded in: 0 shows the one before, enlarged. By default that of the stage
                that has been reached, and 1 for a given resolution.

        Shape:
            z: (N, latent_dim); label: (N,) int64; output: (N, C, resolution, resolution) in [-1, 1].

        Raises:
            ValueError: the model has no such resolution, or alpha lies outside [0, 1].
        """
        sides = _sides(self.image_shape[1])
        if resolution is not None and resolution not in sides:
            raise ValueError(
                f"resolution {resolution} is none of this model's: take one of {', '.join(map(str, sides))}"
            )
        if alpha is not None and not 0 <= alpha <= 1:
            raise ValueError(f"alpha must lie in [0, 1], not {alpha}")
        if resolution is not None:
            alpha = 1.0 if alpha is None else alpha
        stage = None if resolution is None else sides.index(resolution)
        x: Tensor = self.generator_ema(z, label, stage, alpha)
        if resolution is None and x.size(2) < sides[-1]:
            x = F.interpolate(x, sides[-1], mode="nearest")
        return x.clamp(-1, 1)

    @inference
    def sample(self, n: int, *, seed: int | None = None, first: int = 0, **conditions: Any) -> Tensor:
        """Draw images.

        Args:
            n: number of images.
            seed: seed of the draw; None takes a new one.
            first: global index of the first image: image i depends on (seed, first + i) only.
            conditions: `resolution` and `alpha` as for `generate`; `label`, a class or one per image (conditional
                form); by default classes are drawn uniformly.

        Shape:
            Output: (n, C, resolution, resolution) in [-1, 1].

        Raises:
            ValueError: a condition that the model does not have.
        """
        label = conditions.pop("label", None)
        place = {name: conditions.pop(name) for name in ("resolution", "alpha") if name in conditions}
        if conditions:
            raise ValueError(f"{type(self).__name__} has no condition {next(iter(conditions))!r}")
        seed = self.resolve_seed(seed)
        z = self.noise(n, rng.key(seed, "sample"), first)
        return self.generate(z, self._sample_labels(n, label, seed, first), **place)

    # Training --------------------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """A fit starts at the first image (a checkpoint, if any, is read after this).

        Raises:
            ValueError: the schedule's batches cannot be shared among the devices.
        """
        super().setup(stage)
        if stage == "fit":
            for resolution in self.growth.resolutions:
                share, rest = divmod(batch := self.growth.batch(resolution), self.trainer.world_size)
                # Groups of one process, whatever the number of devices; 0 asks for each device's batch.
                if rest or share % min(self.hparams["stddev_group"] or share, batch):
                    raise ValueError(
                        f"{batch} images per step at {resolution} pixels cannot be shared among "
                        f"{self.trainer.world_size} device(s) in groups of {self.hparams['stddev_group'] or 'any size'}"
                        ": set global_batch_size, global_batch_sizes or stddev_group"
                    )
            self.images_seen.zero_()
            self.grow(0)

    def on_train_start(self) -> None:
        """Go on where the checkpoint was: the stage of its last step, and the images seen by then."""
        super().on_train_start()
        self._seen = int(self.images_seen)
        self._take(int(self.generator.stage), float(self.generator.alpha))

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Grow as the images seen say, then one batch through both phases."""
        before = self.stage, self.alpha < 1
        if self.schedule(self._seen)[:2] != (4 << self.stage, self.alpha):
            self.grow(self._seen)
        if (self.stage, self.alpha < 1) != before:
            # Moments of gradients that were of other images, and weights that are new.
            optimizers = self.optimizers(use_pl_optimizer=False)
            for optimizer in optimizers if isinstance(optimizers, list) else [optimizers]:
                optimizer.state.clear()
        super().training_step(batch, batch_idx)
        self._seen += len(batch["image"]) * self.trainer.world_size
        self.images_seen.fill_(self._seen)

    def check_images(self, shape: torch.Size) -> None:
        """Accept images of the stage, and larger ones that can be averaged down to it."""
        channels, side = self.image_shape[0], 4 << self.stage
        if shape[0] != channels or shape[1] != shape[2] or shape[1] % side:
            raise ValueError(
                f"the data's images are {'x'.join(map(str, shape))}, the model's stage takes {channels}x{side}x{side}: "
                "set image_size and channels alike"
            )

    def real(self, images: Tensor) -> Tensor:
        """Real images as the stage has them: averaged down if they are larger, and faded as the generated ones are.

        Shape:
            images: (N, C, S', S'); output: (N, C, S, S).
        """
        if (factor := images.size(2) // (4 << self.stage)) > 1:
            images = F.avg_pool2d(images, factor)
        if self.alpha < 1:
            images = torch.lerp(doubled(F.avg_pool2d(images, 2)), images, self.alpha)
        return images

    def judge(self, x: Tensor, n: int) -> tuple[Tensor, Tensor]:
        """The discriminator's values and logits of the classes.

        Args:
            x: images, one or more batches of n: no group of the minibatch standard deviation lies in two.
            n: size of a batch.

        Shape:
            x: (N, C, S, S); output: (N,) and (N, num_classes).

        Raises:
            ValueError: the batch cannot be cut into groups.
        """
        group = min(self.hparams["stddev_group"] or n, n)
        if n % group:
            raise ValueError(
                f"a batch of {n} per device cannot be cut into groups of {group} for the minibatch standard deviation: "
                f"take a multiple of {group}, or another stddev_group"
            )
        values = self.discriminator(x, self.stage, self.alpha, group)
        return values[:, 0], values[:, 1:]

    def forward_shared(self, batch: Batch) -> Tensor:
        """The fakes of this batch."""
        # NOTE(paper): the official code draws other noise for the generator's step; here both phases see the same.
        n = len(batch["image"])
        z = self.noise(n, self.draw_key("z"), self.first_index(n))
        with torch.set_grad_enabled("generator" in self.active_phases):
            return cast(Tensor, self.generator(z, self._label(batch), self.stage, self.alpha))

    def discriminator_loss(self, batch: Batch, fake: Tensor) -> Terms:
        """E D(G(z)) - E D(x) + w / t^2 E (||grad D(x')||_2 - t)^2 + e E D(x)^2, or with least squares.

        Shape:
            fake: (N, C, S, S); output: scalars.
        """
        hparams = self.hparams
        real, fake = self.real(batch["image"]), fake.detach()
        n = len(real)
        values, logits = self.judge(torch.cat([real, fake.to(real.dtype)]), n)
        terms = discriminator_terms(hparams["loss"], values[:n], values[n:])
        if hparams["drift"]:
            terms["drift"] = hparams["drift"] * values[:n].square().mean()
        every = hparams["penalty_every"]
        # Counted as `should_step` counts, so that loggers, who look at each n-th step, see it.
        # NOTE(paper): Karras et al. 2020 do this with R1, in a step of its own; here the penalty joins the other terms.
        if (weight := every * hparams["gradient_penalty_weight"]) and (self.batch_index + 1) % every == 0:
            mix = rng.uniform((n,), self.draw_key("mix"), self.first_index(n), device=self.device, dtype=real.dtype)
            target = hparams["gradient_target"]
            # Gradients of gradients lose too much in half precision.
            with torch.autocast(self.device.type, enabled=False):
                penalty = gradient_penalty(lambda x: self.judge(x, n)[0], real, fake, mix, target)
            terms["gradient_penalty"] = weight / target**2 * penalty
        if (label := self._label(batch)) is not None:
            terms["classification"] = F.cross_entropy(logits[:n], label) + F.cross_entropy(logits[n:], label)
        return terms

    def generator_loss(self, batch: Batch, fake: Tensor) -> Terms:
        """-E D(G(z)), or with least squares.

        Shape:
            fake: (N, C, S, S); output: scalars.
        """
        values, logits = self.judge(fake, len(fake))
        terms = {"adversarial": generator_term(self.hparams["loss"], values)}
        if (label := self._label(batch)) is not None:
            terms["classification"] = F.cross_entropy(logits, label)
        return terms

    @torch.no_grad()
    def on_phase_stepped(self, phase: str) -> None:
        """Move the averaged generator, in the layers that train."""
        if phase == "generator":
            average: list[Tensor] = [*self.generator_ema.active(self.stage, self.alpha)]
            own: list[Tensor] = [*self.generator.active(self.stage, self.alpha)]
            torch._foreach_lerp_(average, own, 1 - cast(float, self.hparams["ema_decay"]))

    def optimizer_overrides(self, phase: str, step: int) -> dict[str, Any]:
        """The learning rate of the resolution."""
        return {"lr": self.learning_rate(self._seen)}

    def configure_optimizers(self) -> list[Optimizer]:
        """Adam for each network."""
        rate, betas = self.learning_rate(0), tuple(self.hparams["betas"])
        return [self.adam(network.parameters(), rate, betas=betas) for network in (self.discriminator, self.generator)]

    def _label(self, batch: Batch) -> Tensor | None:
        return batch["label"] if self.num_classes else None


def _sides(image_size: int) -> list[int]:
    """Sides of the images of all stages, from 4."""
    return [4 << s for s in range((image_size // 4).bit_length())]
