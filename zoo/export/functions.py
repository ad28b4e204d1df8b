"""The functions of a model that can be exported: from which inputs, to which outputs."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from zoo.base import GenerativeModel
from zoo.base.autoregressive import AutoregressiveModel
from zoo.base.latent import ClassCodeModel, LatentVariableModel
from zoo.base.loaded import absent_networks
from zoo.base.noise import NoiseToImageGAN
from zoo.base.sentences import SentenceToImageGAN
from zoo.nn.text import ALPHABET, CharEncoder

__all__ = ["Function", "Program", "function_named", "functions_of"]

IMAGES = "images in [-1, 1]"


@dataclass(frozen=True)
class Function:
    """A function of a model as a graph has it.

    Attributes:
        name: what `--function` calls it.
        call: the function, of the model and its inputs by name.
        draw: inputs by name, for a number of images and a seed.
        inputs: what each input means and in which range it lies, by name.
        outputs: the same of the outputs.
        text: what the function does.
    """

    name: str
    call: Callable[..., Any]
    draw: Callable[[int, int], dict[str, Tensor]]
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    text: str = field(default="")


class Program(nn.Module):
    """One function of a model, with the networks that it runs and no others.

    Args:
        model: the model, which stays as it is.
        function: the function.

    Shape:
        Inputs and outputs: those of the function, in its order or by name.
    """

    def __init__(self, model: GenerativeModel, function: Function) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        for name in _idle_networks(self.model, function):
            delattr(self.model, name)
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        signature = inspect.Signature([inspect.Parameter(name, kind) for name in function.inputs])

        def forward(*args: Tensor, **kwargs: Tensor) -> Any:
            return function.call(self.model, **signature.bind(*args, **kwargs).arguments)

        forward.__signature__ = signature  # type: ignore[attr-defined]  # `torch.export` names the inputs after it
        self.forward = forward


def _idle_networks(model: GenerativeModel, function: Function) -> list[str]:
    """The networks that a function leaves alone."""
    ran: set[str] = set()
    hooks = [
        module.register_forward_pre_hook(lambda *_, name=name: ran.add(name))
        for name, network in model.named_children()
        for module in network.modules()
    ]
    try:
        function.call(model, **function.draw(1, 0))
    finally:
        for hook in hooks:
            hook.remove()
    return [name for name, _ in model.named_children() if name not in ran]


def functions_of(model: GenerativeModel) -> dict[str, Function]:
    """All functions of a model that can be exported, by name.

    Args:
        model: the model; functions of networks that its file does not hold are left out.
    """
    found = [*_from_noise(model), *_from_images(model), *_between_domains(model), *_from_text(model)]
    absent = {*absent_networks(model)}
    return {function.name: function for function in found if not absent or _runs(model, function)}


def function_named(model: GenerativeModel, name: str, what: str) -> Function:
    """A function of a model.

    Args:
        model: the model.
        name: name of the function.
        what: what the model is called in the message.

    Raises:
        ValueError: the model has none of this name; names those that it has.
    """
    known = functions_of(model)
    if name in known:
        return known[name]
    own = ", ".join(known)
    if name == "sample" and isinstance(model, AutoregressiveModel):
        raise ValueError(f"{what} draws one value after the other, which is no graph: export {own}")
    raise ValueError(f"{what} ({type(model).__name__}) has no function {name!r} to export: it has {own}")


def _runs(model: GenerativeModel, function: Function) -> bool:
    try:
        function.call(model, **function.draw(1, 0))
    except (ValueError, NotImplementedError):
        return False
    return True


def _method(name: str, **fixed: Any) -> Callable[..., Any]:
    return lambda model, **inputs: getattr(model, name)(**inputs, **fixed)


def _text(model: GenerativeModel, method: str) -> str:
    return (inspect.getdoc(getattr(type(model), method)) or "").partition("\n")[0]


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _images(model: Any, n: int, seed: int, *more: int) -> Tensor:
    """Random images: flat areas with noise, so that networks see neither noise alone nor a constant."""
    draws = torch.rand(n, *more, *model.image_shape, generator=_generator(seed))
    level = torch.rand(n, *more, *[1] * len(model.image_shape), generator=_generator(seed + 1))
    images: Tensor = ((draws + level) - 1).to(model.device, model.dtype)
    return images


# What the functions take ---------------------------------------------------------------------------------------------


def _noise_range(model: Any) -> str:
    if hasattr(model, "codes") and hasattr(model.codes, "num_draws"):  # InfoGAN
        z = "N(0, 1)" if model.noise_kind == "normal" else "U(-1, 1)"
        return f"{model.latent_dim} numbers from {z}, one-hot categories, continuous codes from U(-1, 1)"
    if isinstance(model, LatentVariableModel):
        kind = getattr(model, "prior_kind", "gaussian")
        prior = f"N(0, {model.prior_std:g}^2)" if kind == "gaussian" else f"{model.prior_std:g} times a {kind}"
        first = f"one-hot class of {model.num_classes}, then " if isinstance(model, ClassCodeModel) else ""
        return f"{first}code from {prior}"
    kind, limit = getattr(model, "noise_kind", "uniform"), getattr(model, "noise_limit", 1.0)
    return "noise from N(0, 1)" if kind == "normal" else f"noise from U({-limit:g}, {limit:g})"


def _from_noise(model: Any) -> list[Function]:
    """`generate`, `sample`, which is the same function under the other name, `decode` and `assemble`."""
    found = []

    def draw(n: int, seed: int) -> dict[str, Tensor]:
        if isinstance(model, SentenceToImageGAN):
            shape = n, model.hparams["text_features"]
            z = model.latent(n, seed=seed)
            return {"z": z, "embedding": torch.randn(shape, generator=_generator(seed)).to(z)}
        inputs: dict[str, Tensor] = model.sample_inputs(n, seed, 0)
        return inputs

    if isinstance(model, NoiseToImageGAN | LatentVariableModel):
        inputs = {"z": _noise_range(model)}
        if getattr(model, "num_classes", 0) and isinstance(model, NoiseToImageGAN):
            inputs["label"] = f"classes 0..{model.num_classes - 1}"
        if isinstance(model, SentenceToImageGAN):
            inputs["embedding"] = "embeddings of sentences, as `encode_text` gives them"
        for name in ("generate", "sample"):
            text = _text(model, "generate")
            found.append(Function(name, _method("generate"), draw, inputs, {"image": IMAGES}, text))
    if hasattr(model, "decode"):

        def codes(n: int, seed: int) -> dict[str, Tensor]:
            own = hasattr(model, "latent")
            return {"z": model.latent(n, seed=seed) if own else model.encode(_images(model, n, seed))}

        meaning = _noise_range(model) if hasattr(model, "latent") else "codes"
        found.append(
            Function("decode", _method("decode"), codes, {"z": meaning}, {"image": IMAGES}, _text(model, "decode"))
        )
    if hasattr(model, "assemble"):

        def parts(n: int, seed: int) -> dict[str, Tensor]:
            return {"patches": _images(model, n, seed, 3), "z": model.noise(n, seed)}

        found.append(
            Function(
                "assemble",
                lambda model, patches, z: model(patches, z, averaged=True),
                parts,
                {"patches": "3 patches of each image, resized to its size, in [-1, 1]", "z": _noise_range(model)},
                {"image": IMAGES, "mask": "where the patches are, in [0, 1]"},
                _text(model, "assemble"),
            )
        )
    return found


IMAGE_FUNCTIONS = {
    "encode": ("code", "codes, without noise"),
    "reconstruct": ("image", IMAGES),
    "classify": ("probabilities", "probabilities of the classes"),
    "log_prob": ("log_prob", "nats"),
    "bits_per_dim": ("bits_per_dim", "bits per sub-pixel"),
    "logits": ("logits", "logits of each sub-pixel given all before it"),
    "score": ("score", "anomaly score: higher is more anomalous"),
}
"""Functions of images alone: name and meaning of the output."""


def _from_images(model: Any) -> list[Function]:
    found = []
    for name, (output, meaning) in IMAGE_FUNCTIONS.items():
        draws_noise = name == "bits_per_dim" and getattr(model, "real_valued", False)
        if hasattr(model, name) and not draws_noise:
            found.append(
                Function(
                    name,
                    _method(name),
                    lambda n, seed: {"x": _images(model, n, seed)},
                    {"x": IMAGES},
                    {output: meaning},
                    _text(model, name),
                )
            )
    return found


def _between_domains(model: Any) -> list[Function]:
    """`translate`; where each direction has a network, `translate:<domain>`."""
    if not hasattr(model, "translate"):
        return []
    text, outputs, names = _text(model, "translate"), {"image": IMAGES}, list(model.target_names)
    if not hasattr(model, "labels"):
        return [
            Function(
                f"translate:{name}",
                _method("translate", target=name),
                lambda n, seed: {"x": _images(model, n, seed)},
                {"x": IMAGES},
                outputs,
                text,
            )
            for name in names
        ]
    inputs = {"x": IMAGES, "target": f"which label to change: {', '.join(f'{i} {n}' for i, n in enumerate(names))}"}
    if model.labels.joint:
        inputs["domain"] = "the images' own domain vectors, 0 or 1"

    def draw(n: int, seed: int) -> dict[str, Tensor]:
        target = torch.randint(len(names), (n,), generator=_generator(seed)).to(model.device)
        found = {"x": _images(model, n, seed), "target": target}
        if model.labels.joint:
            shape = n, model.labels.num_features
            found["domain"] = torch.randint(2, shape, generator=_generator(seed)).to(model.device, model.dtype)
        return found

    return [Function("translate", _method("translate"), draw, inputs, outputs, text)]


def _from_text(model: Any) -> list[Function]:
    """`encode_text`, of the numbers of characters."""
    name = "text_network" if hasattr(model, "text_network") else "text_encoder"
    network = getattr(model, name, None)
    if not isinstance(network, CharEncoder):
        return []

    def draw(n: int, seed: int) -> dict[str, Tensor]:
        letters = torch.randint(len(ALPHABET), (n, network.max_length), generator=_generator(seed))
        letters[:, network.max_length // 2 :] = len(ALPHABET)
        return {"characters": letters.to(model.device)}

    meaning = (
        f"numbers of lower-case characters in {ALPHABET!r}, the last one where there are two, else that of a space"
    )
    return [
        Function(
            "encode_text",
            lambda model, characters: getattr(model, name).embed(characters),
            draw,
            {"characters": f"{meaning}; {len(ALPHABET)} behind the end"},
            {"embedding": "embeddings of sentences"},
            _text(model, "encode_text"),
        )
    ]
