"""Largest differences between exported files and their models: `python -m benchmarks.exports`.

Every checkpoint in every function that it has, as an ONNX file in onnxruntime and as a program of `torch.export`, both
made for any number of images and run with 1 and with 7.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import zoo
from benchmarks.environment import RESULTS, environment
from zoo.export.files import largest_difference, opened, serialized
from zoo.export.forms import ENDINGS
from zoo.export.functions import functions_of

__all__ = ["differences", "main"]

SIZES = (1, 7)


def differences(slug: str) -> list[dict[str, Any]]:
    """For each function of a checkpoint, the largest difference and the bytes of each form's file.

    Args:
        slug: name of the checkpoint.
    """
    model, rows = zoo.load(slug), []
    for function in functions_of(model).values():
        if function.name == "sample":  # the same as generate
            continue
        row: dict[str, Any] = {"checkpoint": slug, "function": function.name}
        for form in ENDINGS:
            content = serialized(model, function, form=form, dynamic_batch=True)
            found = largest_difference(opened(content, form), model, function, SIZES)
            row[form] = {"difference": found, "bytes": len(content)}
        print(slug, function.name, *(f"{form} {row[form]['difference']:.2g}" for form in ENDINGS), flush=True)
        rows.append(row)
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the row; checkpoints that are not named keep what an earlier row of the same commit has."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.exports",
        description="Largest differences between exported files and their models.",
        epilog="example: python -m benchmarks.exports dcgan-emoji32",
    )
    parser.add_argument("checkpoints", nargs="*", help="names of checkpoints (all)")
    parser.add_argument("--out", type=Path, default=RESULTS / "exports.json", help="file of the row")
    args = parser.parse_args(arguments)
    facts = environment(torch.device("cpu"))
    facts["versions"] |= {name: version(name) for name in ("onnx", "onnxruntime", "onnxscript")}
    earlier = json.loads(args.out.read_text()) if args.out.exists() else {}
    kept = earlier.get("exports", []) if earlier.get("commit") == facts["commit"] else []
    for slug in args.checkpoints or zoo.list_pretrained():
        kept = [row for row in kept if row["checkpoint"] != slug] + differences(slug)
        row = {"benchmark": "exports", "sizes": SIZES, "exports": sorted(kept, key=lambda row: row["checkpoint"])}
        args.out.write_text(json.dumps(row | facts, indent=2) + "\n")
    print(f"row: {args.out}")


if __name__ == "__main__":
    main()
