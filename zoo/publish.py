"""Publishing: from a run folder to weights, index entry, card and grid.

Nothing that is published is typed by hand. Values are measured from the file that is written.
"""

from __future__ import annotations

import io
import json
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml

from zoo import cards, recipes
from zoo.loop import AtomicCheckpointIO
from zoo.pretrained import index, load, picture, read, save, sha256, weights_folder, write
from zoo.verification import LOCAL, data_module, measured, measurements, portable

if TYPE_CHECKING:
    from zoo.base import GenerativeModel

__all__ = ["publish"]

BUDGETS = ("smoke", "small", "paper")
MAX_FILE, MAX_TOTAL = 16 * 2**20, 40 * 2**20


def publish(run: Path, slug: str | None = None, *, out_dir: Path | None = None) -> list[Path]:
    """Make a checkpoint, its index entry, card and grid from a run folder; values are measured from the written file.

    Parameters are stored in float16 if 256 samples then differ by less than one grey level (1/255) from those of the
    float32 weights, else in float32. For a model that cannot sample, reconstructions or images assembled of patches
    take the place of samples.

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
        pictures, batch = _pictures(model, data, 256)
        reference, rounded = (_shown(m, pictures, batch, 256) for m in (model, load(temporary)))
        difference = float((reference - rounded).abs().max()) * 127.5
        half = difference < 1
        information["stored"] = "float16" if half else "float32"
        information["rounding"] = f"{difference:.3f} grey levels at most over {len(reference)} {pictures}"
        if batch:
            information["pictures"] = pictures
        save(model, temporary, networks=networks, half=half)
        _check_size(slug, temporary, [p for p in target.glob("*.safetensors") if p not in (path, temporary)])
        published = load(temporary)
        information["metrics"] = [
            measured(published, data, measure, arguments) | {"arguments": portable(arguments), "history": history}
            for measure, arguments, history in measurements(saved, config)
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
    batch = {name: values[:32] for name, values in batch.items()}
    shown = _shown(published, pictures, batch, 64)
    if batch:  # rows of images, each above the row of what is made of them
        rows = zip(_real(batch).split(8), shown.split(8), strict=True)
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


def _pictures(model: GenerativeModel, data: Any, count: int) -> tuple[str, dict[str, Any]]:
    """What is shown of a model, and the batch that it is made of: an empty one for a model that samples."""
    try:
        model.sample(1, seed=0)
    except NotImplementedError as error:
        kinds = {"reconstruct": "reconstructions", "assemble": "assembled images"}
        pictures = next((kinds[name] for name in kinds if hasattr(model, name)), None)
        if pictures is None:
            raise ValueError(f"{error}, nor reconstruct: there is nothing to show of it") from error
        count = min(count, len(data.split("test")))
        ((_, batch),) = data.reference_batches(count, count, split="test")
        return pictures, batch
    return "samples", {}


def _real(batch: dict[str, Any]) -> torch.Tensor:
    """The images of a batch."""
    images: torch.Tensor = batch["image"] if "image" in batch else batch["image_a"]
    return images


def _shown(model: Any, pictures: str, batch: dict[str, Any], count: int) -> torch.Tensor:
    """Samples of a model, its reconstructions of real images, or what it makes of their patches."""
    images: torch.Tensor
    if pictures == "samples":
        images = model.sample(count, seed=0)
    elif pictures == "reconstructions":
        images = model.reconstruct(_real(batch))
    else:
        images, _ = model.assemble(batch["patches"], seed=0)
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
    data = data_module(settings, arguments.get("data_dir"))
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
