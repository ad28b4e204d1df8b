"""The `zoo` command. Nothing here imports torch before a command needs it."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import zoo
from zoo import recipes
from zoo.cli.local import local_path
from zoo.convert.layouts import LAYOUTS, check
from zoo.engine.files import nearest

__all__ = ["main"]


class UsageError(Exception):
    """The command was not understood: exit code 2."""


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors are exceptions."""

    def error(self, message: str) -> NoReturn:
        if (option := message.removeprefix("unrecognized arguments: ").split()[0].split("=")[0]).startswith("-"):
            message = f"there is no option {option}: {nearest(option, self._option_string_actions)}"
        raise UsageError(message)


def main(argv: Sequence[str] | None = None) -> None:
    """Run a command; user errors end in one line on standard error.

    Exit code 2 says that the command or its input was wrong, 1 that something failed while it ran.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        _dispatch(arguments)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
    except Exception as error:
        if os.environ.get("ZOO_TRACEBACK"):
            raise
        print(f"zoo: error: {_one_line(error)}", file=sys.stderr)
        sys.exit(2 if isinstance(error, UsageError | ValueError | OSError | LookupError | ImportError) else 1)


def _dispatch(arguments: list[str]) -> None:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_overview())
        return
    if arguments[0] in ("-V", "--version"):
        print(zoo.__version__)
        return
    name = arguments[0]
    if name not in COMMANDS:
        meant = next((command for command, names in MEANT.items() if name in names), None)
        raise UsageError(f"there is no command {name!r}: {f'take {meant!r}' if meant else nearest(name, COMMANDS)}")
    COMMANDS[name][0](name, arguments[1:])


MEANT = {
    "fit": ("train", "run", "resume", "start"),
    "test": ("eval", "evaluate"),
    "sample": ("generate", "draw", "inference"),
    "pull": ("download", "fetch"),
    "import": ("convert",),
    "show": ("info", "describe", "card"),
}
"""Commands by the names that people try."""


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, (_, text, _) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: zoo COMMAND [OPTIONS]        (zoo COMMAND --help tells more)",
            "",
            *lines,
            "",
            "First steps:  zoo sample dcgan-emoji32 --out grid.png",
            "              zoo fit --config dcgan-emoji32-small",
        ]
    )


def _one_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def _parser(name: str) -> _Parser:
    _, text, example = COMMANDS[name]
    return _Parser(
        prog=f"zoo {name}",
        description=text,
        epilog=f"example:  {example}",
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


# Looking around ------------------------------------------------------------------------------------------------------


def _list(name: str, arguments: list[str]) -> None:
    parser = _parser(name)
    parser.add_argument("--json", action="store_true", help="print the index of checkpoints as JSON")
    options = parser.parse_args(arguments)
    from zoo import pretrained
    from zoo.pretrained import cards

    index = pretrained.index()
    if options.json:
        print(json.dumps(index, indent=1))
        return
    print("Architectures:  " + "  ".join(sorted(zoo.ARCHITECTURES)))
    print("\nRecipes (zoo fit --config NAME):")
    for recipe in recipes.list_recipes():
        print(f"  {recipe:<28} {recipes.describe(recipe)}")
    print("\nCheckpoints (zoo sample NAME, zoo show NAME):")
    for slug, entry in sorted(index.items()):
        for metric in entry.get("metrics", []) or [{}]:
            value = f"{metric['name']} {cards.value(metric)}  {metric['protocol']}" if metric else ""
            print(f"  {slug:<28} {value}")
    if not index:
        print("  none")


def _show(name: str, arguments: list[str]) -> None:
    parser = _parser(name)
    parser.add_argument("slug", help="name of a checkpoint")
    options = parser.parse_args(arguments)
    from zoo import pretrained

    print(pretrained.card(options.slug), end="")


# Checkpoints ---------------------------------------------------------------------------------------------------------


def _sample(name: str, arguments: list[str]) -> None:
    parser = _parser(name)
    parser.add_argument("model", help="name of a checkpoint, or a .safetensors or .ckpt file")
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
    model = zoo.load(options.model, device=device)
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


def _translate(name: str, arguments: list[str]) -> None:
    parser = _parser(name)
    parser.add_argument("model", help="name of a checkpoint, or a .safetensors or .ckpt file")
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

    model: Any = zoo.load(options.model, device=_device(options.device))
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


def _pull(name: str, arguments: list[str]) -> None:
    parser = _parser(name)
    parser.add_argument("slug", help="name of a checkpoint")
    options = parser.parse_args(arguments)
    from zoo import pretrained

    print(pretrained.pull(options.slug))


def _publish(name: str, arguments: list[str]) -> None:
    parser = _parser(name)
    parser.add_argument("run", type=Path, help="a run folder, such as runs/dcgan-emoji32-small")
    parser.add_argument("--slug", help="name of the checkpoint (the recipe's without its budget)")
    parser.add_argument("--out_dir", type=local_path, help="folder for the files (zoo/weights)")
    parser.add_argument("--note", help="what you say of the pictures, for the card")
    options = parser.parse_args(arguments)
    from zoo.pretrained import publish

    for path in publish.publish(options.run, options.slug, out_dir=options.out_dir, note=options.note):
        print(path)


def _verify(name: str, arguments: list[str]) -> None:
    parser = _parser(name)
    parser.add_argument("slug", help="name of a checkpoint")
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
    )
    for result in results:
        print(result)
    if not all(result.passed for result in results):
        raise RuntimeError(f"{options.slug} does not reach its published value within the stated tolerance")


def _import(name: str, arguments: list[str]) -> None:
    parser = _parser(name)
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
    if options.out.exists() and not options.force:
        raise UsageError(f"{options.out} exists: take another --out, or --force")
    from zoo import convert, pretrained

    model = getattr(convert, options.architecture)(options.files, layout=options.layout)
    pretrained.save(model, options.out)  # the networks that files were given for; others are untrained
    print(options.out)


# Training ------------------------------------------------------------------------------------------------------------

GOING_ON = (
    "The same command resumes a run. With a later end, other rates, batches, devices or callbacks a run goes on, too;",
    "its folder then keeps the earlier configurations as config.1.yaml, config.2.yaml, ...",
    "",
)


def _train(name: str, arguments: list[str]) -> None:
    parser = _parser(name)
    parser.add_argument("--config", action="append", default=[], help="name of a recipe, or a YAML file")
    parser.add_argument("--name", help="name of the run (the recipe's)")
    parser.add_argument("--runs_dir", type=local_path, default=Path("runs"), help="folder of all runs (runs)")
    if name == "fit":
        parser.add_argument("--init", help="start from the weights of a checkpoint (name or file)")
        parser.add_argument(
            "--fresh", action="store_true", help="start anew; an earlier run is moved aside, not deleted"
        )
        steps = "steps between two checkpoints (250, unless half a minute has not passed; or ten minutes)"
        parser.add_argument("--checkpoint_every", type=int, help=steps)
        parser.add_argument("--wandb", action="store_true", help="log to Weights & Biases (offline without an account)")
    else:
        parser.add_argument("--ckpt", help="checkpoint to use (the run's last one)")
    parser.epilog = "\n".join(
        [
            "Every setting of the model, the data and the trainer can be given too:",
            "  --model DCGAN --model.base_channels 32 --data Emoji --data.image_size 32 --trainer.max_steps 1000",
            "  --model.help DCGAN, --data.help Emoji and --trainer.help list them.",
            "",
            *(GOING_ON if name == "fit" else ()),
            parser.epilog or "",
        ]
    )
    options, rest = parser.parse_known_args(arguments)
    if name == "fit" and options.checkpoint_every is not None and options.checkpoint_every < 1:
        raise UsageError(f"--checkpoint_every must be at least 1, not {options.checkpoint_every}")
    from zoo.cli import fit

    fit.run(name, options, [str(recipes.find(config)) for config in options.config], rest)


COMMANDS: dict[str, tuple[Callable[[str, list[str]], None], str, str]] = {
    "fit": (_train, "train a model; the same command resumes it", "zoo fit --config dcgan-emoji32-small"),
    "validate": (_train, "measure a run on validation data", "zoo validate --config dcgan-emoji32-small"),
    "test": (_train, "measure a run on test data", "zoo test --config dcgan-emoji32-small"),
    "predict": (_train, "write a run's images to its folder", "zoo predict --config dcgan-emoji32-small"),
    "list": (_list, "list architectures, recipes and checkpoints", "zoo list"),
    "show": (_show, "show the card of a checkpoint", "zoo show dcgan-emoji32"),
    "sample": (_sample, "draw images from a checkpoint", "zoo sample dcgan-emoji32 --num 64 --seed 0 --out grid.png"),
    "translate": (
        _translate,
        "translate a folder of pictures",
        "zoo translate cyclegan-openmoji2noto64 in/ out/ --to noto",
    ),
    "pull": (_pull, "fetch a checkpoint and print its path", "zoo pull dcgan-emoji32"),
    "publish": (_publish, "make a checkpoint, card and grid of a run", "zoo publish runs/dcgan-emoji32-small"),
    "import": (
        _import,
        "convert a checkpoint of a reference implementation",
        "zoo import dcgan --from pytorch-examples netG.pth netD.pth --out dcgan.safetensors",
    ),
    "verify": (_verify, "measure a checkpoint's published value again", "zoo verify dcgan-emoji32"),
}
