"""The commands that use checkpoints. Nothing here imports torch before a command needs it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import zoo
from zoo.cli.local import local_path
from zoo.cli.usage import Parser, UsageError
from zoo.convert.layouts import LAYOUTS, check

__all__ = ["MODEL", "TRUST", "import_", "publish", "pull", "push", "sample", "translate", "verify"]

MODEL = "name, file (.safetensors, .ckpt) or address of a checkpoint: hf://, wandb://, https://, FOLDER/NAME"
"""Help of an argument that names a checkpoint."""
TRUST: dict[str, Any] = {
    "action": "append",
    "default": [],
    "metavar": "PACKAGE",
    "help": "build classes of this package of your own, too; importing it runs its code",
}
"""Options of `--trust`."""
PUSHING = (
    "The Hub asks for a token (HF_TOKEN, or `hf auth login`) and the extra: pip install 'generative-zoo[hub]'.",
    "A registry is any folder; others read it by ZOO_REGISTRY=FOLDER, or from the web server that serves it by",
    "ZOO_REGISTRY=https://..., several separated by commas. Then its names work like those of the package.",
)


def sample(parser: Parser, arguments: list[str]) -> None:
    """Draw images from a checkpoint."""
    parser.add_argument("model", help=MODEL)
    parser.add_argument("--trust", **TRUST)
    parser.add_argument("--num", type=int, default=64, help="number of images (64)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the images (0)")
    parser.add_argument("--label", type=int, help="class, for conditional models")
    parser.add_argument("--text", help='sentence, for models that draw one, such as "a red apple"')
    parser.add_argument("--nrow", type=int, help="images per row (about the root of --num)")
    parser.add_argument("--out", help="grid.png, an array.npz, or folder/ for single pictures (grid.png)")
    parser.add_argument("--format", choices=("png", "npz"), help="single pictures, or one array of them all (--out's)")
    parser.add_argument("--batch_size", type=int, default=64, help="images at a time (64)")
    parser.add_argument("--force", action="store_true", help="replace what exists")
    parser.add_argument("--device", default="cpu", help="device to compute on (cpu)")
    options = parser.parse_args(arguments)
    for option in ("num", "batch_size", "nrow"):
        if (value := getattr(options, option)) is not None and value < 1:
            raise UsageError(f"--{option} must be at least 1, not {value}")
    from zoo.cli.sample_files import Target, write_samples

    out = options.out or {"png": "samples/", "npz": "samples.npz", None: "grid.png"}[options.format]
    target = Target(out, options.format, force=options.force)
    device = _device(options.device)
    model = zoo.load(options.model, device=device, trust=options.trust)
    conditions: dict[str, Any] = {} if options.label is None else {"label": options.label}
    if options.text is not None:
        if not hasattr(model, "encode_text"):
            raise UsageError(f"{options.model} ({type(model).__name__}) does not draw sentences: leave out --text")
        conditions["text"] = options.text
    write_samples(
        lambda n, first: model.sample(n, seed=options.seed, first=first, **conditions),
        options.num,
        target,
        batch_size=options.batch_size,
        columns=options.nrow or round(options.num**0.5),
    )
    print(f"{options.num} images, seed {options.seed}: {target.path}")


def translate(parser: Parser, arguments: list[str]) -> None:
    """Translate a folder of pictures."""
    parser.add_argument("model", help=MODEL)
    parser.add_argument("--trust", **TRUST)
    parser.add_argument("source", type=Path, help="folder of pictures")
    parser.add_argument("out", type=local_path, help="folder to write to")
    parser.add_argument("--to", required=True, help="domain to translate to; a wrong one names all")
    parser.add_argument("--size", type=int, help="shorter side (that of training); 0 leaves the pictures' own")
    parser.add_argument("--batch_size", type=int, default=16, help="pictures at a time (16)")
    parser.add_argument(
        "--on_error", choices=("refuse", "skip"), default="refuse", help="what to do with broken pictures (refuse)"
    )
    parser.add_argument("--force", action="store_true", help="replace existing files")
    parser.add_argument("--device", default="cpu", help="device to compute on (cpu)")
    options = parser.parse_args(arguments)
    from zoo.cli.translate_folder import translate_folder

    model: Any = zoo.load(options.model, device=_device(options.device), trust=options.trust)
    if not hasattr(model, "translate"):
        raise UsageError(f"{type(model).__name__} does not translate: take a CycleGAN or a StarGAN")
    files = translate_folder(
        model,
        options.source,
        options.out,
        options.to,
        size=options.size,
        batch_size=options.batch_size,
        force=options.force,
        on_error=options.on_error,
    )
    print(f"{len(files)} pictures, to {options.to}: {options.out}")


def _device(name: str) -> Any:
    import torch

    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"there is no device {name!r} here: take cpu") from error
    return device


def pull(parser: Parser, arguments: list[str]) -> None:
    """Fetch a checkpoint and print its path."""
    parser.add_argument("slug", help=MODEL)
    options = parser.parse_args(arguments)
    from zoo import pretrained

    print(pretrained.pull(options.slug))


def publish(parser: Parser, arguments: list[str]) -> None:
    """Make a checkpoint, card and grid of a run."""
    parser.add_argument("run", type=Path, help="a run folder, such as runs/dcgan-emoji32-small")
    parser.add_argument("--slug", help="name of the checkpoint (the recipe's without its budget)")
    parser.add_argument("--out_dir", type=local_path, help="folder for the files (~/.local/share/generative-zoo)")
    parser.add_argument("--note", help="what you say of the pictures, for the card")
    parser.add_argument(
        "--selected", choices=("val", "test"), help="split by whose values options or checkpoint were chosen"
    )
    parser.add_argument("--full", action="store_true", help="write a second file with all networks, to train on")
    parser.add_argument("--force", action="store_true", help="replace other weights of this name")
    parser.add_argument("--trust", **TRUST)
    options = vars(parser.parse_args(arguments))
    from zoo.pretrained import publish

    for path in publish.publish(options.pop("run"), options.pop("slug"), **options):
        print(path)


def push(parser: Parser, arguments: list[str]) -> None:
    """Push a run or a checkpoint to where others can load it."""
    parser.add_argument("source", help=f"a run folder, which is published on the way; or {MODEL}")
    parser.add_argument("address", help="hf://OWNER/NAME, wandb://ENTITY/PROJECT/NAME, or the folder of a registry")
    parser.add_argument("--slug", help="name of the checkpoint (that of the source)")
    parser.add_argument("--private", action="store_true", help="make a private repository on the Hub")
    parser.add_argument("--dry_run", action="store_true", help="write the files to a folder, print it, push nothing")
    parser.add_argument("--force", action="store_true", help="replace other weights of this name in a registry")
    parser.add_argument("--full", action="store_true", help="of a run, a second file with all networks, to train on")
    parser.add_argument("--note", help="what you say of the pictures of a run, for the card")
    parser.add_argument(
        "--selected", choices=("val", "test"), help="split by whose values options or checkpoint were chosen"
    )
    parser.add_argument("--trust", **TRUST)
    parser.epilog = "\n".join([*PUSHING, "", parser.epilog or ""])
    options = vars(parser.parse_args(arguments))
    from zoo.pretrained.push import push

    print(push(options.pop("source"), options.pop("address"), **options))


def verify(parser: Parser, arguments: list[str]) -> None:
    """Measure a checkpoint's published value again."""
    parser.add_argument("slug", help=MODEL)
    parser.add_argument("--trust", **TRUST)
    parser.add_argument("--data_dir", help="folder with the data set, where the package does not carry it")
    parser.add_argument("--device", default="cpu", help="device to compute on (cpu)")
    parser.add_argument("--inception_weights", help="path of Inception's weights, to verify an FID")
    options = parser.parse_args(arguments)
    from zoo.pretrained import verify

    results = verify.verify(
        options.slug,
        data_dir=options.data_dir,
        device=_device(options.device),
        inception_weights=options.inception_weights,
        trust=options.trust,
    )
    for result in results:
        print(result)
    if not all(result.passed for result in results):
        raise RuntimeError(f"{options.slug} does not reach its published value within the stated tolerance")


