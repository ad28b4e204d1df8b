"""What a measured value depends on besides the code: commit, versions, hardware."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from zoo.engine.devices import processor

RESULTS = Path(__file__).parent / "results"


def commit() -> str:
    """The commit of the working tree, with `+changes` if tracked files differ from it."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(RESULTS.parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        # Results themselves and other people's pages do not change what was measured.
        changed = git(
            "status", "--porcelain", "--untracked-files=no", "--", ":/zoo", ":/callbacks", ":/benchmarks/*.py"
        )
        return git("rev-parse", "--short=10", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def environment(device: torch.device) -> dict[str, Any]:
    """Commit, versions and hardware, as plain types."""
    hardware: dict[str, Any] = {
        "cpu": processor(),
        "cores": os.cpu_count(),
        "capability": torch.backends.cpu.get_cpu_capability(),
    }
    versions = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "lightning": version("lightning"),
    }
    found: dict[str, Any] = {"commit": commit(), "versions": versions, "hardware": hardware}
    if device.type == "cuda":
        hardware["gpu"] = torch.cuda.get_device_name(device)
        versions |= {"cuda": torch.version.cuda or "", "cudnn": str(torch.backends.cudnn.version())}
        state = gpu_state()
        versions["driver"] = state.pop("driver_version", "")
        found["clocks"] = state
        found["float32"] = float32_settings()
    return found


def float32_settings() -> dict[str, Any]:
    """How CUDA computes in float32 now."""
    return {
        "convolutions_in_tf32": torch.backends.cudnn.allow_tf32,
        "matmul_precision": torch.get_float32_matmul_precision(),
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
    }


def gpu_state() -> dict[str, str]:
    """Driver, clocks in MHz, and watts of the first GPU, as the driver's own tool says; empty without the tool."""
    names = ["driver_version", "clocks.sm", "clocks.max.sm", "clocks.mem", "power.draw", "power.limit"]
    command = ["nvidia-smi", "--id=0", f"--query-gpu={','.join(names)}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return {}
    return dict(zip(names, (value.strip() for value in done.stdout.split(",")), strict=False))
