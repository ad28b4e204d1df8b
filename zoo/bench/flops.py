"""Floating-point operations of training."""

from __future__ import annotations

import copy
from typing import Any

import torch
from lightning.fabric.utilities.apply_func import move_data_to_device
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.seed import isolate_rng
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from zoo.base.batches import image_of, named_fields
from zoo.base.growing import GrowingGAN
from zoo.bench.driving import Endless, Program, cycle, fit, skip_pretraining

__all__ = ["Operations", "flops_per_image", "images_for"]


class _Anywhere:
    """In the place of a tracker of modules, whose hooks refuse gradients of gradients."""

    parents = frozenset({"Global"})

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


class Operations(FlopCounterMode):
    """Counts floating-point operations of products of matrices, convolutions and attention, wherever they are done.

    A multiplication and an addition are two operations. Attention is done by products of matrices meanwhile: torch
    does not count those of its kernel for the CPU.
    """

    def __init__(self) -> None:
        super().__init__(display=False)
        self.mod_tracker = _Anywhere()  # type: ignore[assignment]

    def __enter__(self) -> Operations:
        self._attention = sdpa_kernel(SDPBackend.MATH)
        self._attention.__enter__()
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *args: Any) -> None:
        super().__exit__(*args)  # type: ignore[no-untyped-call]
        self._attention.__exit__(*args)


def flops_per_image(model: LightningModule, batch: Any) -> float:
    """Floating-point operations that training takes for an image: those of a step, divided by its images.

    Where phases rest in some steps, or gradients of several batches make a step, this is the mean over a cycle. Counted
    is on a copy of the model on the CPU, in the stage in which it is and after any pretraining: model and random
    generators are left as they were. In a distributed run this is for one process alone, before the others join.

    Args:
        model: the model, which need not be trained.
        batch: a training batch; its size matters only for objectives that compare its images.
    """
    copied: Any = copy.deepcopy(model).cpu()
    copied.compiled = copied.capture = False  # the operations are the same
    skip_pretraining(copied)
    batch = move_data_to_device(batch, torch.device("cpu"))
    images = len(image_of(named_fields(batch, getattr(model, "batch_fields", ("image",)), type(model).__name__)))
    total = 0.0

    def program(model: Any) -> Program:
        nonlocal total
        with Operations() as counted:
            yield cycle(model)
        total = counted.get_total_flops() / cycle(model)

    with isolate_rng():
        fit(copied, Endless([batch]), program, torch.device("cpu"))
    return total / images


def images_for(flops: float, model: LightningModule, batch: Any) -> int:
    """How many images a training from its start sees for a number of operations, at least one.

    Networks that grow take more for an image in each stage; the stages' costs are added up to a hundredth of a phase.

    Args:
        flops: operations of the whole training.
        model: the model, untrained.
        batch: as for `flops_per_image`.
    """
    if not isinstance(model, GrowingGAN):
        return max(1, round(flops / flops_per_image(model, batch)))
    growing, growth = copy.deepcopy(model), model.growth
    step = max(1, (growth.training_images + growth.transition_images) // 100)
    costs: dict[tuple[int, bool], float] = {}
    images, left = 0, flops
    while True:
        resolution, alpha, _ = model.schedule(images)
        stage = resolution, alpha < 1
        if stage not in costs:
            growing.images_seen.fill_(images)
            growing.grow(images)
            costs[stage] = flops_per_image(growing, batch)
        is_grown = stage == (model.growth_schedule.last, False)
        if is_grown or left <= step * costs[stage]:
            return max(1, images + round(left / costs[stage]))
        images, left = images + step, left - step * costs[stage]
