"""The live page as static files: functions of checkpoints as ONNX files, and onnxruntime-web beside them.

The runtime is npm's package `onnxruntime-web`, which `make docs` puts into build/npm; nothing of it is kept here.
"""

from __future__ import annotations

import json
import shutil
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

import zoo
from docs.source import ROOT
from zoo.datamodules import Emoji
from zoo.demo.models import described
from zoo.demo.server import PAGE
from zoo.export.files import export_file
from zoo.export.functions import functions_of
from zoo.pretrained import index

__all__ = ["MODELS", "RUNTIME", "entries", "write"]

RUNTIME = ROOT / "build" / "npm" / "node_modules" / "onnxruntime-web" / "dist"
RUNTIME_FILES = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")

MODELS: dict[str, tuple[str, ...]] = {
    "dcgan-emoji32": ("generate",),
    "vae-mnist28": ("generate", "reconstruct"),
    "classifier-mnist28": ("classify",),
    "infogan-mnist28": ("generate",),
    "stargan-emoji64": ("translate",),
    "cyclegan-openmoji2noto64": ("translate:openmoji", "translate:noto"),
    "dcgan-emoji64": ("generate",),
    "sngan-emoji32": ("generate",),
    "sngan-emoji64": ("generate",),
    "sngan-clothing64": ("generate",),
    "sngan-fashionmnist32": ("generate",),
    "wgan_gp-fashionmnist32": ("generate",),
    "progressive_gan-emoji64": ("generate",),
    "projection_text2image-emoji64": ("generate", "encode_text"),
}
"""Checkpoints of the page, the first one first, with the functions that it needs."""

EXAMPLES = 8
"""Pictures to translate."""


def entries() -> list[dict[str, Any]]:
    """What models.json says of each model; files are named after checkpoint and function."""
    found = []
    for slug, functions in MODELS.items():
        data = str(index()[slug]["data"]["class"]).rpartition(".")[2]
        entry = described(zoo.load(slug), slug, data)
        entry["functions"] = {
            name: entry["functions"][name] | {"file": f"models/{slug}-{name.replace(':', '-')}.onnx"}
            for name in functions
        }
        if entry["domains"]:
            entry["credit"] = "Examples: Noto Emoji, Apache-2.0"
            entry["examples"] = [f"examples/{i}.png" for i in range(EXAMPLES)]
        found.append(entry)
    return found


def write(folder: Path, runtime: Path = RUNTIME) -> None:
    """Write the page with all that it loads.

    Args:
        folder: an empty folder, or one that does not exist.
        runtime: folder of onnxruntime-web's files.

    Raises:
        FileNotFoundError: the runtime is not there.
    """
    for name in RUNTIME_FILES:
        if not (runtime / name).is_file():
            raise FileNotFoundError(f"{runtime / name} is missing: npm install --prefix build/npm onnxruntime-web")
    (folder / "models").mkdir(parents=True, exist_ok=True)
    (folder / "ort").mkdir()
    (folder / "examples").mkdir()
    for name in PAGE:
        (folder / name).write_bytes((files("zoo.demo") / "page" / name).read_bytes())
    for name in RUNTIME_FILES:
        shutil.copy(runtime / name, folder / "ort" / name)
    listed = entries()
    for entry in listed:
        model = zoo.load(entry["slug"])
        for name, function in functions_of(model).items():
            if name in entry["functions"]:
                export_file(model, function, folder / entry["functions"][name]["file"], form="onnx", dynamic_batch=True)
    _examples(folder / "examples")
    (folder / "models.json").write_text(json.dumps({"backend": "onnx", "models": listed}, indent=1))


def _examples(folder: Path) -> None:
    """Emoji of the test split, which no model has seen."""
    data = Emoji(image_size=64, vendors=["noto"], fit_to_frame=True)
    data.prepare_data()
    data.setup("test")
    split = data.split("test")
    images = split.batch(torch.arange(EXAMPLES) * (len(split) // EXAMPLES))["image"]
    for i, image in enumerate(images):
        zoo.grid(image.unsqueeze(0)).save(folder / f"{i}.png")
