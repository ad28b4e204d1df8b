"""Evaluating: any model or folder of pictures against any data, by any metrics, in one call."""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from zoo.callbacks.base import Result, Samples
from zoo.callbacks.measures import IMAGE_METRICS, MEASURES, find_measure, image_metrics
from zoo.callbacks.measures.image_metrics import USUAL
from zoo.callbacks.measures.picture_folder import PictureFolder
from zoo.engine.files import nearest
from zoo.pretrained import entry_of, load
from zoo.pretrained.measures import configured_measures
from zoo.pretrained.migrations import current_names
from zoo.pretrained.trust import Trust, check_trusted
from zoo.pretrained.verify import LOCAL, data_module

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["evaluate", "measure_once"]

MOST = 50_000
"""Pictures of a folder that are compared where nobody says how many."""

Measures = list[tuple[str, dict[str, Any]]]
"""Names of measures with their arguments."""


def evaluate(
    model: Any,
    data: Any = None,
    metrics: Sequence[str] | None = None,
    *,
    extractor: str | Path | nn.Module | None = None,
    split: str | None = None,
    num_samples: int | None = None,
    num_real: int | None = None,
    statistics: str | Path | None = None,
    seed: int = 0,
    seeds: int = 1,
    data_dir: str | Path | None = None,
    cache_dir: str | Path | None = None,
    device: str | torch.device = "cpu",
    progress: bool = True,
    trust: Trust = (),
) -> list[Result]:
    """Measure a model, a checkpoint, a run or a folder of pictures; where there are several ranks, all must call this.

    All metrics of images (`zoo.callbacks.measures.IMAGE_METRICS`) share one pass: the images are generated once, and
    the features of the real images are kept on disk for the next time.

    Args:
        model: a model, a name, file or address of a checkpoint (see `zoo.load`), a run folder, or a folder of pictures.
        data: a DataModule, or a folder of pictures; None takes the data of the model's own training.
        metrics: names of image metrics ("fd", or "fid" with Inception) and of measures in
            `zoo.callbacks.measures.MEASURES`, paths of measures of your own, and "own" for what the model's recipe
            measures; None takes the usual image metrics for models that sample, and "own" for others.
        extractor: network of the features: see `image_metrics`; None takes that of the model's recipe, if it has one.
        split: split of the images; None takes the metrics' usual one: the training images for image metrics, the test
            images for most others.
        num_samples: number of generated images; None for the usual number.
        num_real: number of real images; None for as many as generated ones, at most all of the split, and for all
            pictures of a folder.
        statistics: an `.npz` file with `mu` and `sigma` of real features, for "fd" and "fid" alone.
        seed: seed of the generated images.
        seeds: number of seeds, counted from `seed`, over which values are averaged.
        data_dir: folder of the model's own data set, where the package does not carry it.
        cache_dir: folder of features of real images.
        device: where a model goes that is loaded here.
        progress: show a progress bar.
        trust: names of packages whose classes may be built: see `zoo.load`.

    Returns:
        A result for each metric, in the order of the metrics; of several seeds the mean and its deviation.

    Raises:
        LookupError: there is no such checkpoint.
        TypeError: the model cannot have a metric.
        ValueError: there is no such metric, too few images, or nothing to compare with.
        OSError: a file is missing, or cannot be fetched.
    """
    if seeds < 1:
        raise ValueError(f"seeds must be at least 1, not {seeds}")
    network, settings, own = _model(model, device, trust)
    if data is None:
        if settings is None:
            what = "a folder of pictures" if isinstance(network, PictureFolder) else type(network).__name__
            raise ValueError(
                f"{what} has no data of its own: give a DataModule or a folder of pictures to compare with"
            )
        data = _data(settings, data_dir, trust)
    elif isinstance(data, str | os.PathLike):
        data = PictureFolder(Path(data))
    images, others = _sorted(metrics, network, own)
    if extractor is None and set(images) <= IMAGE_METRICS.keys():
        extractor = next((a["extractor"] for name, a in own if name == image_metrics.name and "extractor" in a), None)
    results: list[Result] = []
    options: dict[str, Any] = {} if num_samples is None else {"num_samples": num_samples}
    if split is not None:
        options["split"] = split
    if images:
        if isinstance(network, PictureFolder) and num_samples is None:
            options["num_samples"] = min(len(network.paths), MOST)
        if isinstance(data, PictureFolder) and num_real is None:
            num_real = min(len(data.paths), MOST)
        given = {"extractor": extractor, "num_real": num_real, "statistics": statistics, "cache_dir": cache_dir}
        given = {name: value for name, value in given.items() if value is not None}
        results += _over_seeds(
            image_metrics, network, data, seed, seeds, metrics=images, progress=progress, **given, **options
        )
    for name, arguments in others:
        own_seed = arguments.get("seed", 0)
        arguments = {k: v for k, v in arguments.items() if k != "seed"} | options
        results += _over_seeds(find_measure(name), network, data, own_seed + seed, seeds, **arguments)
    return results


