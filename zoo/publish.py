"""Publishing: from a run folder to weights, index entry, card and grid; and measuring published values again.

Nothing that is published is typed by hand. Values are measured from the file that is written.
"""

from __future__ import annotations

import importlib
import io
import json
import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from zoo import recipes
from zoo.loop import AtomicCheckpointIO
from zoo.pretrained import entry_of, index, load, picture, read, save, sha256, weights_folder, write

if TYPE_CHECKING:
    import torch

    from zoo.base import GenerativeModel

__all__ = ["Verification", "publish", "verify"]

BUDGETS = ("smoke", "small", "paper")
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
        OSError: the files cannot be written.
        ValueError: there is no name, the configuration is not that of a run, or the file would be larger than 16 MiB,
            or all together than 40 MiB.
    """
    config_path, checkpoint = run / "config.yaml", run / "checkpoints" / "last.ckpt"
    for path in (config_path, checkpoint):
        if not path.exists():
            raise FileNotFoundError(f"{run} is no run with a checkpoint: {path} is missing")
    slug = _name(run, slug)
    target = out_dir or weights_folder()
    _check_writable(target)

    config = yaml.safe_load(config_path.read_text())
    saved = AtomicCheckpointIO().load_checkpoint(checkpoint)
    model = load(checkpoint)
    try:
        information, data = _information(run, slug, config, saved)
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{config_path} is not the configuration of a run: {error} is missing or no mapping"
        ) from error

    networks = list(model.inference_networks)
    path = target / f"{slug}.safetensors"
    temporary = target / f".{slug}.new.safetensors"
    try:
        save(model, temporary, networks=networks, half=True)
        reference, rounded = (m.sample(256, seed=0) for m in (model, load(temporary)))
        difference = float((reference - rounded).abs().max()) * 127.5
        half = difference < 1
        information["stored"] = "float16" if half else "float32"
        information["rounding"] = f"{difference:.3f} grey levels at most over 256 samples"
        save(model, temporary, networks=networks, half=half)
        _check_size(slug, temporary, [p for p in target.glob("*.safetensors") if p not in (path, temporary)])
        published = load(temporary)
        information["metrics"] = [
            _measured(published, data, arguments)
            # The path of FID's weights is the publisher's; each verifier has their own.
            | {"arguments": {k: v for k, v in arguments.items() if k != "inception_weights"}, "history": history}
            for arguments, history in _distances(saved, config)
        ]
        save(model, temporary, networks=networks, half=half, information=information)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)

    header, _ = read(path)
    entry = {
        "file": path.name,
        "sha256": sha256(path),
        "bytes": path.stat().st_size,
        "parameters": sum(p.numel() for n in networks for p in getattr(model, n).parameters()),
        **header,
    }
    grid = io.BytesIO()
    picture(published.sample(64, seed=0), 8).save(grid, "PNG")
    written = {
        target / f"{slug}.png": grid.getvalue(),
        target / f"{slug}.md": _card(slug, entry).encode(),
        target / "index.json": (
            json.dumps(dict(sorted((index(target) | {slug: entry}).items())), indent=1) + "\n"
        ).encode(),
    }
    for file, content in written.items():
        write(file, content)
    return [path, *written]


def _name(run: Path, slug: str | None) -> str:
    """Name of the checkpoint of a run."""
    stem, _, budget = run.resolve().name.rpartition("-")
    if slug is None and (not stem or budget not in BUDGETS):
        raise ValueError(
            f"{run} is not named after a recipe (<name>-{'|'.join(BUDGETS)}): name the checkpoint with --slug"
        )
    slug = slug or stem
    if not re.fullmatch(r"[a-z0-9_]+(-[a-z0-9_]+)*", slug):
        raise ValueError(
            f"{slug!r} is no name of a checkpoint: take small letters, digits, - and _, as in dcgan-emoji32"
        )
    return slug


def _check_writable(target: Path) -> None:
    try:
        target.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=target):
            pass
    except OSError as error:
        raise OSError(f"cannot write to {target}: {error.strerror or error}; take another --out_dir") from error


def _check_size(slug: str, path: Path, others: list[Path]) -> None:
    size, rest = path.stat().st_size, sum(other.stat().st_size for other in others)
    if size > MAX_FILE or size + rest > MAX_TOTAL:
        raise ValueError(
            f"{slug} has {size / 2**20:.1f} MiB, all together {(size + rest) / 2**20:.1f} MiB; at most "
            f"{MAX_FILE >> 20} and {MAX_TOTAL >> 20} MiB are allowed: train a narrower network"
        )


def _information(run: Path, slug: str, config: dict[str, Any], saved: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """What the header says of the training, and the DataModule."""
    arguments = config["data"]["init_args"]
    # Where the data lies, and in which portions it came, is no part of what it is.
    local = ("data_dir", "cache_dir", "num_workers", "seed", "batch_size")
    settings = {
        "class": config["data"]["class_path"],
        "init_args": {k: v for k, v in arguments.items() if k not in local},
    }
    data = _data(settings, arguments.get("data_dir"))
    information = {
        "slug": slug,
        **_recipe(run, config),
        "training": {
            "steps": saved["global_step"],
            "seed": saved["zoo"]["seed"],
            "batch_size": arguments["batch_size"],
            "precision": config["trainer"]["precision"] or "32-true",
            "seconds": saved["zoo"].get("seconds"),
            "hardware": saved["zoo"].get("hardware"),
        },
        "data": {"name": data.name, "licence": data.licence, **settings},
    }
    return information, data


def _recipe(run: Path, config: dict[str, Any]) -> dict[str, Any]:
    """The recipe after which the run is named, and where the run departs from it."""
    name = run.resolve().name
    if name not in recipes.list_recipes():
        return {"recipe": None, "changed": {}}
    settings = yaml.safe_load(recipes.find(name).read_text())
    return {"recipe": name, "changed": dict(_changed(settings, config))}


def _changed(recipe: Any, config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Keys of a recipe that a configuration sets to something else, with what it sets."""
    if isinstance(recipe, dict | list) and type(recipe) is type(config):
        for key, value in recipe.items() if isinstance(recipe, dict) else enumerate(recipe):
            held = key in config if isinstance(config, dict) else key < len(config)
            yield from _changed(value, config[key] if held else None, f"{prefix}.{key}".lstrip("."))
    elif recipe != config:
        yield prefix, config


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


