"""What a GPU does in a step: how many kernels it runs, and for how long."""

from __future__ import annotations

from typing import Any

from torch.autograd import DeviceType  # type: ignore[attr-defined]
from torch.profiler import ProfilerActivity, profile

__all__ = ["DeviceWork"]


class DeviceWork:
    """Counts kernels and copies on a GPU while it is entered.

    Where the GPU is busy for less than a step takes, the host bounds the speed: it starts one kernel after another.

    Args:
        steps: steps that are done meanwhile.

    Attributes:
        per_step: `kernels_per_step`, `gpu_milliseconds_per_step` for which they ran, and `slowest_kernel` with the
            milliseconds of a step that it takes; empty until the exit.
    """

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.per_step: dict[str, Any] = {}
        self._profile = profile(activities=[ProfilerActivity.CUDA])

    def __enter__(self) -> DeviceWork:
        self._profile.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._profile.__exit__(*error)
        events = [e for e in self._profile.events() or [] if e.device_type == DeviceType.CUDA]
        milliseconds: dict[str, float] = {}
        for event in events:
            spent = event.time_range.elapsed_us() / self.steps / 1000
            milliseconds[event.name] = milliseconds.get(event.name, 0.0) + spent
        name = max(milliseconds, key=milliseconds.__getitem__, default="")
        self.per_step = {
            "kernels_per_step": round(len(events) / self.steps),
            "gpu_milliseconds_per_step": round(sum(milliseconds.values()), 3),
            "slowest_kernel": f"{name[:80]}: {milliseconds.get(name, 0.0):.3f} ms",
        }
