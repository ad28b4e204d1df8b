"""Checks before a run: does a model or a DataModule fit, and are numbers large enough?"""

from __future__ import annotations

__all__ = ["check_at_least", "require_protocol"]


def require_protocol(thing: object, protocol: type, caller: str) -> None:
    """Check that a model or DataModule has what a callback or a measure needs.

    Args:
        thing: the model or the DataModule.
        protocol: a runtime-checkable Protocol.
        caller: name of the callback or measure, for the message.

    Raises:
        TypeError: the thing lacks an attribute of the Protocol; the message names the attribute.
    """
    if isinstance(thing, protocol):
        return
    needed = sorted(name for name in vars(protocol) | protocol.__annotations__ if not name.startswith("_"))
    if thing is None:
        raise TypeError(f"{caller} needs a DataModule with {' and '.join(needed)}: give the Trainer datamodule=...")
    missing = [name for name in needed if not hasattr(thing, name)]
    raise TypeError(f"{caller} needs {' and '.join(missing)}, which {type(thing).__name__} does not have")


def check_at_least(caller: str, least: int, **values: float | None) -> None:
    """Check arguments that have a lower limit.

    Args:
        caller: name of the callback or measure, for the message.
        least: the limit.
        values: the arguments by name; None passes.

    Raises:
        ValueError: names the first that is below.
    """
    for name, value in values.items():
        if value is not None and value < least:
            raise ValueError(f"{caller}: {name} must be at least {least}, not {value}")
