"""A whole step as one CUDA graph: the host says "again" instead of launching each kernel.

A graph repeats the kernels of one step with the same numbers from the host, at the same places of memory. So whatever
changes from step to step lies in tensors that stay where they are: the batch is copied into tensors of its own, and the
numbers that the host computes (keys of draws, learning rates, fades) go to the device together, before the step. Each
pattern of a step, such as the phases that are active, has a graph of its own. Its first steps run eagerly, on the
stream of the graph: optimizers make their states there, and libraries choose their kernels.

Without CUDA the same code runs eagerly; the weights are, bit for bit, those of the step that is not captured. On CUDA
learning rates are rounded to float32 on the way, as torch's fused optimizers ask.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer

from zoo.engine.devices import upload

__all__ = ["CapturedStep", "StepNumbers", "refusal"]

Body = Callable[[dict[str, Any]], dict[str, Tensor]]
"""A step: named results of a batch."""


class StepNumbers:
    """Numbers that change from step to step, in tensors that stay where they are.

    Args:
        device: where the tensors are.
    """

    most = 256
    """Numbers of a step."""

    def __init__(self, device: torch.device) -> None:
        self._bits = torch.zeros(self.most, dtype=torch.int64, device=device)
        self._computed: dict[str, Callable[[], int]] = {}
        self._tensors: dict[str, Tensor] = {}
        self.is_complete = False  # while a graph records the step

    def update(self) -> None:
        """Bring the numbers of the present step to the device, all in one copy."""
        if self._computed:
            bits = torch.tensor([compute() for compute in self._computed.values()])
            self._bits[: len(bits)].copy_(upload(bits, self._bits.device))

    def integer(self, name: str, compute: Callable[[], int]) -> Tensor:
        """What a function gives in each step.

        Args:
            name: tells the number from others.
            compute: gives a signed number of 64 bits.

        Shape:
            Output: scalar, int64.
        """
        return self._placed(name, compute, torch.int64)

    def number(self, name: str, compute: Callable[[], float], dtype: torch.dtype) -> Tensor:
        """The same for a number in floating point, float32 or float64.

        Shape:
            Output: scalar.
        """
        pack = "<d" if dtype == torch.float64 else "<fxxxx"
        return self._placed(name, lambda: struct.unpack("<q", struct.pack(pack, compute()))[0], dtype)

    def _placed(self, name: str, compute: Callable[[], int], dtype: torch.dtype) -> Tensor:
        if name not in self._tensors:
            place = len(self._computed)
            if self.is_complete or place == self.most:
                raise RuntimeError(f"a captured step asks for a number that it did not ask for before: {name}")
            self._computed[name] = compute
            self._tensors[name] = self._bits.view(dtype)[place * (8 // dtype.itemsize)]
            self._bits[place].fill_(compute())
        return self._tensors[name]


class Eagerly:
    """Runs steps as they come."""

    records = False

    def run(self, step: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """The results of a step."""
        return step()

    def record(self, step: Callable[[], dict[str, Tensor]]) -> tuple[Callable[[], None], dict[str, Tensor]]:
        """What repeats a step, and its results, which each repetition overwrites."""
        raise NotImplementedError


class CudaGraphs(Eagerly):
    """Records steps as CUDA graphs that share their memory.

    Args:
        device: the GPU.

    References:
        PyTorch's documentation, "CUDA semantics", on whole-network capture: a side stream for the eager steps and the
        recording; thread_local, because the thread that pins batches may ask the driver meanwhile.
    """

    records = True

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()

    def run(self, step: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """The results of a step on the stream of the graphs, as the nodes of autograd keep their stream."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            results = step()
        torch.cuda.current_stream().wait_stream(self._stream)
        return results

    def record(self, step: Callable[[], dict[str, Tensor]]) -> tuple[Callable[[], None], dict[str, Tensor]]:
        """A graph of the step, which computes nothing until it is replayed."""
        graph = torch.cuda.CUDAGraph()
        # Weights that autocast has rounded before would not be rounded again by the graph, and those that it rounds
        # while recording hold no numbers.
        torch.clear_autocast_cache()
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
            results = step()
        torch.clear_autocast_cache()
        return graph.replay, results


def recorder(device: torch.device) -> Eagerly:
    """What records steps on a device.

    Args:
        device: of the model.
    """
    return CudaGraphs(device) if device.type == "cuda" else Eagerly()


