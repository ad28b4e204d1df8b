"""What a GPU does in a step: how many kernels it runs, and for how long."""

from __future__ import annotations

from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

__all__ = ["DeviceWork"]


class DeviceWork:
    """Counts kernels and copies on a GPU while it is entered.

    Where the GPU is busy for less than a step takes, the host bounds the speed: it starts one kernel after another.

    Args:
        steps: steps that are done meanwhile.

    Attributes:
        per_step: `kernels_per_step`, and `gpu_milliseconds_per_step` for which they ran; empty until the exit.
    """

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.per_step: dict[str, float] = {}
        self._profile = profile(activities=[ProfilerActivity.CUDA])

    def __enter__(self) -> DeviceWork:
        self._profile.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._profile.__exit__(*error)  # type: ignore[arg-type]
        events = [e for e in self._profile.events() or [] if e.device_type == DeviceType.CUDA]
        self.per_step = {
            "kernels_per_step": round(len(events) / self.steps),
            "gpu_milliseconds_per_step": round(sum(e.time_range.elapsed_us() for e in events) / self.steps / 1000, 3),
        }
