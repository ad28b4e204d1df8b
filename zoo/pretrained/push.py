"""Pushing: a run or a checkpoint to the Hugging Face Hub, to wandb, or into the folder of a registry."""

from __future__ import annotations

import contextlib
import io
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.engine.files import cache_home
from zoo.pretrained import artifacts, cards, find, hub, load, save, sha256
from zoo.pretrained.adding import add, check_free, check_name, check_writable
from zoo.pretrained.addresses import Address, parse_target
from zoo.pretrained.files import header
from zoo.pretrained.places import Place
from zoo.pretrained.publish import name_of_run, publish
from zoo.pretrained.registries import InRegistry, Registry, index
from zoo.pretrained.repository import write_repository
from zoo.pretrained.trust import Trust

if TYPE_CHECKING:
    from zoo.base import GenerativeModel

__all__ = ["push", "push_model"]


@dataclass(frozen=True)
class Checkpoint:
    """What is pushed.

    Attributes:
        slug: its name.
        entry: its index entry.
        weights: its file.
        picture: its grid, a PNG.
        full: its file with all networks.
        run: folder of the run that trained it, if it is known.
    """

    slug: str
    entry: dict[str, Any]
    weights: Path
    picture: bytes | None = None
    full: Path | None = None
    run: Path | None = None


def push(
    source: str | Path,
    address: str | Path,
    *,
    slug: str | None = None,
    private: bool = False,
    dry_run: bool = False,
    force: bool = False,
    full: bool = False,
    note: str | None = None,
    selected: str | None = None,
    trust: Trust = (),
) -> str:
    """Push a run or a checkpoint to where others can load it.

    Args:
        source: folder of a finished run, which is published on the way (its values are measured), or a name or address
            of a checkpoint.
        address: `hf://OWNER/NAME` (with `@BRANCH` if need be), `wandb://ENTITY/PROJECT/NAME`, or the folder of a
            registry. A repository or a registry that is not there is made.
        slug: name of the checkpoint; by default that of the source.
        private: make a private repository on the Hub.
        dry_run: write the files into a folder of the cache, and push nothing.
        force: replace other weights of this name in a registry, which keeps no earlier versions.
        full: as in `publish`, for a run.
        note: as in `publish`, for a run.
        selected: as in `publish`, for a run.
        trust: names of packages whose classes may be built: see `zoo.load`.

    Returns:
        The address from which `zoo.load` loads it, or the folder of the files.

    Raises:
        LookupError: there is no such checkpoint.
        FileExistsError: the registry has other weights of this name.
        ValueError: nothing can be pushed to this address.
        OSError: it could not be pushed.
    """
    target = parse_target(address)
    if private and target.kind != "hf":
        raise ValueError(f"--private is for repositories of the Hugging Face Hub, not for {address}")
    if not dry_run:  # before minutes of measuring
        if target.kind == "hf":
            hub.check_access(target.text, target.place)
        elif target.kind == "registry":
            check_writable(Path(target.place))
    run = Path(source).expanduser()
    with tempfile.TemporaryDirectory() as scratch:
        if (run / "checkpoints").is_dir():
            slug = name_of_run(run, slug)
            publish(run, slug, out_dir=Path(scratch), note=note, selected=selected, full=full, trust=trust)
            place: Place = InRegistry(slug, Registry(scratch), slug, index(Path(scratch))[slug])
        elif run.suffix == ".ckpt":
            raise ValueError(
                f"{source} is a checkpoint of a run, which says nothing of its values: push the run's folder"
            )
        else:
            place = find(source)
        checkpoint = _checkpoint(place, slug, trust)
        if (run / "checkpoints").is_dir():
            checkpoint = replace(checkpoint, run=run.resolve())
        return _send(checkpoint, target, private=private, dry_run=dry_run, force=force)


