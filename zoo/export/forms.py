"""Forms of exported files. Nothing here imports torch."""

from __future__ import annotations

__all__ = ["ENDINGS", "PACKAGES"]

ENDINGS = {"onnx": ".onnx", "torch_export": ".pt2"}
"""How the name of a file ends, by its form."""
PACKAGES: dict[str, tuple[str, ...]] = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "torch_export": ()}
"""What a form needs beside torch."""
