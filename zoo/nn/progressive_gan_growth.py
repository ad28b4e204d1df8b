"""Growth by images seen: which resolution, how far it is faded in, and how many images a step has.

The networks of a progressive GAN train at one resolution for a number of images, then fade in the layers of the next
one over another number, and so on. Everything here is a function of the number of images seen alone, so that a resumed
run, or one on another number of devices, goes on with the same schedule.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from zoo.nn.options import OptionGroup

__all__ = ["Growth", "GrowthSchedule"]


@dataclass(frozen=True)
class Growth(OptionGroup):
    """When the networks grow, and what changes with the resolution."""

    training_images: int = 800_000
    """Images at each resolution between two fades."""
    transition_images: int = 800_000
    """Images of a fade; 0 adds layers at once."""
    first_resolution: int = 4
    """Resolution at which training starts; that of the images trains grown networks from the start."""
    global_batch_size: int = 16
    """Images per step over all devices."""
    global_batch_sizes: Mapping[int, int] = field(default_factory=dict)
    """Other numbers of images per step at some resolutions, such as {256: 14}."""
    learning_rates: Mapping[int, float] = field(default_factory=dict)
    """Other learning rates at some resolutions, such as {1024: 0.0015}."""
    steps_per_schedule_check: int = 4
    """Steps from one look at the schedule to the next."""

    def __post_init__(self) -> None:
        for name in ("global_batch_sizes", "learning_rates"):  # JSON has texts for keys
            sizes = {int(size): value for size, value in getattr(self, name).items()}
            object.__setattr__(self, name, sizes)
            for size in sizes:  # Resolutions beyond the images' may be given: a setting serves all sizes.
                _check_resolution(size, f"growth.{name}: ")
        _check_resolution(self.first_resolution, "growth.first_resolution: ")
        images = (self.training_images, self.transition_images)
        if min(images) < 0 or sum(images) < 1:
            raise ValueError(
                "growth: training_images and transition_images must not be negative, and not both 0: "
                + ", ".join(map(str, images))
            )
        if min([self.global_batch_size, self.steps_per_schedule_check, *self.global_batch_sizes.values()]) < 1:
            raise ValueError("growth: batch sizes and steps_per_schedule_check must be at least 1")


class GrowthSchedule:
    """The schedule of Karras et al. 2018 up to one resolution.

    With T images of training, F of transition and D = T + F, image n lies in phase n div D. In the first T images of
    phase k stage k trains alone; in the next F stage k + 1 fades in with alpha = (n mod D - T) / F. After the last
    stage's fade nothing changes any more.

    Args:
        growth: T, F, batch sizes and the rest.
        last: resolution of the grown networks.

    Raises:
        ValueError: `last` is no power of two from 4, or smaller than the first resolution.

    References:
        Karras et al. 2018, section 2 and appendix A.1.
    """

    def __init__(self, growth: Growth, last: int) -> None:
        _check_resolution(last, "")
        if growth.first_resolution > last:
            raise ValueError(f"the first resolution {growth.first_resolution} is larger than the last, {last}")
        self.growth, self.last = growth, last
        self.resolutions = [growth.first_resolution << k for k in range((last // growth.first_resolution).bit_length())]

    def batch(self, resolution: int) -> int:
        """Images per step at a resolution, over all devices."""
        return self.growth.global_batch_sizes.get(resolution, self.growth.global_batch_size)

    def __call__(self, images_seen: int) -> tuple[int, float, int]:
        """Resolution, alpha and global batch size of the step that starts after a number of images.

        alpha is 1 where a stage trains alone. Between two looks at the schedule the answer stays.
        """
        k = bisect_right(self._starts, images_seen) - 1
        update = self._update(self.resolutions[k])
        at = self._starts[k] + (images_seen - self._starts[k]) // update * update
        resolution, alpha = self._at(at)
        return resolution, alpha, self.batch(resolution)

    @property
    def _phase(self) -> int:
        """Images of one phase, training and transition."""
        return self.growth.training_images + self.growth.transition_images

    def _update(self, resolution: int) -> int:
        """Images from one look at the schedule to the next."""
        return self.growth.steps_per_schedule_check * self.batch(resolution)

    def _at(self, images: int) -> tuple[int, float]:
        phase, within = divmod(images, self._phase)
        if phase >= len(self.resolutions) - 1:
            return self.last, 1.0
        if within <= self.growth.training_images:
            return self.resolutions[phase], 1.0
        return self.resolutions[phase + 1], (within - self.growth.training_images) / self.growth.transition_images

    @cached_property
    def _starts(self) -> list[int]:
        """Images seen before the first step at each resolution; equal ones for resolutions that are passed over."""
        starts = [0]
        for k, resolution in enumerate(self.resolutions[1:]):
            # The first look at the schedule that comes after the last image of the stage before.
            last = k * self._phase + self.growth.training_images - (0 if self.growth.transition_images else 1)
            update = self._update(self.resolutions[k])
            updates = max(0, last - starts[-1]) // update + 1 if starts[-1] <= last else 0
            starts.append(starts[-1] + updates * update)
            assert self._at(starts[-1])[0] >= resolution
        return starts


def _check_resolution(size: int, where: str) -> None:
    if size < 4 or size & (size - 1):
        raise ValueError(f"{where}resolutions are powers of two from 4, not {size}")