def push_model(model: GenerativeModel, address: str, *, private: bool = False, dry_run: bool = False) -> str:
    """Push a model as it is, with all its networks in full precision; its card says what the model itself can say.

    Args:
        model: the model.
        address: as in `push`, but `FOLDER/NAME` for a registry.
        private: as in `push`.
        dry_run: as in `push`.

    Returns:
        As `push`.

    Raises:
        ValueError: nothing can be pushed to this address.
        OSError: it could not be pushed.
    """
    target = parse_target(address)
    slug = check_name(target.place.rpartition("/")[2].lower())
    if target.kind == "registry":
        target = parse_target(Path(target.place).parent)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / f"{slug}.safetensors"
        picture = _samples(model)
        save(model, path, information={"pictures": "samples"} if picture else None)
        facts = {"file": path.name, "sha256": sha256(path), "bytes": path.stat().st_size, "parameters": _count(model)}
        return _send(Checkpoint(slug, facts | header(path), path, picture), target, private=private, dry_run=dry_run)


def _samples(model: GenerativeModel) -> bytes | None:
    """A grid of samples, a PNG; None for a model that makes images of images only."""
    from zoo.engine.images import image_grid

    try:
        images = model.sample(64, seed=0)
    except NotImplementedError:
        return None
    png = io.BytesIO()
    image_grid(images, 8).save(png, "PNG")
    return png.getvalue()


def _count(model: GenerativeModel, networks: Iterable[str] | None = None) -> int:
    kept = networks or [name for name, _ in model.named_children()]
    return sum(p.numel() for name in kept for p in model.get_submodule(name).parameters())


def _checkpoint(place: Place, slug: str | None, trust: Trust) -> Checkpoint:
    """A checkpoint that lies somewhere, under the name that it is pushed by."""
    if isinstance(place, InRegistry):  # a name that ends in -full means the checkpoint with its full file
        place = replace(place, is_full=False)
    weights, entry = place.pull(), place.entry()
    if "parameters" not in entry:  # of a file outside of all indexes; this also says whether it fits its class
        entry["parameters"] = _count(load(weights, trust=trust), entry["networks"])
    slug = check_name(slug or entry.get("slug") or place.name)
    entry = entry | {"file": f"{slug}.safetensors"}
    full = place.pull(full=True) if "full" in entry else None
    if full is not None:
        entry["full"] = entry["full"] | {"file": f"{slug}-full.safetensors"}
    return Checkpoint(slug, entry, weights, place.picture(), full)


def _send(
    checkpoint: Checkpoint, target: Address, *, private: bool = False, dry_run: bool = False, force: bool = False
) -> str:
    slug, entry = checkpoint.slug, checkpoint.entry
    if target.kind == "registry" and not dry_run:
        folder = Path(target.place).resolve()
        return _to_folder(checkpoint, folder, force=force)
    with _folder(target, keep=dry_run) as folder:
        address = f"{target.text}/{slug}" if target.kind == "registry" else target.text
        write_repository(folder, slug, entry, checkpoint.weights, checkpoint.picture, address, full=checkpoint.full)
        if dry_run:
            return str(folder)
        message = f"{slug}, written by generative-zoo {entry['versions']['generative-zoo']}"
        if target.kind == "hf":
            hub.upload(target.text, target.place, folder, branch=target.version, private=private, message=message)
            return target.text
        kept = {key: value for key, value in entry.items() if key not in ("metrics", "file")}
        values = {metric["name"]: metric["value"] for metric in entry.get("metrics", [])}
        return artifacts.log(target.text, target.place, folder, kept | {"values": values}, run=checkpoint.run)


def _to_folder(checkpoint: Checkpoint, folder: Path, *, force: bool) -> str:
    check_writable(folder)
    slug, entry = checkpoint.slug, checkpoint.entry
    check_free(folder, slug, entry["sum"], force=force)
    address = f"{folder}/{slug}"
    text = cards.card(slug, entry, address, picture="" if checkpoint.picture else None)
    files: dict[str, bytes | Path] = {f"{slug}.md": text.encode()}
    if checkpoint.picture:
        files[f"{slug}.png"] = checkpoint.picture
    if checkpoint.full:
        files[entry["full"]["file"]] = checkpoint.full
    add(folder, slug, entry, files, checkpoint.weights, force=force)
    return address


@contextlib.contextmanager
def _folder(target: Address, *, keep: bool) -> Iterator[Path]:
    """An empty folder for what is uploaded; one of a dry run stays, until the next."""
    if not keep:
        with tempfile.TemporaryDirectory() as scratch:
            yield Path(scratch) / "repository"
        return
    folder = cache_home() / "push" / target.text.replace("://", "-").strip("/").replace("/", "-")
    shutil.rmtree(folder, ignore_errors=True)
    yield folder
