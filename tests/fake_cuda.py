"""A GPU run without a GPU: fake tensors know device, type and shape, but hold no numbers.

Whole fits and draws run under `FakeTensorMode`, which refuses operations on tensors of two devices, as a GPU does. The
mode below it notes what would make the host wait for the GPU, and refuses what fake tensors let pass: a generator of
the CPU for a draw on the GPU, and float64, which Apple's GPUs do not have. Gradients are zeros.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from lightning.fabric.utilities.apply_func import move_data_to_device
from lightning.pytorch import Trainer
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.callbacks import LambdaCallback
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.replays import Listing
from zoo.base import GenerativeModel
from zoo.engine import capture, devices, rng
from zoo.engine.finite import FiniteWatch
from zoo.engine.loop import ExactTraining

__all__ = ["Seen", "Watch", "captured_steps", "fit", "on_fake_cuda"]

aten = torch.ops.aten
WAITS = (aten._local_scalar_dense.default, aten.nonzero.default, aten.equal.default)
CROSSES = (aten.copy_.default, aten._to_copy.default, aten.index.Tensor, aten.index_put_.default)


class Watch(TorchDispatchMode):
    """Notes what makes the host wait for the GPU, and refuses what a fake tensor does not mind.

    Args:
        has_float64: whether the GPU computes in float64; else float64 is refused there.

    Attributes:
        waits: operations that wait, and where.
        float64: whether there was float64 on the GPU, beside keyed draws, which have another way where there is none.
    """

    def __init__(self, has_float64: bool) -> None:
        super().__init__()
        self.has_float64 = has_float64
        self.waits: list[str] = []
        self.float64 = self.drawing = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        leaves = tree_leaves((args, kwargs))
        places = {leaf.device.type for leaf in leaves if isinstance(leaf, Tensor)}
        places |= {torch.device(kwargs["device"]).type} if kwargs.get("device") else set()
        crosses = func in CROSSES and len(places) > 1 and not kwargs.get("non_blocking")
        if "cuda" in places and (crosses or func in WAITS):
            self.waits.append(f"{func} at {here()}")
        if "cuda" in places and any(isinstance(leaf, torch.Generator) and leaf.device.type == "cpu" for leaf in leaves):
            raise RuntimeError(f"{func}: a generator of the CPU for a GPU")
        if func is aten._local_scalar_dense.default:  # any number will do: this one exchanges images of pools
            return args[0].dtype == torch.bool or (0.25 if args[0].is_floating_point() else 0)
        if func in (aten._fused_sgd_.default, aten._fused_sgd_.tensor_lr, aten._fused_adam_.tensor_lr):  # not faked
            return None
        results = func(*args, **kwargs)
        for made in tree_leaves(results):
            if isinstance(made, Tensor) and made.device.type == "cuda" and made.dtype == torch.float64:
                self.float64 = self.float64 or not self.drawing
                assert self.has_float64, f"{func} at {here()}: float64 on a GPU that has none"
        return results


def here() -> str:
    """The line of the zoo that is running."""
    frames = traceback.extract_stack()
    zoo = [frame for frame in frames if "/zoo/" in frame.filename and "/tests/" not in frame.filename]
    return f"{Path(zoo[-1].filename).name}:{zoo[-1].lineno}" if zoo else "no line of the zoo"


def moved(self: nn.Module, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
    """Module._apply: torch's own cannot swap real tensors for fake ones."""
    for module in self.modules():
        parameters = {
            name: p if p is None else nn.Parameter(fn(p.detach()), p.requires_grad)
            for name, p in module._parameters.items()
        }
        module._parameters |= parameters
        module._buffers |= {name: b if b is None else fn(b) for name, b in module._buffers.items()}
    return self


def backward(tensors: Any, *_: Any, **__: Any) -> None:
    """torch.autograd.backward: torch's own asks the driver; here all gradients are zeros."""
    nodes: dict[Any, None] = {}  # in their order
    todo = [tensor.grad_fn for tensor in tree_leaves(tensors)]
    while todo:
        if (node := todo.pop()) is not None and node not in nodes:
            nodes[node] = None
            todo += [following for following, _ in node.next_functions]
    for leaf in [node.variable for node in nodes if hasattr(node, "variable")]:
        leaf.grad = torch.zeros_like(leaf)


def grad(outputs: Any, inputs: Any, *_: Any, **__: Any) -> tuple[Tensor, ...]:
    """torch.autograd.grad: zeros that depend on the outputs."""
    return tuple(0 * sum(o.sum() for o in tree_leaves(outputs)) + torch.zeros_like(i) for i in tree_leaves(inputs))


