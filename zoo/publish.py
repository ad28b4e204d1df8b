"""Publishing: from a run folder to weights, index entry, card and grid; and measuring published values again.

Nothing that is published is typed by hand. Values are measured from the file that is written.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import io
import json
import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import yaml

from zoo import cards, recipes
from zoo.loop import AtomicCheckpointIO
from zoo.pretrained import entry_of, index, load, picture, read, save, sha256, weights_folder, write

if TYPE_CHECKING:
    from zoo.base import GenerativeModel

__all__ = ["Verification", "publish", "verify"]

BUDGETS = ("smoke", "small", "paper")
MAX_FILE, MAX_TOTAL = 16 * 2**20, 40 * 2**20
FRECHET = "frechet_distance"
# Where data lies, and in which portions it comes, is no part of what it is.
LOCAL = ("data_dir", "cache_dir", "num_workers", "seed", "batch_size", "labelled_batch_size")


class _Measurement(NamedTuple):
    """What a run measured of its model: by what, with which arguments, and all (step, value)."""

    measure: str
    arguments: dict[str, Any]
    history: list[list[Any]]


def publish(run: Path, slug: str | None = None, *, out_dir: Path | None = None) -> list[Path]:
    """Make a checkpoint, its index entry, card and grid from a run folder; values are measured from the written file.

    Parameters are stored in float16 if 256 samples then differ by less than one grey level (1/255) from those of the
    float32 weights, else in float32. For a model that cannot sample reconstructions take the place of samples.

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
        real = _images(model, data, 256)
        reference, rounded = (_shown(m, real, 256) for m in (model, load(temporary)))
        difference = float((reference - rounded).abs().max()) * 127.5
        half = difference < 1
        information["stored"] = "float16" if half else "float32"
        pictures = "samples" if real is None else "reconstructions"
        information["rounding"] = f"{difference:.3f} grey levels at most over {len(reference)} {pictures}"
        if real is not None:
            information["pictures"] = pictures
        save(model, temporary, networks=networks, half=half)
        _check_size(slug, temporary, [p for p in target.glob("*.safetensors") if p not in (path, temporary)])
        published = load(temporary)
        information["metrics"] = [
            _measured(published, data, measure, arguments) | {"arguments": _portable(arguments), "history": history}
            for measure, arguments, history in _measurements(saved, config)
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
    shown = _shown(published, None if real is None else real[:32], 64)
    if real is not None:  # rows of images, each above the row of their reconstructions
        rows = zip(real[:32].split(8), shown.split(8), strict=True)
        shown = torch.cat([part for pair in rows for part in pair])
    picture(shown, 8).save(grid, "PNG")
    written = {
        target / f"{slug}.png": grid.getvalue(),
        target / f"{slug}.md": cards.card(slug, entry).encode(),
        target / "index.json": (
            json.dumps(dict(sorted((index(target) | {slug: entry}).items())), indent=1) + "\n"
        ).encode(),
    }
    for file, content in written.items():
        write(file, content)
    return [path, *written]


def _images(model: GenerativeModel, data: Any, count: int) -> torch.Tensor | None:
    """Real images for a model that can only reconstruct; None for one that samples."""
    try:
        model.sample(1, seed=0)
    except NotImplementedError as error:
        if not hasattr(model, "reconstruct"):
            raise ValueError(f"{error}, nor reconstruct: there is nothing to show of it") from error
        count = min(count, len(data.split("test")))
        ((_, batch),) = data.reference_batches(count, count, split="test")
        images: torch.Tensor = batch["image"]
        return images
    return None


def _shown(model: Any, real: torch.Tensor | None, count: int) -> torch.Tensor:
    """Samples of a model, or its reconstructions of real images."""
    images: torch.Tensor = model.sample(count, seed=0) if real is None else model.reconstruct(real)
    return images


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
    settings = {
        "class": config["data"]["class_path"],
        "init_args": {k: v for k, v in arguments.items() if k not in LOCAL},
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


def _measurements(saved: dict[str, Any], config: dict[str, Any]) -> Iterator[_Measurement]:
    """All that the run measured."""
    callbacks = config["trainer"]["callbacks"] or []
    for callback in callbacks if isinstance(callbacks, list) else [callbacks]:
        settings = callback.get("init_args", {})
        kind = callback["class_path"].rpartition(".")[2]
        # A module of the user's own as extractor is not at hand where the value is verified.
        if kind == "FrechetDistance" and isinstance(settings["extractor"], str):
            name = "inception" if settings["inception_weights"] else settings["extractor"]
            identity = {"extractor": name}
            options = ("num_samples", "extractor", "inception_weights", "split", "seed", "chunk_size")
            measure, arguments = FRECHET, {k: settings[k] for k in options}
        elif kind == "Measure":
            own = importlib.import_module("callbacks.measure").Measure(**settings)
            measure, arguments = own.measure, own.arguments
            identity = {"measure": measure, **arguments}
        else:
            continue
        state = _state(saved["callbacks"], kind, identity)
        yield _Measurement(measure, arguments, [list(pair) for pair in state.get("history", [])])


def _state(states: dict[str, Any], kind: str, identity: dict[str, Any]) -> dict[str, Any]:
    """State of a callback among those of a checkpoint, whatever the order of its arguments."""
    for key, state in states.items():
        with contextlib.suppress(ValueError, SyntaxError):
            if key.startswith(f"{kind}{{") and ast.literal_eval(key.removeprefix(kind)) == identity:
                found: dict[str, Any] = state
                return found
    return {}


def _portable(arguments: dict[str, Any]) -> dict[str, Any]:
    """Arguments of a measure without paths of the publisher's: each verifier has their own."""
    kept = {k: v for k, v in arguments.items() if k != "inception_weights"}
    if other := kept.get("other"):  # a second data set
        own = {k: v for k, v in other.get("init_args", {}).items() if k not in LOCAL}
        kept["other"] = {**other, "init_args": own}
    return kept


def _measured(model: GenerativeModel, data: Any, measure: str, arguments: dict[str, Any]) -> dict[str, Any]:
    if measure == FRECHET:
        function = importlib.import_module("callbacks.frechet_distance").frechet_distance
        percent = False
    else:
        measures = importlib.import_module("callbacks.measures")
        if measure not in measures.MEASURES:
            raise ValueError(f"a published value is of the measure {measure!r}, which this version does not have")
        function, percent = measures.MEASURES[measure], measure in measures.PERCENT
    result = function(model, data, **arguments)
    # Other processors round convolutions differently; 1 % is far more than that, and far less than a seed's worth.
    # Of a small error 1 % would be less than a single image.
    tolerance = max(0.01 * abs(result.value), 0.2 if percent else 0.0)
    return {
        "name": result.metric,
        "measure": measure,
        "value": result.value,
        **({"unit": "%"} if percent else {}),
        "protocol": result.protocol,
        "tolerance": tolerance,
    }


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
        unit: "%" or nothing.
    """

    name: str
    published: float
    measured: float
    tolerance: float
    protocol: str
    unit: str = ""

    @property
    def passed(self) -> bool:
        """Whether the two agree."""
        return abs(self.published - self.measured) <= self.tolerance

    def __str__(self) -> str:
        verdict = "agrees" if self.passed else "DIFFERS"
        metric = {"value": self.published, "unit": self.unit}
        return (
            f"{verdict}: {self.name} {cards.value(metric, self.measured)} measured, {cards.value(metric)} published "
            f"(tolerance {cards.value(metric, self.tolerance)})  {self.protocol}"
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
        measure, arguments = metric.get("measure", FRECHET), metric["arguments"]
        if measure == FRECHET:
            arguments = arguments | {"inception_weights": inception_weights if metric["name"] == "fid" else None}
        now = _measured(model, data, measure, arguments)
        if now["protocol"] != metric["protocol"]:
            raise ValueError(
                f"{slug} was measured as {metric['protocol']}, this installation measures {now['protocol']}"
            )
        values = metric["value"], now["value"], metric["tolerance"]
        results.append(Verification(metric["name"], *values, metric["protocol"], metric.get("unit", "")))
    return results
