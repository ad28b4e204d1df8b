"""`zoo export`: a function of a checkpoint as a file that runs without this package. Torch is imported late."""

from __future__ import annotations

import zoo
from zoo.cli.checkpoints import MODEL, TRUST
from zoo.cli.local import local_path
from zoo.cli.usage import Parser, UsageError
from zoo.export.forms import ENDINGS

__all__ = ["export"]

NOTES = (
    "A file draws nothing: noise is an input. `generate` takes what `latent` draws (and labels or embeddings, where",
    "the model has them), and `sample` is the same function. A wrong --function names all that a checkpoint has.",
    "Models that draw one value after the other export log_prob, logits and score. Names, shapes and ranges of inputs",
    "and outputs stand in the file: in the metadata of ONNX, in zoo.json of a program of torch.export.",
    "",
)


def export(parser: Parser, arguments: list[str]) -> None:
    """Write a function of a checkpoint as a file, and compare the file with the model."""
    parser.add_argument("model", help=MODEL)
    parser.add_argument("--format", choices=ENDINGS, default="onnx", help="onnx, or a program of torch.export (onnx)")
    parser.add_argument("--function", required=True, help="sample, generate, encode, translate, log_prob, ...")
    parser.add_argument("--out", type=local_path, required=True, help="file to write: .onnx, or .pt2 for torch_export")
    parser.add_argument("--dynamic_batch", action="store_true", help="any number of images at a time (one)")
    parser.add_argument("--force", action="store_true", help="replace an existing file")
    parser.add_argument("--trust", **TRUST)
    parser.epilog = "\n".join([*NOTES, parser.epilog or ""])
    options = parser.parse_args(arguments)
    if options.out.suffix != (ending := ENDINGS[options.format]):
        raise UsageError(f"--format {options.format} writes {ending} files: --out {options.out} must end in {ending}")
    if options.out.exists() and not options.force:
        raise UsageError(f"{options.out} exists: take another --out, or --force")
    from zoo import pretrained
    from zoo.export.files import export_file, require_packages
    from zoo.export.functions import function_named

    require_packages(options.format)
    path = pretrained.pull(options.model)
    model = zoo.load(path, trust=options.trust)
    function = function_named(model, options.function, options.model)
    difference = export_file(
        model,
        function,
        options.out,
        form=options.format,
        dynamic_batch=options.dynamic_batch,
        source={"checkpoint": options.model, "sha256": pretrained.sha256(path)},
    )
    inputs = ", ".join(f"{name} ({meaning})" for name, meaning in function.inputs.items())
    print(f"{function.name} of {inputs}")
    print(f"largest difference from the model: {difference:.2g}")
    print(options.out)
