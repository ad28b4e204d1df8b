"""Publishing: from a run folder to weights, index entry, card and grid; and measuring published values again.

Nothing that is published is typed by hand. Values are measured from the file that is written.
"""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from zoo.loop import AtomicCheckpointIO
from zoo.pretrained import entry_of, index, load, picture, save, sha256, weights_folder

if TYPE_CHECKING:
    import torch

    from zoo.base import GenerativeModel

__all__ = ["Verification", "publish", "verify"]

MAX_FILE, MAX_TOTAL = 16 * 2**20, 40 * 2**20


def publish(run: Path, slug: str | None = None, *, out_dir: Path | None = None) -> list[Path]:
    """Make a checkpoint, its index entry, card and grid from a run folder; values are measured from the written file.

    Parameters are stored in float16 if 256 samples then differ by less than one grey level (1/255) from those of the
    float32 weights, else in float32.

    Args:
        run: folder of a finished run.
        slug: name of the checkpoint; by default the recipe's without its budget.
        out_dir: where the files go; by default `zoo/weights` of this installation.

    Returns:
        The files written.

    Raises:
        FileNotFoundError: the folder is no run, or has no checkpoint.
        ValueError: the file would be larger than 16 MiB, or all together than 40 MiB.
    """

    config_path, checkpoint = run / "config.yaml", run / "checkpoints" / "last.ckpt"
    for path in (config_path, checkpoint):
        if not path.exists():
            raise FileNotFoundError(f"{run} is no run with a checkpoint: {path} is missing")
    config = yaml.safe_load(config_path.read_text())
    saved = AtomicCheckpointIO().load_checkpoint(checkpoint)
    slug = slug or run.name.rpartition("-")[0]
    target = out_dir or weights_folder()
    target.mkdir(parents=True, exist_ok=True)
    if not os.access(target, os.W_OK):
        raise PermissionError(f"no permission to write to {target}: take another --out_dir")

    model = load(checkpoint)
    data_settings = {
        "class": config["data"]["class_path"],
        "init_args": {
            k: v
            for k, v in config["data"]["init_args"].items()
            if k not in ("data_dir", "cache_dir", "num_workers", "seed", "batch_size")
        },
    }
    data = _data(data_settings, config["data"]["init_args"].get("data_dir"))
    information: dict[str, Any] = {
        "slug": slug,
        "recipe": run.name,
        "training": {
            "steps": saved["global_step"],
            "seed": saved["zoo"]["seed"],
            "batch_size": config["data"]["init_args"]["batch_size"],
            "precision": config["trainer"]["precision"],
            "seconds": saved["zoo"].get("seconds"),
            "hardware": saved["zoo"].get("hardware"),
        },
        "data": {"name": data.name, "licence": data.licence, **data_settings},
    }
    networks = list(model.inference_networks)
    path = target / f"{slug}.safetensors"
    temporary = target / f".{slug}.new.safetensors"
    try:
        save(model, temporary, networks=networks, half=True, information=information)
        reference, rounded = (m.sample(256, seed=0) for m in (model, load(temporary)))
        difference = float((reference - rounded).abs().max()) * 127.5
        half = difference < 1
        information["stored"] = "float16" if half else "float32"
        save(model, temporary, networks=networks, half=half, information=information)
        others = sum(
            p.stat().st_size for p in target.glob("*.safetensors") if p.name not in (path.name, temporary.name)
        )
        size = temporary.stat().st_size
        if size > MAX_FILE or size + others > MAX_TOTAL:
            raise ValueError(
                f"{slug} has {size / 2**20:.1f} MiB, all together {(size + others) / 2**20:.1f} MiB; at most "
                f"{MAX_FILE >> 20} and {MAX_TOTAL >> 20} MiB are allowed: train a narrower network"
            )
        published = load(temporary)
        metrics = [_measured(published, data, state) for state in _distances(saved, config)]
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    grid = target / f"{slug}.png"
    picture(published.sample(64, seed=0), 8).save(grid)
    entry = {
        "file": path.name,
        "sha256": sha256(path),
        "bytes": path.stat().st_size,
        "class": f"{type(model).__module__}.{type(model).__qualname__}",
        "parameters": sum(p.numel() for n in networks for p in getattr(model, n).parameters()),
        "rounding": f"{difference:.3f} grey levels at most over 256 samples" if half else "none",
        "hparams": dict(published.hparams),
        "networks": networks,
        **information,
        "metrics": metrics,
    }
    entries = index(target) | {slug: json.loads(json.dumps(entry))}
    (target / "index.json").write_text(json.dumps(dict(sorted(entries.items())), indent=1) + "\n")
    (target / f"{slug}.md").write_text(_card(slug, entries[slug]))
    return [path, target / "index.json", target / f"{slug}.md", grid]


