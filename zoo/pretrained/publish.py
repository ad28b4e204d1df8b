"""Publishing: from a run folder to weights, index entry, card and grid.

Nothing that is published is typed by hand. Values are measured from the file that is written.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import yaml

from zoo import recipes
from zoo.base import GenerativeModel
from zoo.engine.checkpoint import AtomicCheckpointIO
from zoo.engine.files import data_home
from zoo.engine.images import image_grid
from zoo.pretrained import cards, index, load, save, sha256, weights_folder
from zoo.pretrained.adding import add, check_free, check_name, check_writable
from zoo.pretrained.files import header, restate
from zoo.pretrained.migrations import current_names
from zoo.pretrained.preview import preview_of
from zoo.pretrained.registries import registries
from zoo.pretrained.trust import Trust
from zoo.pretrained.verify import LOCAL, PLACES, data_module, measured, measurements

__all__ = ["name_of_run", "publish", "republish"]

BUDGETS = ("smoke", "small", "paper")
MAX_FILE, MAX_TOTAL = 16 * 2**20, 68 * 2**20


def publish(
    run: Path,
    slug: str | None = None,
    *,
    out_dir: Path | None = None,
    note: str | None = None,
    selected: str | None = None,
    full: bool = False,
    trust: Trust = (),
    force: bool = False,
) -> list[Path]:
    """Make a checkpoint, its index entry, card and grid from a run folder; values are measured from the written file.

    Parameters are stored in float16 if the samples then differ from those of the float32 weights by less than rounding
    to 8 bits changes them (0.29 grey levels, root mean square), else in float32. Translations, reconstructions, images
    assembled of patches, probabilities or cosines take the place of samples for a model that cannot sample, and the
    log-likelihood for one that has it: see `zoo.pretrained.preview`.

    Args:
        run: folder of a finished run.
        slug: name of the checkpoint; by default the recipe's without its budget.
        out_dir: where the files go; by default the user's own registry, `~/.local/share/generative-zoo`.
        note: what whoever looked at the pictures says of them; the card has it below the grid.
        selected: split by whose values the options or the checkpoint were chosen, "val" or "test", which the protocols
            of all values then say.
        full: write a second file, `<slug>-full.safetensors`, with all networks and averages, for training on.
        trust: names of packages whose classes may be built: see `zoo.load`.
        force: replace other weights of this name.

    Returns:
        The files written.

    Raises:
        FileNotFoundError: the folder is no run, or has no checkpoint.
        FileExistsError: the name has other weights.
        OSError: the files cannot be written.
        ValueError: there is no name, the configuration is not that of a run, or a file for the package would be larger
            than 16 MiB, or all of them than 68 MiB.
    """
    config_path, checkpoint = run / "config.yaml", run / "checkpoints" / "last.ckpt"
    for path in (config_path, checkpoint):
        if not path.exists():
            raise FileNotFoundError(f"{run} is no run with a checkpoint: {path} is missing")
    slug = name_of_run(run, slug)
    target = out_dir or data_home()
    check_writable(target)

    config = current_names(yaml.safe_load(config_path.read_text()))
    saved = AtomicCheckpointIO().load_checkpoint(checkpoint)
    model = load(checkpoint, trust=trust)
    try:
        information, data = _information(run, slug, config, saved, trust)
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{config_path} is not the configuration of a run: {error} is missing or no mapping"
        ) from error

    information |= {key: value for key, value in (("note", note), ("selected", selected)) if value}
    networks = list(model.inference_networks)
    path = target / f"{slug}.safetensors"
    temporary = target / f".{slug}.new.safetensors"
    try:
        save(model, temporary, networks=networks, half=True)
        shows = preview_of(model, data)
        compared, rounding, half = shows.rounding(model, load(temporary, trust=trust))
        information |= {"stored": "float16" if half else "float32", "compared": compared, "rounding": rounding}
        information["pictures"] = shows.kind
        if shows.kind == "translations":
            information |= {"columns": [*shows.shown(model, 1)], "targets": list(cast(Any, model).target_names)}
        save(model, temporary, networks=networks, half=half)
        check_free(target, slug, header(temporary)["sum"], force=force)
        if target.resolve() == weights_folder().resolve():
            _check_size(slug, temporary, [p for p in target.glob("*.safetensors") if p not in (path, temporary)])
        published = load(temporary, trust=trust)
        information["metrics"] = [
            metric
            for measurement in measurements(saved, config)
            for metric in measured(published, data, measurement, selected=selected)
        ]
        if full:
            information["full"] = _save_full(model, target / f"{slug}-full.safetensors", half=half)
        save(model, temporary, networks=networks, half=half, information=information)
        pictures = {}
        if (grid := shows.grid(published)) is not None:
            png = io.BytesIO()
            image_grid(*grid).save(png, "PNG")
            pictures = {f"{slug}.png": png.getvalue()}
        parameters = sum(p.numel() for n in networks for p in getattr(model, n).parameters())
        written = _enter(slug, path, temporary, parameters, pictures, force=force)
        return [*written, *[target / f"{slug}-full.safetensors"] * full]
    finally:
        temporary.unlink(missing_ok=True)


def _save_full(model: GenerativeModel, path: Path, *, half: bool) -> dict[str, Any]:
    """Write all networks of a model; what the index says of that file."""
    networks = [name for name, child in model.named_children() if child.state_dict()]
    save(model, path, networks=networks, half=half)
    return {"file": path.name, "sha256": sha256(path), "bytes": path.stat().st_size, "networks": networks}


def republish(
    slug: str, metrics: list[dict[str, Any]], *, out_dir: Path | None = None, selected: str | None = None
) -> list[Path]:
    """Enter new values of a published file into its header, the index and its card; its weights keep every bit.

    Args:
        slug: name of the checkpoint.
        metrics: its values, as `zoo.pretrained.verify.measured` gives them.
        out_dir: folder of the files; by default `zoo/weights` of this installation.
        selected: as in `publish`; None keeps what the file says.

    Returns:
        The files written.

    Raises:
        LookupError: the folder has no such checkpoint.
        OSError: the files cannot be written.
    """
    target = out_dir or weights_folder()
    check_writable(target)
    entry = index(target).get(slug)
    if entry is None:
        raise LookupError(f"{target} has no checkpoint {slug!r}")
    path = target / entry["file"]
    restate(path, {"metrics": metrics} | ({"selected": selected} if selected else {}))
    return _enter(slug, path, path, entry["parameters"], {})


def _enter(
    slug: str, path: Path, weights: Path, parameters: int, pictures: dict[str, bytes], *, force: bool = False
) -> list[Path]:
    """Put a file with its pictures, and the index entry and the card that follow from it, into its registry."""
    facts = {"file": path.name, "sha256": sha256(weights), "bytes": weights.stat().st_size, "parameters": parameters}
    entry = facts | header(weights)
    # The package, the registries of `ZOO_REGISTRY` and the user's own are found by the name alone.
    is_known = any(Path(registry.place).resolve() == path.parent.resolve() for registry in registries())
    address = slug if is_known else f"{path.parent.resolve()}/{slug}"
    card = {f"{slug}.md": cards.card(slug, entry, address).encode()}
    return add(path.parent, slug, entry, pictures | card, weights, force=force)


def name_of_run(run: Path, slug: str | None) -> str:
    """Name of the checkpoint of a run.

    Args:
        run: its folder.
        slug: the name that somebody has given; None for the recipe's without its budget.

    Raises:
        ValueError: there is no name, or it is none that a checkpoint can have.
    """
    stem, _, budget = run.resolve().name.rpartition("-")
    if slug is None and (not stem or budget not in BUDGETS):
        raise ValueError(
            f"{run} is not named after a recipe (<name>-{'|'.join(BUDGETS)}): name the checkpoint with --slug"
        )
    return check_name(slug or stem)


def _check_size(slug: str, path: Path, others: list[Path]) -> None:
    size, rest = path.stat().st_size, sum(other.stat().st_size for other in others)
    if size > MAX_FILE or size + rest > MAX_TOTAL:
        raise ValueError(
            f"{slug} has {size / 2**20:.1f} MiB, all together {(size + rest) / 2**20:.1f} MiB; at most "
            f"{MAX_FILE >> 20} and {MAX_TOTAL >> 20} MiB are allowed: train a narrower network"
        )


def _information(
    run: Path, slug: str, config: dict[str, Any], saved: dict[str, Any], trust: Trust
) -> tuple[dict[str, Any], Any]:
    """What the header says of the training, and the DataModule."""
    arguments = config["data"]["init_args"]
    settings = {
        "class": config["data"]["class_path"],
        "init_args": {k: v for k, v in arguments.items() if k not in LOCAL},
    }
    data = data_module(settings, arguments.get("data_dir"), trust)
    information = {
        "slug": slug,
        **_recipe(run, config),
        "training": {
            "steps": saved["global_step"],
            "seed": saved["zoo"]["seed"],
            "batch_size": arguments["batch_size"],
            # The batch size of models that grow is not the data's.
            **({"images": int(seen)} if (seen := saved["state_dict"].get("images_seen")) is not None else {}),
            "precision": config["trainer"]["precision"] or "32-true",
            "seconds": saved["zoo"].get("seconds"),
            "hardware": saved["zoo"].get("hardware"),
            **_commit(run),
            **({"start": start} if (start := saved["zoo"].get("start")) else {}),
        },
        "data": {"name": data.name, "licence": data.license, **settings},
    }
    return information, data


def _commit(run: Path) -> dict[str, str]:
    """The commit of the code that trained, where a run of a working copy of this project says it."""
    path = run / "run.json"
    found = json.loads(path.read_text()).get("commit") if path.exists() else None
    return {"commit": found.replace("+", "+changes")} if found else {}


def _recipe(run: Path, config: dict[str, Any]) -> dict[str, Any]:
    """The recipe after which the run is named, and where the run departs from it."""
    name = run.resolve().name
    if name not in recipes.list_recipes():
        return {"recipe": None, "changed": {}}
    settings = yaml.safe_load(recipes.find(name).read_text())
    places = {f"data.init_args.{argument}" for argument in PLACES}
    return {"recipe": name, "changed": {key: value for key, value in changed(settings, config) if key not in places}}


def changed(recipe: Any, config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Keys of a recipe that a configuration sets to something else, with what it sets."""
    if isinstance(recipe, dict) and isinstance(config, dict):
        # Keys such as 4 of {4: 64} are texts in the configuration that a run writes.
        recipe, config = ({str(key): value for key, value in settings.items()} for settings in (recipe, config))
    if isinstance(recipe, dict | list) and type(recipe) is type(config):
        for key, value in recipe.items() if isinstance(recipe, dict) else enumerate(recipe):
            held = key in config if isinstance(config, dict) else key < len(config)
            yield from changed(value, config[key] if held else None, f"{prefix}.{key}".lstrip("."))
    elif recipe != config:
        yield prefix, config
