"""Averages of networks over the training, which then serve inference in their place."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from zoo.base.model import GenerativeModel
from zoo.nn.layers import update_ema

__all__ = ["AveragedModel"]


class AveragedModel(GenerativeModel):
    """A model that may keep an exponential moving average of some of its networks.

    Attributes:
        averaged_networks: names of the networks that `ema_decay` averages; the averages are `<name>_ema`.
        ema_decay: decay of the average; None keeps none.
        lies_channels_last: whether the networks' weights are laid out channels last.
    """

    averaged_networks: tuple[str, ...] = ("generator",)
    ema_decay: float | None = None
    lies_channels_last = False  # a torch.memory_format could not be pickled by torch.save

    @property
    def memory_format(self) -> torch.memory_format:
        """Layout of the networks' weights and of their images."""
        return torch.channels_last if self.lies_channels_last else torch.contiguous_format

    def lay_out(self) -> None:
        """Bring the networks' weights into the chosen memory layout: the same values."""
        if self.lies_channels_last:
            self.to(memory_format=torch.channels_last)

    def average_networks(self) -> None:
        """Lay out the networks and keep the average that `ema_decay` asks for; called once the networks are built."""
        self.lay_out()  # here too, so that a loaded model samples in the layout that it was trained in
        for name in self.averaged_networks:
            kept = None if self.ema_decay is None else copy.deepcopy(getattr(self, name)).requires_grad_(False).eval()
            setattr(self, f"{name}_ema", kept)
        if self.ema_decay is not None:
            averaged = {name: f"{name}_ema" for name in self.averaged_networks}
            self.inference_networks = tuple(averaged.get(name, name) for name in self.inference_networks)
            self.optional_networks = tuple(averaged.get(name, name) for name in self.optional_networks)

    def averaged(self, name: str, purpose: str = "a network is missing") -> nn.Module:
        """The network that serves inference under this name: its average, or itself if none is kept.

        Args:
            name: name of the network in training.
            purpose: see `require_network`.
        """
        kept = getattr(self, f"{name}_ema", None) is not None
        return self.require_network(f"{name}_ema" if kept else name, purpose)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """An average that the checkpoint lacks starts at its network; one that is no longer kept is left out."""
        state = checkpoint["state_dict"]
        for name in self.averaged_networks:
            held = any(key.startswith(f"{name}_ema.") for key in state)
            if self.ema_decay is not None and not held:
                own = {k: v for k, v in state.items() if k.startswith(f"{name}.")}
                state.update({f"{name}_ema.{k.removeprefix(f'{name}.')}": v for k, v in own.items()})
            elif self.ema_decay is None and held:
                for key in [key for key in state if key.startswith(f"{name}_ema.")]:
                    del state[key]
        super().on_load_checkpoint(checkpoint)

    def move_averages(self) -> None:
        """Move the averages on, after a step of their networks."""
        if self.ema_decay is not None:
            for name in self.averaged_networks:
                update_ema(getattr(self, f"{name}_ema"), getattr(self, name), self.ema_decay)
