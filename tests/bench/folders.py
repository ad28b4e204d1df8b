"""Run folders as `zoo fit` leaves them, written without a training, and their reports."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from tests.cli.parts import command

REAL = "real=mnist28-train-5000, fake=5000, weights=raw"
FEATURES = "features=classifier-mnist28, resize=none, pixels=8bit"


def protocol(metric: str, facts: str = REAL) -> str:
    """A protocol as metrics of images have it."""
    return f"{metric}[{FEATURES}, {facts}{', k=3' if metric in ('precision', 'recall') else ''}]"


def write_run(
    folder: Path,
    values: Mapping[str, float | tuple[float, str]] | None = None,
    *,
    seed: int = 0,
    history: Sequence[Mapping[str, Any]] = (),
    settings: Mapping[str, Any] | None = None,
    grid: int = 0,
    **facts: Any,
) -> Path:
    """A finished run; with `values=None` one that has begun.

    Args:
        folder: its folder.
        values: by metric a value, or a value with its protocol.
        seed: its seed.
        history: rows of metrics.csv.
        settings: further settings of config.yaml.
        grid: side of the grid of samples; 0 draws none.
        facts: of run.json, in place of the usual ones.
    """
    folder.mkdir(parents=True)
    config = {"seed_everything": seed, "model": {"class_path": "zoo.DCGAN"}, **(settings or {})}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    if history:
        with open(folder / "metrics.csv", "w", newline="") as file:
            writer = csv.DictWriter(file, list(dict.fromkeys(key for row in history for key in row)))
            writer.writeheader()
            writer.writerows(history)
    if grid:
        (folder / "samples").mkdir()
        pixels = np.random.default_rng(seed).integers(0, 256, (grid, grid, 3), np.uint8)
        for step in (0, 100):
            Image.fromarray(pixels // (2 if step else 1)).save(folder / "samples" / f"step-{step:08d}.png")
    if values is not None:
        found = {
            name: {"value": v[0], "protocol": v[1]}
            if isinstance(v, tuple)
            else {"value": v, "protocol": protocol(name)}
            for name, v in values.items()
        }
        usual: dict[str, Any] = {
            "model": "zoo.dcgan.DCGAN",
            "data": "mnist28",
            "parameters": {"generator": 1_000_000, "discriminator": 500_000, "generator_ema": 1_000_000},
            "steps": 100,
            "images": 6400,
            "seconds": 80.0,
            "training_seconds": 64.0 + seed,
            "training_images_per_second": 100.0 + seed,
            "peak_memory_bytes": 512 * 2**20,
            "devices": 1,
            "hardware": "2 CPU cores (x86_64)",
            "precision": "32-true",
            "commit": "0123abc",
            "versions": {"generative-zoo": "0.1.0", "torch": "2.14.1"},
        }
        (folder / "run.json").write_text(json.dumps({**usual, **facts, "values": found}))
    return folder


def write_suite(
    folder: Path, entries: Mapping[str, Sequence[float | Mapping[str, Any] | None]], notes: Mapping[str, str] = {}
) -> Path:
    """A suite's folder.

    Args:
        folder: the folder.
        entries: by entry what each seed has: its fd, its values, or None where the run has only begun.
        notes: texts by entry.
    """
    seeds = list(range(max(map(len, entries.values()))))
    suite = {
        "description": "handwritten digits of 28 pixels",
        "budget": {"minutes": 10},
        "seeds": seeds,
        "entries": {name: {"note": notes[name]} if name in notes else {} for name in entries},
    }
    folder.mkdir(parents=True)
    (folder / "suite.yaml").write_text(yaml.safe_dump(suite, sort_keys=False))
    for name, runs in entries.items():
        for seed, values in enumerate(runs):
            write_run(folder / f"{name}-{seed}", {"fd": values} if isinstance(values, float) else values, seed=seed)
    return folder


def report(*arguments: object, folder: str = "runs/bench/digits") -> tuple[dict[str, Any], str, dict[str, Any]]:
    """The leaderboard, its Markdown, and the data of its page."""
    assert command("bench", "report", *arguments) == 0
    files = {kind: (Path(folder) / f"leaderboard.{kind}").read_text() for kind in ("json", "md", "html")}
    return json.loads(files["json"], parse_constant=pytest.fail), files["md"], page_data(files["html"])


def page_data(page: str) -> dict[str, Any]:
    """What a browser would hand the page's script."""
    block = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    assert block is not None
    return dict(json.loads(block[1], parse_constant=pytest.fail))


def column(table: dict[str, Any], metric: str) -> dict[str, Any]:
    """The cells of a metric or cost by entry."""
    key = next(c["key"] for c in table["columns"] if metric in (c.get("metric"), c.get("cost")))
    return {row["entry"]: row["cells"][key] for row in table["rows"] if key in row["cells"]}
