"""GANs whose networks grow in training: one stage after the other is faded in."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.base.model import Batch, inference
from zoo.base.noise import NoiseToImageGAN
from zoo.nn.progressive_gan_growth import Growth, GrowthSchedule
from zoo.nn.progressive_gan_layers import doubled

__all__ = ["GrowingGAN"]


class GrowingGAN(NoiseToImageGAN):
    """A GAN of growing networks: the stage is a function of the images seen.

    Stage s makes images of 4 * 2^s pixels, and while it is faded in its images are a mean of its own, weighted with
    alpha, and those of the stage before. DataModules of this package serve the images of each resolution in batches of
    the schedule's size; images of other loaders are averaged down to the stage. Layers of other stages rest, without a
    gradient. Optimizers forget their state at either end of a fade.

    Samples are made at the stage that has been reached; smaller ones are enlarged to the model's size, each pixel to a
    square.

    Subclasses build `generator(z, stage, alpha)`, with buffers `stage` and `alpha`, and `discriminator`, both with a
    method `active`; then they call `average_networks` and `grow(0)`.

    Args:
        growth: when the networks grow.
        image_size: resolution of the grown networks.
        options: see `NoiseToImageGAN`.

    Attributes:
        stage: number of the present stage.
        alpha: its share in the images.
        images_seen: images of all training steps so far, of all ranks.
    """

    unsupported_options = {  # noqa: RUF012
        "accumulate": "the schedule counts the images of one batch per step",
        "capture": "its networks grow",
    }
    conditions = ("resolution", "alpha")
    images_seen: Tensor

    def __init__(self, growth: Growth, image_size: int, **options: Any) -> None:
        super().__init__(**options)
        self.growth = growth
        self.growth_schedule = GrowthSchedule(growth, image_size)
        self.stage, self.alpha = 0, 1.0
        self.register_buffer("images_seen", torch.tensor(0))
        self._seen = 0  # the same, without a question to the device

    # The stage -------------------------------------------------------------------------------------------------------

    def schedule(self, images_seen: int) -> tuple[int, float, int]:
        """Resolution, alpha and global batch size of the step after a number of images; DataModules ask this."""
        return self.growth_schedule(images_seen)

    def learning_rate(self, images_seen: int) -> float:
        """The learning rate after a number of images."""
        resolution, _, _ = self.schedule(images_seen)
        return self.growth.learning_rates.get(resolution, cast(float, self.hparams["learning_rate"]))

    def grow(self, images_seen: int) -> None:
        """Take the stage of a number of images seen."""
        resolution, alpha, _ = self.schedule(images_seen)
        self._set_stage((resolution // 4).bit_length() - 1, alpha)

    def _set_stage(self, stage: int, alpha: float) -> None:
        self.stage, self.alpha = stage, alpha
        networks: tuple[Any, ...] = (self.generator, self.discriminator)
        for network in networks:
            active = {id(p) for p in network.active(stage, alpha)}
            for p in network.parameters():
                p.requires_grad = id(p) in active
        generators: set[Any] = {self.generator, self.averaged("generator")}
        for network in generators:
            network.stage.fill_(stage)
            # The type of the weights must not round a fade to its end.
            network.alpha.fill_(min(alpha, 1 - torch.finfo(network.alpha.dtype).eps) if alpha < 1 else 1.0)

    @property
    def progress(self) -> dict[str, float]:
        """Where training is: resolution, alpha and images seen."""
        network: Any = self.averaged("generator")
        return {
            "resolution": 4 << int(network.stage),
            "alpha": float(network.alpha),
            "images_seen": int(self.images_seen),
        }

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

    # Sampling --------------------------------------------------------------------------------------------------------

    @inference
    def generate(
        self, z: Tensor, label: Tensor | None = None, *, resolution: int | None = None, alpha: float | None = None
    ) -> Tensor:
        """Images from given noise.

        Args:
            z: noise vectors.
            label: None, as there are no classes.
            resolution: side of the images; None takes the stage that has been reached, and enlarges its images.
            alpha: how far this resolution is faded in: 0 shows the one before, enlarged. By default that of the stage
                that has been reached, and 1 for a given resolution.

        Shape:
            z: (N, latent_dim); output: (N, C, resolution, resolution) in [-1, 1].

        Raises:
            ValueError: a label, a resolution that the model does not have, or an alpha outside [0, 1].
        """
        if label is not None:
            raise ValueError(f"{type(self).__name__} has no classes: it takes no label")
        sides = [4 << s for s in range((self.growth_schedule.last // 4).bit_length())]
        if resolution is not None and resolution not in sides:
            raise ValueError(
                f"resolution {resolution} is none of this model's: take one of {', '.join(map(str, sides))}"
            )
        if alpha is not None and not 0 <= alpha <= 1:
            raise ValueError(f"alpha must lie in [0, 1], not {alpha}")
        if resolution is not None:
            alpha = 1.0 if alpha is None else alpha
        stage = None if resolution is None else sides.index(resolution)
        x: Tensor = self.averaged("generator")(z, stage, alpha)
        if resolution is None and x.size(2) < sides[-1]:
            x = F.interpolate(x, sides[-1], mode="nearest")
        return x.clamp(-1, 1)

    # Training --------------------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """A fit starts at the first image (a checkpoint, if any, is read after this)."""
        super().setup(stage)
        if stage == "fit":
            self.images_seen.zero_()
            self.grow(0)

    def on_train_start(self) -> None:
        """Go on where the checkpoint was: the stage of its last step, and the images seen by then."""
        super().on_train_start()
        generator: Any = self.generator
        self._seen = int(self.images_seen)
        self._set_stage(int(generator.stage), float(generator.alpha))

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Take the stage of the images seen, then train on one batch."""
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

    @torch.no_grad()
    def on_phase_stepped(self, phase: str) -> None:
        """Move the average of the generator, in the layers that train."""
        if phase == "generator" and self.ema_decay is not None:
            networks: tuple[Any, ...] = (self.generator_ema, self.generator)
            average, own = ([*network.active(self.stage, self.alpha)] for network in networks)
            torch._foreach_lerp_(average, own, 1 - self.ema_decay)

    def optimizer_overrides(self, phase: str, step: int) -> dict[str, Any]:
        """The learning rate of the resolution."""
        return {"lr": self.learning_rate(self._seen)}