def measure_once(name: str, model: Any, data: Any, arguments: dict[str, Any]) -> list[Result]:
    """The results of one measure.

    Args:
        name: name of the measure.
        model: the model.
        data: its DataModule.
        arguments: those of the measure.

    Raises:
        ValueError: there is no such measure.
    """
    found = find_measure(name)(model, data, **arguments)
    return [found] if isinstance(found, Result) else list(found)


def _over_seeds(function: Any, model: Any, data: Any, seed: int, seeds: int, **options: Any) -> list[Result]:
    """The results of a measure; of several seeds the mean, with the deviation and in the protocol their number."""
    found = [function(model, data, seed=seed + i, **options) for i in range(seeds)]
    runs = [[result] if isinstance(result, Result) else list(result) for result in found]
    if seeds == 1:
        return runs[0]
    return [
        replace(
            results[0],
            value=statistics.fmean(r.value for r in results),
            deviation=statistics.stdev(r.value for r in results),
            protocol=f"{results[0].protocol.removesuffix(']')}, seeds={seeds}]",
            seconds=sum(r.seconds for r in results),
        )
        for results in zip(*runs, strict=True)
    ]


def _model(model: Any, device: Any, trust: Trust) -> tuple[Any, dict[str, Any] | None, Measures]:
    """The model, settings of its own data, and what its recipe measures."""
    if not isinstance(model, str | os.PathLike):
        return model, None, []
    path = Path(model).expanduser()
    if path.is_dir():
        if (path / "config.yaml").is_file():
            return _run(path, path / "checkpoints" / "last.ckpt", device, trust)
        return PictureFolder(path), None, []
    if path.suffix == ".ckpt" and (path.parent.parent / "config.yaml").is_file():
        return _run(path.parent.parent, path, device, trust)
    network = load(model, device=device, trust=trust)
    entry = {} if path.suffix == ".ckpt" else entry_of(model)
    return network, entry.get("data"), _trusted(_published(entry), model, trust)


def _run(folder: Path, checkpoint: Path, device: Any, trust: Trust) -> tuple[Any, dict[str, Any], Measures]:
    """Model, data and measures of a run."""
    if not checkpoint.is_file():
        raise FileNotFoundError(f"{folder} has no checkpoint {checkpoint.name} yet: train it first")
    config = current_names(yaml.safe_load((folder / "config.yaml").read_text()))
    data = config["data"]
    settings = {"class": data["class_path"], "init_args": data.get("init_args", {})}
    own = [(found.measure, found.arguments) for found in configured_measures(config)]
    return load(checkpoint, device=device, trust=trust), settings, _trusted(own, folder, trust)


def _published(entry: dict[str, Any]) -> Measures:
    """Measures of a published checkpoint, each once."""
    own: Measures = []
    for metric in entry.get("metrics", []):
        found = metric.get("measure", "frechet_distance"), metric["arguments"]
        if found not in own:
            own.append(found)
    return own


def _trusted(own: Measures, owner: object, trust: Trust) -> Measures:
    """Measures that a file names, once those of other packages are trusted."""
    for name, _ in own:
        if "." in name:
            check_trusted(name, owner, trust)
    return own


def _data(settings: dict[str, Any], data_dir: str | Path | None, trust: Trust) -> Any:
    """The DataModule of a model's own training, ready for measuring."""
    kept = {k: v for k, v in settings["init_args"].items() if k not in LOCAL or k == "data_dir"}
    data = {"class": settings["class"], "init_args": kept}
    return data_module(data, None if data_dir is None else str(data_dir), trust)


def _sorted(metrics: Sequence[str] | None, model: Any, own: Measures) -> tuple[list[str], Measures]:
    """Image metrics, and other measures with their arguments."""
    if metrics is None:
        is_sampler = isinstance(model, Samples | PictureFolder) and getattr(model, "makes_images", True)
        metrics = USUAL if is_sampler or not own else ["own"]
    images: list[str] = []
    others: Measures = []
    of_inception = {metric.inception for metric in IMAGE_METRICS.values()}
    for name in metrics:
        if name in IMAGE_METRICS or name in of_inception:
            images.append(name)
        elif name in MEASURES or "." in name:
            arguments = [given for measure, given in own if measure == name] or [{}]
            others += [(name, given) for given in arguments]
        elif name == "own":
            if not own:
                raise ValueError(f"the recipe of {type(model).__name__} measures nothing: name the metrics")
            others += own
        else:
            raise ValueError(
                f"there is no metric {name!r}: {nearest(name, ['own', *IMAGE_METRICS, *of_inception, *MEASURES])}"
            )
    return images, others