def import_(parser: Parser, arguments: list[str]) -> None:
    """Convert a checkpoint of a reference implementation."""
    parser.add_argument("architecture", choices=LAYOUTS, help="which architecture the files are of")
    parser.add_argument("files", nargs="+", type=Path, help="the files, in the order the layout names them")
    parser.add_argument("--from", dest="layout", required=True, help="whose layout the files have")
    parser.add_argument("--out", type=local_path, required=True, help=".safetensors file to write")
    parser.add_argument("--force", action="store_true", help="replace an existing file")
    rows = [(a, layout, " ".join(names)) for a, layouts in LAYOUTS.items() for layout, names in layouts.items()]
    lines = ["architecture  --from             files", *(f"{a:<13} {layout:<18} {names}" for a, layout, names in rows)]
    parser.epilog = "\n".join([*lines, "", parser.epilog or ""])
    options = parser.parse_args(arguments)
    check(options.architecture, options.layout, len(options.files))
    if options.out.suffix != ".safetensors":
        raise UsageError(f"--out {options.out} must end in .safetensors")
    if options.out.exists() and not options.force:
        raise UsageError(f"{options.out} exists: take another --out, or --force")
    from zoo import convert, pretrained

    model = getattr(convert, options.architecture)(options.files, layout=options.layout)
    pretrained.save(model, options.out)  # the networks that files were given for; others are untrained
    print(options.out)
