"""What a model made of a file is: which networks it holds, and how a fit starts from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lightning.pytorch.utilities import rank_zero_warn
from torch import nn

if TYPE_CHECKING:
    from zoo.base.model import GenerativeModel

__all__ = ["absent_networks", "mark_loaded", "start_training"]


@dataclass(frozen=True)
class Absent:
    """A hook of the modules of a network that the model's file does not hold: its weights mean nothing."""

    model: str
    network: str

    def __call__(self, module: nn.Module, inputs: Any) -> None:
        """Refuse the call.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            f"the file of this {self.model} does not hold {self.network}: it is untrained, a fit trains it"
        )


def mark_loaded(model: GenerativeModel, networks: Sequence[str] | None = None) -> None:
    """Say which networks of a model its file held.

    A network whose average was published takes the average's weights. Every other absent one refuses to be used.

    Args:
        model: a model that was built and has its weights, in training mode.
        networks: names of the networks that the file held; None for a checkpoint of a run, which holds all.
    """
    model.fresh_modes = {name for name, module in model.named_modules() if module.training}
    if networks is None:
        return
    model.available_networks = tuple(networks)
    for name in networks:
        trained = name.removesuffix("_ema")
        if trained not in networks:
            getattr(model, trained).load_state_dict(getattr(model, name).state_dict())
    for name in absent_networks(model):
        for module in getattr(model, name).modules():
            module.register_forward_pre_hook(Absent(type(model).__name__, name))


def absent_networks(model: GenerativeModel) -> list[str]:
    """Names of the networks that neither the model's file nor an average in it gave weights.

    Args:
        model: a loaded model; a new one lacks none.
    """
    if model.available_networks is None:
        return []
    held = {*model.available_networks, *(name.removesuffix("_ema") for name in model.available_networks)}
    return [
        name for name, network in model.named_children() if name not in held and any(True for _ in network.parameters())
    ]


def start_training(model: GenerativeModel) -> None:
    """At the start of a fit of a loaded model: all networks train, in the modes of a new model.

    Args:
        model: the model; one that was not loaded stays as it is.
    """
    if model.fresh_modes is None:
        return
    untrained = absent_networks(model)
    start = f"; untrained: {', '.join(untrained)}" if untrained else ""
    rank_zero_warn(f"this fit starts from the loaded weights of {type(model).__name__}{start}")
    modes, model.fresh_modes, model.available_networks = model.fresh_modes, None, None
    for name, module in model.named_modules():
        module.training = name in modes
        for key, hook in [*module._forward_pre_hooks.items()]:
            if isinstance(hook, Absent):
                del module._forward_pre_hooks[key]
