"""The losses of an adversarial model on images that it is not trained on."""

from __future__ import annotations

from functools import reduce
from operator import add
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from zoo.base.batches import Batch, image_of
from zoo.engine.cross_rank import alone

if TYPE_CHECKING:
    from zoo.base.adversarial import AdversarialModel
    from zoo.base.model import Terms

__all__ = ["evaluated_terms", "log_objectives"]


def log_objectives(model: AdversarialModel, split: str, batch: Batch, batch_idx: int) -> None:
    """Log the terms of all phases on a batch of a split, such as `val/generator/adversarial`, as means over the split.

    Nothing of the model changes: networks are in evaluation mode, draws have keys of their own, gradients serve only
    the terms that need them, and image pools are left alone.

    Args:
        model: a model in evaluation mode.
        split: prefix of the names.
        batch: a batch of the split.
        batch_idx: its number on this rank.
    """
    model.evaluated = split, int(model.global_rank), batch_idx
    try:
        # Gradient penalties differentiate; tensors that were made in inference mode cannot. Ranks may have unequal
        # numbers of batches.
        with alone(), torch.inference_mode(False), torch.enable_grad():
            batch = {name: value.clone() if isinstance(value, Tensor) else value for name, value in batch.items()}
            terms = evaluated_terms(model, batch)
    finally:
        model.evaluated = None
    logged = {f"{split}/{name}": value for name, value in terms.items()}
    model.log_dict(logged, on_epoch=True, sync_dist=True, batch_size=len(image_of(batch)))


def evaluated_terms(model: AdversarialModel, batch: Batch) -> Terms:
    """All terms of all phases, and the sum of each phase as `<phase>/loss`, for a batch.

    Args:
        model: the model.
        batch: a batch.

    Shape:
        Outputs: scalars, without gradients.
    """
    shared, logged = model.forward_shared(batch), dict[str, Tensor]()
    for phase, loss in model.objectives().items():
        terms = {name: value.detach() for name, value in loss(batch, shared).items()}
        logged[f"{phase}/loss"] = reduce(add, terms.values())
        logged |= {f"{phase}/{name}": value for name, value in terms.items()}
    return logged