class CapturedStep:
    """The step of a model, run eagerly at first and then from graphs.

    Batches of another form than the first one, such as a smaller last one, run eagerly.

    Args:
        device: of the model.

    Attributes:
        numbers: what the host computes for each step.
    """

    eager_steps = 3
    """Steps of each pattern before it is recorded; a GPU's libraries choose their kernels in the first ones."""

    def __init__(self, device: torch.device) -> None:
        self.numbers = StepNumbers(device)
        self._recorder = recorder(device)
        # torch's fused optimizers read a rate from a float32 on CUDA; on a CPU they take it as the number it is.
        self._rates = torch.float32 if device.type == "cuda" else torch.float64
        self._inputs: dict[str, Any] | None = None
        self._eager: dict[Hashable, int] = {}
        self._graphs: dict[Hashable, tuple[Hashable, Callable[[], None], dict[str, Tensor]]] = {}

    def run(
        self, model: Any, batch: dict[str, Any], pattern: Hashable, optimizers: Iterable[Optimizer], body: Body
    ) -> dict[str, Tensor]:
        """One step.

        Args:
            model: whose `step_numbers` are those of the step while it runs.
            batch: tensors by name, and dicts of such; whatever else it holds is left out.
            pattern: what the host decides about the step.
            optimizers: of the model.
            body: the step.

        Returns:
            What the body returns; the next step may overwrite these tensors.
        """
        optimizers = [*optimizers]

        def step() -> dict[str, Tensor]:
            model.step_numbers = self.numbers
            try:
                with self._rates_on_device(optimizers):
                    return body(inputs)
            finally:
                model.step_numbers = None

        self.numbers.update()
        if self._inputs is None:
            self._inputs = _tensors(batch, torch.empty_like)
        if _form(batch) != _form(self._inputs):
            inputs = _tensors(batch, lambda tensor: tensor)
            return self._recorder.run(step)
        _copy(batch, inputs := self._inputs)
        if not self._recorder.records or self._eager.setdefault(pattern, 0) < self.eager_steps:
            self._eager[pattern] = self._eager.get(pattern, 0) + 1
            return self._recorder.run(step)
        options = _options(optimizers)
        if pattern not in self._graphs or self._graphs[pattern][0] != options:
            self._graphs.pop(pattern, None)  # its memory serves the new one
            self.numbers.is_complete = True
            try:
                self._graphs[pattern] = (options, *self._recorder.record(step))
            finally:
                self.numbers.is_complete = False
        _, replay, results = self._graphs[pattern]
        replay()
        return results

    @contextmanager
    def _rates_on_device(self, optimizers: list[Optimizer]) -> Iterator[None]:
        """Learning rates are tensors while a step runs, and numbers between steps, for schedules and checkpoints."""
        groups = [group for optimizer in optimizers for group in optimizer.param_groups]
        before = [(group["lr"], group.get("capturable")) for group in groups]
        for place, group in enumerate(groups):
            group["lr"] = self.numbers.number(f"rate {place}", _rate_of(group), self._rates)
            group["capturable"] = True
        try:
            yield
        finally:
            for group, (rate, capturable) in zip(groups, before, strict=True):
                group["lr"], group["capturable"] = rate, capturable
                if capturable is None:
                    del group["capturable"]


def _rate_of(group: dict[str, Any]) -> Callable[[], float]:
    return lambda: float(group["lr"])


def _options(optimizers: list[Optimizer]) -> Hashable:
    """What a graph keeps of optimizers: all options but the learning rate."""
    left_out = ("params", "lr", "initial_lr")
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    return tuple(tuple((k, repr(v)) for k, v in group.items() if k not in left_out) for group in groups)


def _tensors(batch: dict[str, Any], function: Callable[[Tensor], Tensor]) -> dict[str, Any]:
    """The tensors of a batch, each as a function makes it."""
    taken = {name: value for name, value in batch.items() if isinstance(value, Tensor | dict)}
    return {n: _tensors(v, function) if isinstance(v, dict) else function(v) for n, v in taken.items()}


def _form(batch: dict[str, Any]) -> tuple[Hashable, ...]:
    """Names, shapes and types of a batch's tensors."""
    taken = {name: value for name, value in batch.items() if isinstance(value, Tensor | dict)}
    return tuple((n, *(_form(v) if isinstance(v, dict) else (v.shape, v.dtype))) for n, v in taken.items())


def _copy(batch: dict[str, Any], inputs: dict[str, Any]) -> None:
    for name, held in inputs.items():
        _copy(batch[name], held) if isinstance(held, dict) else held.copy_(batch[name], non_blocking=True)


def refusal(trainer: Trainer, model: LightningModule, is_idle: bool) -> str | None:
    """Why the steps of a fit cannot be captured.

    Args:
        trainer: a Trainer at the start of a fit.
        model: its model.
        is_idle: whether nothing is done in a step but the step.
    """
    if model.device.type not in ("cuda", "cpu"):
        return f"{model.device.type} has no CUDA graphs"
    if getattr(model, "accumulate", 1) > 1 or trainer.accumulate_grad_batches > 1:
        return "a graph is a step of one batch, without accumulation"
    if type(trainer.strategy) is not SingleDeviceStrategy:
        return "ranks would wait for each other inside a graph: take devices=1"
    if getattr(trainer.precision_plugin, "scaler", None) is not None:
        return "the host decides about each fp16 step: take bf16-mixed"
    if not is_idle:
        return "a graph runs no hooks: take out what clips, profiles, or uses hooks between backward and step"
    for optimizer in trainer.optimizers:
        fused = all(group.get("fused") for group in optimizer.param_groups)
        if type(optimizer) not in (Adam, AdamW, SGD) or not fused:
            return f"a graph takes fused Adam or SGD, not {type(optimizer).__name__}{'' if fused else ' as it is'}"
    return None
