"""How fast architectures train and make images on this machine, beside no other loop."""

from __future__ import annotations

import ctypes
import gc
import statistics
from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
import yaml
from lightning.fabric.utilities.apply_func import move_data_to_device

import zoo
from zoo import datamodules, recipes
from zoo.base import AdversarialModel, SingleObjectiveModel
from zoo.base.growing import GrowingGAN
from zoo.bench.driving import Endless, Program, cycle, fit, skip_pretraining
from zoo.bench.flops import Operations
from zoo.bench.random_batches import random_batch
from zoo.callbacks.measures import calls_per_second
from zoo.engine.files import nearest

__all__ = ["Form", "Speed", "choose", "forms", "time_form", "warm_up"]


@dataclass(frozen=True)
class Form:
    """An architecture as it is timed: with the settings of one of its recipes.

    Attributes:
        architecture: name of the class.
        recipe: name of the recipe.
    """

    architecture: str
    recipe: str

    def build(self) -> tuple[Any, Any]:
        """The model, and the DataModule of the recipe, unopened."""
        settings = yaml.safe_load(recipes.find(self.recipe).read_text())
        part = settings["data"]
        data = getattr(datamodules, part["class_path"].rpartition(".")[2])(**part.get("init_args", {}))
        given = settings["model"].get("init_args", {})
        kind = getattr(zoo, self.architecture)
        model = kind(**given | kind.options_for(data, given))
        skip_pretraining(model)
        if isinstance(model, GrowingGAN):  # to its full size
            growth, stages = model.growth, len(model.growth_schedule.resolutions)
            model.images_seen.fill_(2 * stages * (growth.training_images + growth.transition_images))
            model.grow(int(model.images_seen))
        return model, data


@dataclass
class Speed:
    """What was measured of an architecture.

    Attributes:
        architecture: name of the class.
        recipe: the recipe whose settings it has.
        image: shape (C, H, W) of an image.
        batch_size: images of a step.
        parameters: number of parameters, of averages too.
        training_images_per_second: median over stretches of training.
        sampling_images_per_second: of `made_by`; None if the model makes no images.
        made_by: "sample", or "real_and_fake" of models that make images of images.
        num_sampled: images made at a time.
        peak_memory_bytes: most that the allocator held in training on CUDA; on a CPU, by how much the process's
            resident set grew in building and training. None where the system does not tell.
        outside_passes: share of a training step that is neither an objective nor a backward pass: the loop, logging,
            optimizers, averages. None for models whose step this package does not write.
        flops_per_image: operations of a training step, divided by its images.
    """

    architecture: str
    recipe: str
    image: tuple[int, int, int]
    batch_size: int
    parameters: int
    training_images_per_second: float = 0.0
    sampling_images_per_second: float | None = None
    made_by: str | None = None
    num_sampled: int | None = None
    peak_memory_bytes: int | None = None
    outside_passes: float | None = None
    flops_per_image: float = 0.0


def forms() -> list[Form]:
    """All architectures, each with a recipe: a small one if there is one, of MNIST if there is one.

    Networks of one class that differ in their `layer` are forms of their own.
    """
    found: dict[tuple[str, str], tuple[Any, Form]] = {}
    for name in recipes.list_recipes():
        settings = yaml.safe_load(recipes.find(name).read_text())
        if "data_dir" in settings["data"].get("init_args", {}) or name.endswith("-paper"):
            continue
        kind = settings["model"]["class_path"].rpartition(".")[2]
        key = kind, settings["model"].get("init_args", {}).get("layer", "")
        rank = not name.endswith("-small"), "-mnist28" not in name, len(name), name
        found[key] = min(found.get(key, (rank, Form(kind, name))), (rank, Form(kind, name)), key=lambda pair: pair[0])
    return [form for _, (_, form) in sorted(found.items())]


def choose(names: str) -> list[Form]:
    """Forms by the names of their architectures or recipes.

    Args:
        names: separated by commas; capitals and underscores do not matter.

    Raises:
        ValueError: there is no such architecture; names the nearest.
    """
    known = forms()
    chosen: list[Form] = []
    for name in (part.strip() for part in names.split(",")):
        found = [f for f in known if _plain(name) in (_plain(f.architecture), _plain(f.recipe))]
        if not found and name in recipes.list_recipes():
            settings = yaml.safe_load(recipes.find(name).read_text())
            found = [Form(settings["model"]["class_path"].rpartition(".")[2], name)]
        if not found:
            hint = nearest(name.lower(), sorted({form.architecture.lower() for form in known}))
            raise ValueError(f"there is no architecture {name!r}: {hint}")
        chosen += [form for form in found if form not in chosen]
    return chosen


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")