def _distances(saved: dict[str, Any], config: dict[str, Any]) -> Iterator[tuple[dict[str, Any], list[Any]]]:
    """Arguments and history of each Fréchet distance of the run."""
    callbacks = config["trainer"]["callbacks"] or []
    for callback in callbacks if isinstance(callbacks, list) else [callbacks]:
        settings = callback.get("init_args", {})
        # A module of the user's own as extractor is not at hand where the value is verified.
        if callback["class_path"].rpartition(".")[2] == "FrechetDistance" and isinstance(settings["extractor"], str):
            name = "inception" if settings["inception_weights"] else settings["extractor"]
            state = saved["callbacks"].get(f"FrechetDistance{ {'extractor': name} }", {})
            arguments = {
                k: settings[k] for k in ("num_samples", "extractor", "inception_weights", "split", "seed", "chunk_size")
            }
            yield arguments, [list(pair) for pair in state.get("history", [])]


def _measured(model: GenerativeModel, data: Any, arguments: dict[str, Any]) -> dict[str, Any]:
    measure = importlib.import_module("callbacks.frechet_distance").frechet_distance
    result = measure(model, data, **arguments)
    # Other processors round convolutions differently; 1 % is far more than that, and far less than a seed's worth.
    return {
        "name": result.metric,
        "value": result.value,
        "protocol": result.protocol,
        "tolerance": 0.01 * result.value,
    }


