"""Options that belong together, as one hyperparameter."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

__all__ = ["OptionGroup"]


@dataclass(frozen=True)
class OptionGroup:
    """A dataclass whose fields are options: recipes nest them, checkpoints and headers keep them as plain types."""

    @classmethod
    def of(cls, value: Self | Mapping[str, Any] | None) -> Self | None:
        """A group from what a hyperparameter holds: the group itself, some of its fields, or None.

        Raises:
            ValueError: there is no such field.
        """
        if not isinstance(value, Mapping):
            return value
        names = [field.name for field in dataclasses.fields(cls)]
        if unknown := sorted(value.keys() - set(names)):
            raise ValueError(f"{cls.__name__.lower()} has no field {unknown[0]!r}: take {', '.join(names)}")
        return cls(**value)

    def fields(self) -> dict[str, Any]:
        """The fields that differ from their defaults, as plain types: `of(fields)` is the same group."""
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        return {name: value for name, value in dataclasses.asdict(self).items() if value not in (defaults[name], {})}