def warm_up(device: torch.device, precision: str) -> None:
    """Let libraries load what they load once, which else would count for the architecture that is timed first.

    Args:
        device: where the architectures will work.
        precision: of their training.
    """
    model = zoo.DCGAN(8, base_channels=4)

    def program(_: Any) -> Program:
        yield 1

    fit(model, Endless([random_batch(model, 4)]), program, device, precision)
    model.sample(4, seed=0)


def time_form(form: Form, device: torch.device, precision: str = "32-true", seconds: float = 5.0) -> Speed:
    """Time an architecture on batches of random numbers that are on the device already.

    Args:
        form: the architecture.
        device: where it works.
        precision: of training, as in Lightning; images are made in the type of the weights.
        seconds: how long each of the two measurements goes on, at least.
    """
    memory = _Memory(device)
    model, data = form.build()
    size = data.batch_size
    batches = [move_data_to_device(random_batch(model, size, data, seed), device) for seed in range(4)]
    parameters = sum(p.numel() for p in model.parameters())
    found = Speed(form.architecture, form.recipe, model.image_shape, size, parameters)
    steps = cycle(model)

    def program(model: Any) -> Program:
        yield max(steps, 3)
        rates: list[float] = []
        begun = perf_counter()
        while not rates or perf_counter() - begun < seconds:
            start = perf_counter()
            yield steps
            _wait(device)
            rates.append(steps * size / (perf_counter() - start))
        found.training_images_per_second = statistics.median(rates)
        found.peak_memory_bytes = memory.peak()
        found.outside_passes = yield from _outside(model, steps, device, seconds / 5)
        with Operations() as counted:
            yield steps
        found.flops_per_image = counted.get_total_flops() / steps / size

    fit(model, Endless(batches), program, device, precision)
    model.to(device)  # Lightning takes it back to the CPU
    if model.makes_images:
        _time_images(found, model, batches[0], device, seconds)
    return found


def _time_images(found: Speed, model: Any, batch: Any, device: torch.device, seconds: float) -> None:
    """How fast a model makes images: from nothing if it can, else of a batch."""
    found.num_sampled = 64
    call: Callable[[], object] = partial(model.sample, found.num_sampled, seed=0)
    found.made_by = "sample"
    try:
        model.sample(1, seed=0)
    except NotImplementedError:
        found.made_by, found.num_sampled = "real_and_fake", found.batch_size
        call = partial(model.real_and_fake, batch, seed=0, first=0)
    with torch.no_grad():
        found.sampling_images_per_second = found.num_sampled * calls_per_second(call, device, seconds)


# Inside a step --------------------------------------------------------------------------------------------------------


def _outside(model: Any, steps: int, device: torch.device, seconds: float) -> Generator[int, None, float | None]:
    """Share of steps that is neither an objective nor a backward pass; each of those is waited for."""
    inside, within = 0.0, False

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            nonlocal inside, within
            if within:
                return function(*args, **options)
            _wait(device)
            start, within = perf_counter(), True
            try:
                return function(*args, **options)
            finally:
                _wait(device)
                inside, within = inside + perf_counter() - start, False

        return call

    if isinstance(model, AdversarialModel):
        objectives = {name: timed(loss) for name, loss in model.objectives().items()}
        own = {"forward_shared": timed(model.forward_shared), "objectives": lambda: objectives}
    elif isinstance(model, SingleObjectiveModel):
        own = {"objective": timed(model.objective)}
    else:
        return None
    backward = torch.autograd.backward
    vars(model).update(own)
    torch.autograd.backward = timed(backward)
    try:
        _wait(device)
        start, whole = perf_counter(), 0.0
        while whole <= seconds:
            yield steps
            _wait(device)
            whole = perf_counter() - start
        return 1 - inside / whole
    finally:
        torch.autograd.backward = backward
        for name in own:
            del vars(model)[name]


def _wait(device: torch.device) -> None:
    """Until the device has done its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class _Memory:
    """Peak of memory from here on.

    Args:
        device: on CUDA the allocator tells; of other devices the process's resident set, which holds more than tensors.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        gc.collect()
        self.before: int | None = None
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
            return
        # What was freed before goes back to the system, else it would serve again and not be seen.
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # the peak is now what is resident now
            self.before = _resident("VmRSS")

    def peak(self) -> int | None:
        """Bytes; None where the system does not tell."""
        if self.device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self.device))
        return None if self.before is None else max(0, _resident("VmHWM") - self.before)


def _resident(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))
