"""What `zoo evaluate` does."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.cli.checkpoints import MODEL, TRUST
from zoo.cli.usage import Parser, UsageError

if TYPE_CHECKING:
    from zoo.callbacks.base import Result

__all__ = ["evaluate", "lines"]


def evaluate(parser: Parser, arguments: list[str]) -> None:
    """Measure a model or a folder of pictures."""
    add = parser.add_argument
    add("model", help=f"{MODEL}; or a run folder, or a folder of pictures")
    add("--data", help="DataModule or folder of pictures to compare with (the data of the model's own training)")
    add("--data_dir", help="folder of the model's own data set, where the package does not carry it")
    add("--metrics", help="names, as fd,precision,recall or fid,kid; own: what the model's recipe measures")
    add(
        "--extractor",
        help="network of the features (that of the model's recipe; see below), or path of Inception's weights",
    )
    add("--split", help="split of the images (train for metrics of images, test for most others)")
    add("--num_samples", type=int, help="number of generated images (that of the split, at most 10000; fid: 50000)")
    add("--num_real", type=int, help="number of real images (as many)")
    add("--statistics", type=Path, help=".npz with mu and sigma of real features, for fd and fid alone")
    add("--seed", type=int, default=0, help="seed of the generated images (0)")
    add("--seeds", type=int, default=1, help="number of seeds over which values are averaged (1)")
    add("--device", default="auto", help="device to compute on (a GPU if there is one)")
    add("--trust", **TRUST)
    add("--json", action="store_true", help="print the values as JSON")
    parser.epilog = "\n".join([_overview(), "", parser.epilog or ""])
    options, rest = parser.parse_known_args(arguments)
    if unknown := [word for word in rest if word.startswith("--") and not word.startswith("--data.")]:
        parser.error(f"unrecognized arguments: {unknown[0]}")
    if rest and (options.data is None or Path(options.data).is_dir()):
        raise UsageError(f"{rest[0]} needs --data with the name of a DataModule: `--data Emoji --data.image_size 32`")
    from zoo.cli.quiet import quiet

    quiet()
    with _ranks(options.device) as (rank, device):
        from zoo.pretrained.evaluation import evaluate

        results = _told(
            evaluate,
            options.model,
            None if options.data is None else _data(options.data, rest),
            options.metrics.split(",") if options.metrics else None,
            extractor=options.extractor,
            split=options.split,
            num_samples=options.num_samples,
            num_real=options.num_real,
            statistics=options.statistics,
            seed=options.seed,
            seeds=options.seeds,
            data_dir=options.data_dir,
            device=device,
            progress=rank == 0,
            trust=options.trust,
        )
    if rank:
        return
    if options.json:
        print(
            json.dumps([{"metric": r.metric, **{k: v for k, v in vars(r).items() if k != "metric"}} for r in results])
        )
        return
    for line in lines(results):
        print(line)


def _told(function: Callable[..., list[Result]], *args: Any, **options: Any) -> list[Result]:
    """The results; a metric that the model cannot have is a wrong command."""
    try:
        return function(*args, **options)
    except TypeError as error:
        raise ValueError(str(error)) from error


def lines(results: Sequence[Result]) -> list[str]:
    """Results as text: name, value, deviation over seeds or else standard error, protocol.

    Args:
        results: the results.
    """
    width = max(len(result.metric) for result in results)
    text = []
    for result in results:
        spread = result.deviation if result.deviation is not None else result.error
        value = f"{result.value:.4g}" + ("" if spread is None else f" ± {spread:.2g}")
        text.append(f"{result.metric:<{width}}  {value:<18} {result.protocol}")
    return text


def _overview() -> str:
    from zoo.callbacks.extractors import EXTRACTORS
    from zoo.callbacks.measures import IMAGE_METRICS, MEASURES

    others = sorted(name for name in MEASURES if name not in ("image_metrics", "frechet_distance"))
    return "\n".join(
        [
            f"metrics of images:  {' '.join(IMAGE_METRICS)}; with Inception fid kid is",
            f"others:             {' '.join(others)}",
            f"extractors:         {' '.join(EXTRACTORS)}",
        ]
    )


def _data(name: str, rest: list[str]) -> Any:
    """A DataModule by name with its options, or the folder."""
    if Path(name).expanduser().is_dir():
        return Path(name).expanduser()
    from jsonargparse import ArgumentParser, set_parsing_settings
    from lightning.pytorch import LightningDataModule

    from zoo import datamodules

    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    for export in datamodules.__all__:  # so that the classes can be called by their short names
        getattr(datamodules, export)
    if "." not in name and name not in datamodules.__all__:
        from zoo.engine.files import nearest

        raise UsageError(f"there is no folder and no DataModule {name!r}: {nearest(name, datamodules.__all__)}")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(LightningDataModule, "data", required=True)
    from zoo.cli.messages import explain

    try:
        data = parser.instantiate_classes(parser.parse_args([f"--data={name}", *rest])).data
    except Exception as error:
        raise ValueError(explain(str(error))) from error
    data.prepare_data()
    data.setup()
    return data


@contextmanager
def _ranks(device: str) -> Iterator[tuple[int, Any]]:
    """Rank and device of this process, which talks to the others if a launcher such as torchrun has started several."""
    import torch
    import torch.distributed as dist

    rank, world = (int(os.environ.get(name) or 0) for name in ("RANK", "WORLD_SIZE"))
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if world < 2:
        yield 0, torch.device(device)
        return
    place = torch.device(f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if device == "cuda" else device)
    if place.type == "cuda":
        torch.cuda.set_device(place)
    dist.init_process_group("nccl" if place.type == "cuda" else "gloo")
    try:
        yield rank, place
    finally:
        dist.destroy_process_group()
