"""Figures of the networks of an architecture: each step's shape, as a batch that passes through leaves it."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn

from zoo.base import AdversarialModel
from zoo.bench.random_batches import random_batch
from zoo.bench.speed import Form

__all__ = ["Network", "Step", "figure", "networks"]

MOST = 14
"""Steps of a figure."""
ACROSS = 96
"""Pixels from one step to the next."""
GROUND, HIGH = 116, 100
"""Pixels from the top to the line below the bars, and of the highest bar."""


class Step(NamedTuple):
    """What a layer makes."""

    layer: str
    """Name of its class; nothing for the input."""
    shape: tuple[int, ...]
    """Without the number of images."""


class Network(NamedTuple):
    """A network and what passes through."""

    name: str
    kind: str
    parameters: int
    steps: tuple[Step, ...]


def networks(form: Form) -> list[Network]:
    """The networks of an architecture in training, with the settings of a recipe.

    Args:
        form: the architecture and the recipe.
    """
    with isolate_rng():
        model, data = form.build()
        batch = random_batch(model, 2, data)
        kept = {name: part for name, part in _parts(model) if not name.endswith("_ema")}
        calls: dict[str, list[Step]] = {name: [] for name in kept}
        hooks = [hook for name, part in kept.items() for hook in _record(part, calls[name])]
        if isinstance(model, AdversarialModel):
            shared = model.forward_shared(batch)
            for objective in model.objectives().values():
                if not all(calls.values()):
                    objective(batch, shared)
        else:
            model.objective(batch)
        for hook in hooks:
            hook.remove()
    return [
        Network(name, type(part).__name__, sum(p.numel() for p in part.parameters()), _short(calls[name]))
        for name, part in kept.items()
        if calls[name]
    ]


def _parts(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """The networks of a model, those in a dict or a list one by one."""
    found = []
    for name, child in model.named_children():
        if isinstance(child, nn.ModuleDict | nn.ModuleList):
            found += [(f"{name}.{key}", part) for key, part in child.named_children()]
        else:
            found.append((name, child))
    return found


def _record(network: nn.Module, steps: list[Step]) -> list[Any]:
    """Hooks that note what passes through a network at its first call."""
    done = False

    def start(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        steps.extend(Step("", _shape(value)) for value in inputs if isinstance(value, Tensor) and not done)

    def passed(module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and not done:
            steps.append(Step(type(module).__name__, _shape(output)))

    def end(module: nn.Module, inputs: Any, output: Any) -> None:
        nonlocal done
        if isinstance(output, Tensor) and not done and not _same(steps[-1].shape, _shape(output)):
            steps.append(Step("", _shape(output)))
        done = True

    leaves = [m for m in network.modules() if m is not network and not [*m.children()]]
    whole = [network.register_forward_pre_hook(start), network.register_forward_hook(end)]
    return [*whole, *(leaf.register_forward_hook(passed) for leaf in leaves)]


def _shape(value: Tensor) -> tuple[int, ...]:
    return tuple(value.shape[1:])


def _same(a: Sequence[int], b: Sequence[int]) -> bool:
    """Whether shapes differ in nothing but dimensions of length 1."""
    return [n for n in a if n > 1] == [n for n in b if n > 1]


def _short(steps: Sequence[Step]) -> tuple[Step, ...]:
    """Steps that change the shape; of very many, the first and the last."""
    kept = [step for i, step in enumerate(steps) if i == 0 or not step.layer or step.shape != steps[i - 1].shape]
    if len(kept) <= MOST:
        return tuple(kept)
    return (*kept[: MOST // 2], Step("…", ()), *kept[-(MOST // 2) + 1 :])


def words(shape: Sequence[int]) -> str:
    """A shape in words: 1 for a number, C × H × W for maps."""
    return " × ".join(map(str, shape)) or "1"


def figure(network: Network) -> str:
    """A network as a figure in SVG, a bar for each step: as high as the side of its maps, and wider with more channels.

    Args:
        network: the network.
    """
    top = max((step.shape[-1] for step in network.steps if len(step.shape) > 1), default=1)
    bars = "".join(_bar(i, step, top) for i, step in enumerate(network.steps))
    width = ACROSS * len(network.steps)
    told = ", ".join(" ".join(filter(None, (step.layer, words(step.shape)))) for step in network.steps if step.shape)
    title = html.escape(f"{network.name}: {told}", quote=True)
    head = f"<strong>{network.name}</strong> {network.kind}, {network.parameters:,} parameters"
    picture = f'<svg viewBox="0 0 {width} {GROUND + 44}" width="{width}" role="img" aria-label="{title}">{bars}</svg>'
    return (
        f'<figure class="network"><figcaption>{head}</figcaption>'
        f'<div class="scroll" tabindex="0" role="group" aria-label="{network.name}">{picture}</div></figure>'
    )


def _bar(i: int, step: Step, top: int) -> str:
    """A step of a figure."""
    middle = ACROSS * i + ACROSS // 2

    def text(y: int, words: str, name: str) -> str:
        return f'<text x="{middle}" y="{y}" class="{name}">{html.escape(words)}</text>'

    if step.layer == "…":
        return text(GROUND - 20, "…", "more")
    size: Callable[[int], float] = lambda n: math.log2(1 + n)  # noqa: E731
    if len(step.shape) > 1:
        height, width = HIGH * size(step.shape[-1]) / size(top), 6 + 4 * size(step.shape[0])
        kind = "maps"
    else:
        height, width, kind = 12 + 6 * size(step.shape[0] if step.shape else 1), 8.0, "vector"
    shown = f'<rect class="{kind}" x="{middle - width / 2:.1f}" y="{GROUND - height:.1f}"'
    shown += f' width="{width:.1f}" height="{height:.1f}" rx="2"/>'
    return shown + text(GROUND + 16, words(step.shape), "shape") + text(GROUND + 34, step.layer[:18], "layer")
