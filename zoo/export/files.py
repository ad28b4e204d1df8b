"""Writing a function of a model as a file, and running the file beside the model."""

from __future__ import annotations

import importlib
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import zoo
from zoo.base import GenerativeModel
from zoo.engine.files import write_atomically
from zoo.engine.quiet import silenced
from zoo.export.forms import PACKAGES
from zoo.export.functions import Function, Program

__all__ = ["LARGEST_DIFFERENCE", "export_file", "largest_difference", "opened", "require_packages", "serialized"]

LARGEST_DIFFERENCE = 1e-3
"""A file whose outputs differ from the model's by more is not written; relative where values are above 1."""
SIZES = (1, 7)
"""Images at a time when a file of any batch size is checked."""

NOISY = ("torch", "onnxscript", "onnx_ir")
"""Loggers of those who tell of their own parts when a graph is made."""

Run = Callable[[Mapping[str, Tensor]], Sequence[Tensor]]
"""A file in use: outputs of inputs by name."""


def export_file(
    model: GenerativeModel,
    function: Function,
    path: Path,
    *,
    form: str,
    dynamic_batch: bool = False,
    source: Mapping[str, str] | None = None,
) -> float:
    """Write a function of a model as a file, once the file has been compared with the model.

    Args:
        model: the model, in evaluation mode.
        function: one of its functions.
        path: where the file goes.
        form: "onnx" or "torch_export".
        dynamic_batch: take any number of images at a time, else one.
        source: further words for the file, such as the checkpoint's name and sha256.

    Returns:
        The largest difference between outputs of the file and of the model, relative where values are above 1.

    Raises:
        ModuleNotFoundError: a package is not installed.
        ValueError: the function cannot be exported, or the file computes something else; there is no file then.
        OSError: the file could not be written.
    """
    content = serialized(model, function, form=form, dynamic_batch=dynamic_batch, source=source)
    found = largest_difference(opened(content, form), model, function, SIZES if dynamic_batch else (1,))
    if not found <= LARGEST_DIFFERENCE:
        raise ValueError(
            f"{path} was not written: its outputs differ from the model's by up to {found:.2g}, "
            f"more than {LARGEST_DIFFERENCE:g}"
        )
    write_atomically(path, content)
    return found


def serialized(
    model: GenerativeModel,
    function: Function,
    *,
    form: str,
    dynamic_batch: bool = False,
    source: Mapping[str, str] | None = None,
) -> bytes:
    """The content of a file; arguments as for `export_file`.

    Raises:
        ModuleNotFoundError: a package is not installed.
        ValueError: the function cannot be exported.
    """
    require_packages(form)
    example = function.draw(2 if dynamic_batch else 1, 0)
    words = dict(source or {}) | described(model, function, example, dynamic_batch)
    batch = {0: torch.export.Dim("batch")} if dynamic_batch else None
    with silenced(*NOISY):
        try:
            program = torch.export.export(
                Program(model, function), tuple(example.values()), dynamic_shapes=dict.fromkeys(example, batch)
            )
            return _onnx(program, function, words) if form == "onnx" else _exported(program, words)
        except (RuntimeError, torch._dynamo.exc.TorchDynamoException, ValueError) as error:
            reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
            raise ValueError(f"{function.name} of this {type(model).__name__} is no graph: {reason}") from error


def require_packages(form: str) -> None:
    """Make sure that a form's packages are installed.

    Raises:
        ModuleNotFoundError: one is not; names the extra.
    """
    for package in PACKAGES[form]:
        try:
            importlib.import_module(package)
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                f"files of {form} need {package}: pip install 'generative-zoo[export]'"
            ) from error


def described(
    model: GenerativeModel, function: Function, example: Mapping[str, Tensor], dynamic_batch: bool
) -> dict[str, str]:
    """What a file says of itself: names, shapes, types and meanings of inputs and outputs, as JSON."""

    def described(tensors: Mapping[str, Tensor], meanings: Mapping[str, str]) -> str:
        first = "batch" if dynamic_batch else 1
        return json.dumps(
            {
                name: {
                    "shape": [first, *value.shape[1:]],
                    "dtype": str(value.dtype).removeprefix("torch."),
                    "meaning": meanings[name],
                }
                for name, value in tensors.items()
            }
        )

    outputs = dict(zip(function.outputs, _outputs(function.call(model, **example)), strict=True))
    return {
        "class": f"{type(model).__module__}.{type(model).__qualname__}",
        "function": function.name,
        "text": function.text,
        "inputs": described(example, function.inputs),
        "outputs": described(outputs, function.outputs),
        "generative-zoo": zoo.__version__,
    }


def opened(content: bytes, form: str) -> Run:
    """A file's content in use.

    Args:
        content: the content.
        form: "onnx" or "torch_export".
    """
    require_packages(form)
    if form == "torch_export":
        with silenced(*NOISY):
            module = torch.export.load(io.BytesIO(content)).module()
        return lambda inputs: _outputs(module(*inputs.values()))
    runtime: Any = importlib.import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = torch.get_num_threads(), 3
    session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def run(inputs: Mapping[str, Tensor]) -> list[Tensor]:
        outputs = session.run(None, {name: value.cpu().numpy() for name, value in inputs.items()})
        return [torch.from_numpy(output) for output in outputs]

    return run


@torch.no_grad()
def largest_difference(run: Run, model: GenerativeModel, function: Function, sizes: Sequence[int]) -> float:
    """The largest difference between a file's outputs and the model's, on inputs that the graph was not made with.

    Args:
        run: the file in use.
        model: the model.
        function: the function that the file holds.
        sizes: numbers of images at a time.

    Returns:
        The difference, relative where values are above 1; infinite where one of the two is not finite.
    """
    largest = 0.0
    for n in sizes:
        inputs = function.draw(n, 1 + n)
        pairs = zip(run(inputs), _outputs(function.call(model, **inputs)), strict=True)
        for found, expected in pairs:
            found, expected = found.double().cpu(), expected.double().cpu()
            if found.shape != expected.shape:
                return math.inf
            difference = ((found - expected).abs() / expected.abs().clamp(min=1)).max().item()
            largest = max(largest, difference if math.isfinite(difference) else math.inf)
    return largest


def _outputs(found: Any) -> tuple[Tensor, ...]:
    return tuple(found) if isinstance(found, tuple | list) else (found,)


def _exported(program: torch.export.ExportedProgram, words: Mapping[str, str]) -> bytes:
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={"zoo.json": json.dumps(words)})
    return buffer.getvalue()


def _onnx(program: torch.export.ExportedProgram, function: Function, words: Mapping[str, str]) -> bytes:
    made: Any = torch.onnx.export(
        program,
        (),
        input_names=list(function.inputs),
        output_names=list(function.outputs),
        dynamo=True,
        verbose=False,
    )
    made.model.metadata_props.update({f"zoo.{name}": word for name, word in words.items()})
    content: bytes = made.model_proto.SerializeToString()
    return content
