"""The constructor's arguments of a variant, and behind them its parent's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning.fabric.utilities.data import AttributeDict

__all__ = ["Hyperparameters"]


class Hyperparameters(AttributeDict):
    """A variant's own arguments. What its parent was given is found, too, but neither listed nor saved.

    So `type(model)(**model.hparams)` builds the model again, and the parent's code reads its options as ever.

    Args:
        inherited: the parent's arguments.
    """

    def __init__(self, inherited: Mapping[str, Any]) -> None:
        super().__init__()
        self.__dict__["inherited"] = inherited  # items are attributes here, and attributes items

    def __missing__(self, key: str) -> Any:
        return self.__dict__["inherited"][key]