def _data(settings: dict[str, Any], data_dir: str | None) -> Any:
    """The DataModule of a checkpoint, ready for measuring."""
    module, _, name = settings["class"].rpartition(".")
    if module.partition(".")[0] != "datamodules":
        raise ValueError(f"the data class {settings['class']!r} is not of the package datamodules")
    folder = {} if data_dir is None else {"data_dir": data_dir}
    data = getattr(importlib.import_module(module), name)(**settings["init_args"], **folder)
    data.prepare_data()
    data.setup()
    return data


def _distances(saved: dict[str, Any], config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Arguments and history of each Fréchet distance of the run."""
    states = [state for key, state in saved["callbacks"].items() if key.startswith("FrechetDistance")]
    callbacks = config["trainer"]["callbacks"] or []
    callbacks = [c for c in callbacks if c["class_path"].endswith("FrechetDistance")]
    for state, callback in zip(states, callbacks, strict=True):
        settings = callback["init_args"]
        yield {
            "arguments": {k: settings[k] for k in ("num_samples", "split", "seed", "chunk_size")},
            "history": [list(pair) for pair in state["history"]],
        }


def _measured(model: GenerativeModel, data: Any, distance: dict[str, Any]) -> dict[str, Any]:
    measure = importlib.import_module("callbacks.frechet_distance").frechet_distance
    result = measure(model, data, **distance["arguments"])
    # Other processors round convolutions differently; 1 % is far more than that, and far less than a seed's worth.
    return {
        "name": result.metric,
        "value": result.value,
        "protocol": result.protocol,
        "tolerance": 0.01 * result.value,
        **distance,
    }


def _card(slug: str, entry: dict[str, Any]) -> str:
    """The card, from the index entry alone."""
    training, data = entry["training"], entry["data"]
    rows = [
        ("class", f"`{entry['class']}`"),
        ("hyperparameters", ", ".join(f"`{k}={v}`" for k, v in entry["hparams"].items())),
        ("parameters", f"{entry['parameters']:,} in {', '.join(entry['networks'])}"),
        ("recipe", f"`zoo fit --config {entry['recipe']}`"),
        ("data", f"{data['name']}, licence {data['licence']}"),
        (
            "training",
            f"{training['steps']:,} steps of {training['batch_size']} images, {training['precision']}, "
            f"seed {training['seed']}",
        ),
    ]
    if training.get("seconds"):
        rows.append(("time", f"{training['seconds'] / 60:.0f} minutes with measurements on {training['hardware']}"))
    rows += [
        (
            "file",
            f"{entry['bytes'] / 2**20:.1f} MiB, {entry['stored']}; rounding changes samples by {entry['rounding']}",
        ),
        ("sha256", f"`{entry['sha256']}`"),
    ]
    lines = [f"# {slug}", "", f"![64 samples, seed 0, not selected]({slug}.png)", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in rows]
    lines += ["", "## Measured", "", "| value | tolerance | protocol |", "|---|---|---|"]
    for metric in entry["metrics"]:
        lines.append(
            f"| {metric['name']} {metric['value']:.1f} | ±{metric['tolerance']:.1f} | `{metric['protocol']}` |"
        )
        history = ", ".join(f"{value:.1f} at step {step:,}" for step, value in metric["history"])
        lines += ["", f"During training: {history}."]
    lines += ["", f"`zoo verify {slug}` measures it again.", "", "## Use", "", "```python", "import zoo"]
    lines += [f'model = zoo.load("{slug}")', "images = model.sample(64, seed=0)  # (N, C, H, W) in [-1, 1]", "```", ""]
    return "\n".join(lines)


# Verifying -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verification:
    """A published value beside a new measurement.

    Attributes:
        name: name of the metric.
        published: published value.
        measured: value measured now.
        tolerance: largest difference that is accepted.
        protocol: what both mean.
    """

    name: str
    published: float
    measured: float
    tolerance: float
    protocol: str

    @property
    def passed(self) -> bool:
        """Whether the two agree."""
        return abs(self.published - self.measured) <= self.tolerance

    def __str__(self) -> str:
        verdict = "agrees" if self.passed else "DIFFERS"
        return (
            f"{verdict}: {self.name} {self.measured:.2f} measured, {self.published:.2f} published "
            f"(tolerance {self.tolerance:.2f})  {self.protocol}"
        )


def verify(slug: str, *, data_dir: str | None = None, device: str | torch.device = "cpu") -> list[Verification]:
    """Measure all published values of a checkpoint again.

    Args:
        slug: name of the checkpoint.
        data_dir: folder of the data set, where the package does not carry it.
        device: where to compute.

    Raises:
        LookupError: there is no such checkpoint.
    """
    entry = entry_of(slug)
    model = load(slug, device=device)
    data = _data(entry["data"], data_dir)
    results = []
    for metric in entry["metrics"]:
        now = _measured(model, data, {"arguments": metric["arguments"], "history": []})
        if now["protocol"] != metric["protocol"]:
            raise ValueError(
                f"{slug} was measured as {metric['protocol']}, this installation measures {now['protocol']}"
            )
        results.append(
            Verification(metric["name"], metric["value"], now["value"], metric["tolerance"], metric["protocol"])
        )
    return results