PATCHES: list[tuple[Any, str, Any]] = [
    (nn.Module, "_apply", moved),
    (torch.autograd, "backward", backward),
    (torch.autograd, "grad", grad),
    (CPUAccelerator, "setup_device", lambda *_: None),
    (torch.cuda, "default_generators", [torch.Generator()]),
    (torch.cuda.amp.common, "amp_definitely_not_available", bool),
    (torch.cuda, "is_bf16_supported", lambda: True),
    (FiniteWatch, "first_bad", lambda *_: None),  # the number is none
]


@contextmanager
def on_fake_cuda(has_float64: bool = True) -> Iterator[Watch]:
    """Tensors that are made inside are fake, and `cuda` is a device.

    Args:
        has_float64: whether it computes in float64; Apple's GPUs do not.
    """
    watch = Watch(has_float64)

    def drawn(draw: Callable[..., Tensor]) -> Callable[..., Tensor]:
        @wraps(draw)
        def wrapped(*args: Any, **kwargs: Any) -> Tensor:
            watch.drawing = True
            try:
                return draw(*args, **kwargs)
            finally:
                watch.drawing = False

        return wrapped

    with ExitStack() as stack:
        for place, name, value in PATCHES:
            stack.enter_context(patch.object(place, name, value))
        stack.enter_context(patch.object(rng, "normal", drawn(rng.normal)))
        if not has_float64:
            for module in (devices, rng):
                stack.enter_context(
                    patch.object(module, "has_float64", lambda at: torch.device(at or "cpu").type == "cpu")
                )
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        yield stack.enter_context(watch)


def on_gpu() -> dict[str, Any]:
    """Options of a Trainer on a fake GPU."""
    return {
        "accelerator": CPUAccelerator(),
        "strategy": SingleDeviceStrategy("cuda:0"),  # type: ignore[arg-type]
        "log_every_n_steps": 1000,
        "plugins": [MixedPrecision("bf16-mixed", "cuda")],
    }


@dataclass
class Seen:
    """What was seen of a fit.

    Attributes:
        steps: what made the host wait in each batch.
        draws: the same for each call of `sample`.
        float64: whether there was float64 on the GPU.
    """

    steps: list[list[str]] = field(default_factory=list)
    draws: list[list[str]] = field(default_factory=list)
    float64: bool = False


def fit(
    model: GenerativeModel,
    trainer: Callable[..., Trainer],
    data: Any,
    draws: Sequence[dict[str, Any]] = (),
    *,
    has_float64: bool = True,
) -> Seen:
    """A fit in bf16-mixed on a fake GPU, which takes up its own state of the rank after its first batch.

    Args:
        model: the model.
        trainer: makes a Trainer of options.
        data: the DataModule.
        draws: options of calls of `sample` after the first batch.
        has_float64: whether the GPU computes in float64.
    """
    seen = Seen()

    def start(run: Trainer, model: Any, *_: Any) -> None:
        assert {p.device.type for p in model.parameters()} == {"cuda"}
        watch.waits = []

    def end(run: Trainer, model: Any, *_: Any) -> None:
        seen.steps.append([*watch.waits])
        if len(seen.steps) > 1:
            return
        for options in draws:
            watch.waits = []
            assert model.sample(2, seed=0, **options).device.type == "cuda"
            seen.draws.append([*watch.waits])
        watch.waits = []
        (exact,) = (c for c in run.callbacks if isinstance(c, ExactTraining))  # type: ignore[attr-defined]
        exact._rank_state = move_data_to_device(model.rank_state_dict(), torch.device("cpu"))
        exact.on_train_start(run, model)

    callback = LambdaCallback(on_train_batch_start=start, on_train_batch_end=end)
    with on_fake_cuda(has_float64) as watch:
        run = trainer(**on_gpu(), callbacks=[callback])
        run.fit(model, datamodule=data)
        model.rank_state_dict()
    seen.float64 = watch.float64
    return seen


def captured_steps(model: GenerativeModel, trainer: Callable[..., Trainer], data: Any) -> list[list[tuple[str, ...]]]:
    """The operations of each captured step of a fit on a fake GPU, in words.

    Args:
        model: the model, with `capture`.
        trainer: makes a Trainer of options.
        data: the DataModule.
    """
    listing, waits = Listing(), list[str]()
    callback = LambdaCallback(
        on_train_batch_start=lambda *_: watch.waits.clear(), on_train_batch_end=lambda *_: waits.extend(watch.waits)
    )
    with patch.object(capture, "recorder", lambda device: listing), on_fake_cuda() as watch:
        trainer(**on_gpu(), callbacks=[callback]).fit(model, datamodule=data)
    assert not waits, waits
    return listing.steps