def _card(slug: str, entry: dict[str, Any]) -> str:
    """The card, from the index entry alone."""
    training, data = entry["training"], entry["data"]
    recipe = f"`zoo fit --config {entry['recipe']}`" if entry["recipe"] else "none: the run's own configuration"
    if entry["changed"]:
        recipe += " with " + ", ".join(f"`{key}={value}`" for key, value in entry["changed"].items())
    rows = [
        ("class", f"`{entry['class']}`"),
        ("hyperparameters", ", ".join(f"`{k}={v}`" for k, v in entry["hparams"].items())),
        ("parameters", f"{entry['parameters']:,} in {', '.join(entry['networks'])}"),
        ("recipe", recipe),
        ("data", f"{data['name']}, licence {data['licence']}"),
        (
            "training",
            f"{training['steps']:,} steps of {training['batch_size']} images, {training['precision']}, "
            f"seed {training['seed']}",
        ),
    ]
    if training["seconds"]:
        rows.append(("time", f"{training['seconds'] / 60:.0f} minutes with measurements on {training['hardware']}"))
    rows += [
        ("file", f"{entry['bytes'] / 2**20:.1f} MiB, {entry['stored']}"),
        ("float16", f"changes samples by {entry['rounding']}; it is taken where that is below 1"),
        ("sha256", f"`{entry['sha256']}`"),
        ("written by", ", ".join(f"{name} {version}" for name, version in entry["versions"].items())),
    ]
    lines = [f"# {slug}", "", f"![64 samples, seed 0, not selected]({slug}.png)", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in rows]
    if entry["metrics"]:
        lines += ["", "## Measured", "", "| value | tolerance | protocol |", "|---|---|---|"]
        lines += [
            f"| {m['name']} {m['value']:.1f} | ±{m['tolerance']:.1f} | `{m['protocol']}` |" for m in entry["metrics"]
        ]
        for metric in entry["metrics"]:
            if metric["history"]:
                history = ", ".join(f"{value:.1f} at step {step:,}" for step, value in metric["history"])
                lines += ["", f"{metric['name']} during training: {history}."]
        lines += ["", f"`zoo verify {slug}` measures again."]
    lines += ["", "## Use", "", "```python", "import zoo", "", f'model = zoo.load("{slug}")']
    lines += ["images = model.sample(64, seed=0)  # (N, C, H, W) in [-1, 1]", "```", ""]
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


def verify(
    slug: str,
    *,
    data_dir: str | None = None,
    device: str | torch.device = "cpu",
    inception_weights: str | None = None,
) -> list[Verification]:
    """Measure all published values of a checkpoint again.

    Args:
        slug: name of the checkpoint.
        data_dir: folder of the data set, where the package does not carry it.
        device: where to compute.
        inception_weights: path of FID's weights, where a published value is FID.

    Raises:
        LookupError: there is no such checkpoint.
        ValueError: nothing was published, this installation measures something else, or FID's weights are missing.
    """
    entry = entry_of(slug)
    if not entry["metrics"]:
        raise ValueError(f"{slug} was published without a measured value: there is nothing to verify")
    if inception_weights is None and any(m["name"] == "fid" for m in entry["metrics"]):
        raise ValueError(f"a published value of {slug} is FID: give the path of its inception_weights")
    model = load(slug, device=device)
    data = _data(entry["data"], data_dir)
    results = []
    for metric in entry["metrics"]:
        weights = inception_weights if metric["name"] == "fid" else None
        now = _measured(model, data, metric["arguments"] | {"inception_weights": weights})
        if now["protocol"] != metric["protocol"]:
            raise ValueError(
                f"{slug} was measured as {metric['protocol']}, this installation measures {now['protocol']}"
            )
        results.append(
            Verification(metric["name"], metric["value"], now["value"], metric["tolerance"], metric["protocol"])
        )
    return results
