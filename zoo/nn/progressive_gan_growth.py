"""Growth by images seen: which resolution, how far faded in, and how many images per step.

The networks of a progressive GAN train at one resolution for a number of images, then fade in the layers of the next
one over another number, and so on. Everything here is a function of the number of images seen alone, so that a resumed
run, or one on another number of devices, goes on with the same schedule.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

__all__ = ["Growth"]


@dataclass(frozen=True)
class Growth:
    """The schedule of Karras et al. 2018.

    With T images of training, F of transition and D = T + F, image n lies in phase n div D. In the first T images of
    phase k stage k trains alone; in the next F stage k + 1 fades in with alpha = (n mod D - T) / F. After the last
    stage's fade nothing changes any more.

    Attributes:
        first: resolution at which training starts.
        last: resolution of the grown networks.
        training_images: T.
        transition_images: F; 0 adds layers at once.
        batch_size: images per step over all devices.
        batch_sizes: others at some resolutions.
        repeats: steps for which the schedule stands still; it is looked at anew before each group of so many.

    Raises:
        ValueError: a number is too small, or a resolution is none of the model's.

    References:
        Karras et al. 2018, section 2 and appendix A.1.
    """

    first: int
    last: int
    training_images: int
    transition_images: int
    batch_size: int
    batch_sizes: Mapping[int, int] = field(default_factory=dict)
    repeats: int = 1

    def __post_init__(self) -> None:
        for name in ("first", "last"):
            size = getattr(self, name)
            if size < 4 or size & (size - 1):
                raise ValueError(f"resolutions are powers of two from 4, not {size}")
        if self.first > self.last:
            raise ValueError(f"the first resolution {self.first} is larger than the last, {self.last}")
        if self.training_images < 0 or self.transition_images < 0 or self.phase_images < 1:
            raise ValueError(
                "training_images and transition_images must not be negative, and not both 0: "
                f"{self.training_images}, {self.transition_images}"
            )
        for size in self.batch_sizes:
            # Those of smaller and larger networks than this one may be given: presets serve all sizes.
            if size < 4 or size & (size - 1):
                raise ValueError(f"batch sizes are given by resolution, a power of two from 4; {size} is none")
        if min([self.batch_size, self.repeats, *self.batch_sizes.values()]) < 1:
            raise ValueError("batch sizes and repeats must be at least 1")

    @property
    def phase_images(self) -> int:
        """Images of one phase, training and transition."""
        return self.training_images + self.transition_images

    @cached_property
    def resolutions(self) -> list[int]:
        """All resolutions from the first to the last."""
        return [self.first << k for k in range((self.last // self.first).bit_length())]

    def batch(self, resolution: int) -> int:
        """Images per step at a resolution, over all devices."""
        return self.batch_sizes.get(resolution, self.batch_size)

    def __call__(self, images_seen: int) -> tuple[int, float, int]:
        """Resolution, alpha and global batch size of the step that starts after so many images.

        alpha is 1 where a stage trains alone. Within a group of `repeats` steps the answer is that at its start.
        """
        k = bisect_right(self._starts, images_seen) - 1
        group = self.repeats * self.batch(self.resolutions[k])
        at = self._starts[k] + (images_seen - self._starts[k]) // group * group
        resolution, alpha = self._at(at)
        return resolution, alpha, self.batch(resolution)

    def _at(self, images: int) -> tuple[int, float]:
        phase, within = divmod(images, self.phase_images)
        if phase >= len(self.resolutions) - 1:
            return self.last, 1.0
        if within <= self.training_images:
            return self.resolutions[phase], 1.0
        return self.resolutions[phase + 1], (within - self.training_images) / self.transition_images

    @cached_property
    def _starts(self) -> list[int]:
        """Images seen before the first step at each resolution; equal ones for resolutions that are passed over."""
        starts = [0]
        for k, resolution in enumerate(self.resolutions[1:]):
            # The first group that starts behind the last image of the stage before.
            last = k * self.phase_images + self.training_images - (0 if self.transition_images else 1)
            group = self.repeats * self.batch(self.resolutions[k])
            groups = max(0, last - starts[-1]) // group + 1 if starts[-1] <= last else 0
            starts.append(starts[-1] + groups * group)
            assert self._at(starts[-1])[0] >= resolution
        return starts
