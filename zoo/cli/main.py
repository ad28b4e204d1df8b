"""The `zoo` command. Nothing here imports torch before a command needs it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

import zoo
from zoo import recipes
from zoo.cli import checkpoints, listing
from zoo.cli.bench import bench
from zoo.cli.demo import demo
from zoo.cli.evaluate import evaluate
from zoo.cli.export import export
from zoo.cli.local import local_path
from zoo.cli.usage import Parser, UsageError
from zoo.engine.files import nearest

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> None:
    """Run a command; user errors end in one line on standard error.

    Exit code 2 says that the command or its input was wrong, 1 that something failed while it ran.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not {"", os.getcwd()} & set(sys.path):
        sys.path.append(os.getcwd())  # for classes and measures of the user's own, as with `python -m zoo`
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
    command, text, example = COMMANDS[name]
    command(Parser(name, text, example), arguments[1:])


MEANT = {
    "fit": ("train", "run", "resume", "start"),
    "evaluate": ("eval", "measure", "fid", "metrics"),
    "sample": ("generate", "draw", "inference"),
    "pull": ("download", "fetch"),
    "push": ("upload", "share"),
    "import": ("convert",),
    "export": ("onnx", "save"),
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


# Looking around ------------------------------------------------------------------------------------------------------


def _show(parser: Parser, arguments: list[str]) -> None:
    parser.add_argument("slug", help=checkpoints.MODEL)
    options = parser.parse_args(arguments)
    from zoo import pretrained

    print(pretrained.card(options.slug), end="")


# Training ------------------------------------------------------------------------------------------------------------

GOING_ON = (
    "The same command resumes a run. With a later end, other rates, batches, devices or callbacks a run goes on, too;",
    "its folder then keeps the earlier configurations as config.1.yaml, config.2.yaml, ...",
    "",
)


def _train(parser: Parser, arguments: list[str]) -> None:
    name = parser.prog.split()[-1]
    parser.add_argument("--config", action="append", default=[], help="name of a recipe, or a YAML file")
    parser.add_argument("--name", help="name of the run (the recipe's)")
    parser.add_argument("--runs_dir", type=local_path, default=Path("runs"), help="folder of all runs (runs)")
    if name == "fit":
        parser.add_argument("--init", help="start from the weights of a checkpoint (name, file or address)")
        parser.add_argument(
            "--init_strict", choices=("true", "false"), default="true", help="false takes the layers that fit (true)"
        )
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
    from zoo.engine.devices import flushed_denormals

    with flushed_denormals() if name == "fit" else nullcontext():
        fit.run(name, options, [str(recipes.find(config)) for config in options.config], rest)


COMMANDS: dict[str, tuple[Callable[[Parser, list[str]], None], str, str]] = {
    "fit": (_train, "train a model; the same command resumes it", "zoo fit --config dcgan-emoji32-small"),
    "validate": (_train, "measure a run on validation data", "zoo validate --config dcgan-emoji32-small"),
    "test": (_train, "measure a run on test data", "zoo test --config dcgan-emoji32-small"),
    "predict": (_train, "write a run's images to its folder", "zoo predict --config dcgan-emoji32-small"),
    "list": (listing.list_, "list architectures, recipes and checkpoints", "zoo list dcgan --data emoji"),
    "show": (_show, "show the card of a checkpoint", "zoo show dcgan-emoji32"),
    "sample": (
        checkpoints.sample,
        "draw images from a checkpoint",
        "zoo sample dcgan-emoji32 --num 64 --seed 0 --out grid.png",
    ),
    "translate": (
        checkpoints.translate,
        "translate a folder of pictures",
        "zoo translate cyclegan-openmoji2noto64 in/ out/ --to noto",
    ),
    "evaluate": (
        evaluate,
        "measure a checkpoint, a run or a folder of pictures",
        "zoo evaluate dcgan-emoji32 --metrics fd,precision,recall",
    ),
    "bench": (bench, "compare architectures on the same data and budget", "zoo bench run emoji32 --minutes 1"),
    "demo": (demo, "sample, walk, draw and translate in the browser", "zoo demo dcgan-emoji32 vae-mnist28"),
    "pull": (checkpoints.pull, "fetch a checkpoint and print its path", "zoo pull dcgan-emoji32"),
    "publish": (
        checkpoints.publish,
        "make a checkpoint, card and grid of a run",
        "zoo publish runs/dcgan-emoji32-small",
    ),
    "push": (
        checkpoints.push,
        "push a run or a checkpoint to the Hub, to wandb or into a registry",
        "zoo push runs/dcgan-emoji32-small hf://me/dcgan-emoji32 --private",
    ),
    "import": (
        checkpoints.import_,
        "convert a checkpoint of a reference implementation",
        "zoo import dcgan --from pytorch-examples netG.pth netD.pth --out dcgan.safetensors",
    ),
    "export": (
        export,
        "write a function of a checkpoint as an ONNX file or a program of torch.export",
        "zoo export dcgan-emoji32 --function generate --out dcgan.onnx --dynamic_batch",
    ),
    "verify": (checkpoints.verify, "measure a checkpoint's published value again", "zoo verify dcgan-emoji32"),
}
