"""Models that travel: loaded from an address, pushed to one."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from zoo.engine import published

if TYPE_CHECKING:
    import torch

__all__ = ["Shared"]


class Shared:
    """Loading and pushing under the names that the Hugging Face Hub's tools have for them."""

    @classmethod
    def from_pretrained(
        cls, address: str, *, device: str | torch.device = "cpu", trust: str | Iterable[str] = ()
    ) -> Self:
        """A published model of this class, in evaluation mode.

        Args:
            address: `OWNER/NAME` of a repository of the Hugging Face Hub, or whatever `zoo.load` takes.
            device: where the model goes.
            trust: names of packages whose classes may be built, beside that of this class.

        Raises:
            LookupError: there is no such checkpoint.
            ValueError: the checkpoint is damaged, or of another class.
            OSError: it could not be fetched.
        """
        trusted = [cls.__module__, *([trust] if isinstance(trust, str) else trust)]
        model: Any = published.load(_on_hub(address), device=device, trust=trusted)
        if not isinstance(model, cls):
            raise ValueError(f"{address} is a {type(model).__name__}, no {cls.__name__}: zoo.load takes both")
        return model

    def push_to_hub(self, address: str, *, private: bool = False, dry_run: bool = False) -> str:
        """Push the model with all its networks and a card; `zoo push` pushes a run with its values, too.

        Args:
            address: `OWNER/NAME` of a repository of the Hugging Face Hub, which is made if there is none, or an address
                as `zoo push` takes it.
            private: make a private repository.
            dry_run: write the files into a folder of the cache, and push nothing.

        Returns:
            The address from which `zoo.load` loads it, or the folder of the files.

        Raises:
            ValueError: nothing can be pushed to this address.
            OSError: it could not be pushed.
        """
        return published.push(self, _on_hub(address), private=private, dry_run=dry_run)


def _on_hub(address: str) -> str:
    """An address in full: `OWNER/NAME` is one of the Hub, where there is no such folder."""
    is_repository = re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w./-]+)?", address) and not Path(address).parent.is_dir()
    return f"hf://{address}" if is_repository else address
