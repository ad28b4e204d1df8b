"""What the page has to know of a model."""

from __future__ import annotations

from typing import Any

from zoo.base import GenerativeModel
from zoo.base.latent import ClassCodeModel, LatentVariableModel
from zoo.base.loaded import absent_networks
from zoo.base.noise import NoiseToImageGAN
from zoo.classifier import Classifier
from zoo.export.functions import Function, functions_of
from zoo.nn.text import ALPHABET, CharEncoder
from zoo.semi_supervised_aae import SemiSupervisedAAE

__all__ = ["described", "has_panels", "page_functions"]

FUNCTIONS = ("generate", "reconstruct", "classify", "encode_text", "translate")
"""Functions that the page calls; of models with a network for each direction also `translate:<domain>`."""


def page_functions(model: GenerativeModel) -> dict[str, Function]:
    """The functions of a model that the page calls, by name."""
    return {name: found for name, found in functions_of(model).items() if name.partition(":")[0] in FUNCTIONS}


def described(model: GenerativeModel, slug: str, data: str | None = None) -> dict[str, Any]:
    """An entry of models.json.

    Args:
        model: the model.
        slug: what the page calls it.
        data: name of the class of its data set, if that is known.
    """
    functions = {name: {"inputs": list(function.inputs)} for name, function in page_functions(model).items()}
    absent = {*absent_networks(model)}
    translates = any(name.partition(":")[0] == "translate" for name in functions)
    joint = translates and "domain" in functions.get("translate", {}).get("inputs", ())
    return {
        "slug": slug,
        "class": type(model).__name__,
        "data": data,
        "parameters": sum(p.numel() for name, p in model.named_parameters() if name.partition(".")[0] not in absent),
        "shape": list(model.image_shape),
        "classes": getattr(model, "num_classes", 0) or 0,
        "supervised": isinstance(model, Classifier | SemiSupervisedAAE),
        "latent": _latent(model),
        "text": _text(model),
        # Images of two label sets need their own labels beside them, which no picture of a visitor has.
        "domains": list(model.target_names) if translates and not joint else None,  # type: ignore[arg-type]
        "examples": [],
        "credit": "",
        "functions": functions,
    }


def has_panels(entry: dict[str, Any]) -> bool:
    """Whether the page has something to show of a model.

    Args:
        entry: what `described` gives.
    """
    functions = entry["functions"]
    digits = entry["shape"] == [1, 28, 28] and {"reconstruct", "classify"} & functions.keys()
    return bool(entry["domains"] or digits or (entry["latent"] and "generate" in functions))


def _latent(model: Any) -> dict[str, Any] | None:
    """How the page draws what `model.latent` draws; None for what it cannot draw."""
    if hasattr(model, "codes") and hasattr(model.codes, "num_draws"):  # InfoGAN
        return {
            "kind": "codes",
            "size": model.latent_dim,
            "normal": model.noise_kind == "normal",
            "categorical": list(model.codes.categorical),
            "continuous": model.codes.continuous,
        }
    if isinstance(model, LatentVariableModel):
        if isinstance(model, ClassCodeModel) or getattr(model, "prior_kind", "gaussian") != "gaussian":
            return None
        return {"kind": "normal", "size": model.latent_dim, "std": model.prior_std, "code": True}
    if not isinstance(model, NoiseToImageGAN):
        return None
    if model.noise_kind == "uniform":
        return {"kind": "uniform", "size": model.latent_dim, "limit": model.noise_limit}
    return {"kind": "normal", "size": model.latent_dim, "std": 1.0}


def _text(model: Any) -> dict[str, Any] | None:
    """How the page turns a sentence into numbers."""
    encoder = getattr(model, "text_encoder", None)
    if not isinstance(encoder, CharEncoder):
        return None
    example = next(iter(model.prompts), "")
    return {"alphabet": ALPHABET, "max_length": encoder.max_length, "example": example}
