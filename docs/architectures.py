"""The page of each architecture, made from its file, its recipes, the index of checkpoints and the table of papers."""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any

import yaml

import zoo
from benchmarks.architectures import PAPERS, shown_value
from docs.networks import figure, networks
from docs.source import ROOT, first_sentence, notes_of, paragraphs
from docs.walks import caption
from zoo import recipes
from zoo.base import AdversarialModel, GenerativeModel
from zoo.base.autoregressive import AutoregressiveModel
from zoo.base.latent import AutoencoderModel
from zoo.bench.speed import forms
from zoo.pretrained import cards, index

__all__ = ["FAMILIES", "abilities", "checkpoints", "family", "page", "paper", "picture", "recipes_of", "table"]

FAMILIES = {
    "GAN": "A generator against a discriminator.",
    "autoencoder": "Codes of images, and images of codes.",
    "exact likelihood": "How likely an image is, sub-pixel by sub-pixel.",
    "judge": "No images: classes and matches, by which other models are measured.",
}
"""Kinds of architectures."""

METHODS = {
    "latent": "sample",
    "encode": "encode",
    "decode": "decode",
    "reconstruct": "reconstruct",
    "traversals": "traverse codes",
    "log_prob": "log-likelihood",
    "completions": "complete images",
    "score": "score anomalies",
    "classify": "classify",
    "translate": "translate",
    "assemble": "assemble patches",
    "encode_text": "embed sentences",
}
"""What a model can do, by the method that does it."""


def family(name: str) -> str:
    """The kind of an architecture: one of `FAMILIES`.

    Args:
        name: its class.
    """
    kind = getattr(zoo, name)
    if issubclass(kind, AutoregressiveModel):
        return "exact likelihood"
    if issubclass(kind, AutoencoderModel):
        return "autoencoder"
    return "GAN" if issubclass(kind, AdversarialModel) else "judge"


def abilities(name: str) -> list[str]:
    """What the models of an architecture can do, in words.

    Args:
        name: its class.
    """
    kind = getattr(zoo, name)
    own_sample = kind.sample is not GenerativeModel.sample and not hasattr(kind, "latent")
    return ["sample"] * own_sample + [words for method, words in METHODS.items() if hasattr(kind, method)]


def paper(name: str) -> str:
    """The paper of an architecture, as a link where it has one.

    Args:
        name: its class.
    """
    source = PAPERS[name]
    return f"[{source.citation}](https://arxiv.org/abs/{source.arxiv})" if source.arxiv else source.citation


def checkpoints(name: str) -> list[str]:
    """The published checkpoints of an architecture.

    Args:
        name: its class.
    """
    return [slug for slug, entry in index().items() if entry["class"].rpartition(".")[2] == name]


@cache
def _settings() -> dict[str, dict[str, Any]]:
    return {name: yaml.safe_load(recipes.find(name).read_text()) for name in recipes.list_recipes()}


def recipes_of(name: str) -> list[str]:
    """The recipes of an architecture.

    Args:
        name: its class.
    """
    return [recipe for recipe, found in _settings().items() if found["model"]["class_path"].rpartition(".")[2] == name]


def picture(slug: str, prefix: str = "../") -> str:
    """The grid of a checkpoint with a text that says what it shows; nothing where it has none.

    Args:
        slug: the checkpoint.
        prefix: way from the page to the top of the site.
    """
    if not (ROOT / "zoo" / "weights" / f"{slug}.png").is_file():
        return ""
    entry = index()[slug]
    shown = cards.PICTURES[entry.get("pictures") or "samples"][0]
    columns = f"; columns: {', '.join(entry['columns'])}" if entry.get("columns") else ""
    return f"![{slug}: {shown}{columns}]({prefix}grids/{slug}.png){{ .grid }}"


def page(name: str, figures: bool = True) -> str:
    """The page of an architecture.

    Args:
        name: its class.
        figures: draw its networks and name the animations of `docs.walks`, which takes passes through them.
    """
    module = zoo.ARCHITECTURES[name]
    idea, _, rest = paragraphs(importlib.import_module(module).__doc__).partition("\n\n")
    parts = [f"# {name}", idea, _facts(name)]
    slugs = checkpoints(name)
    parts += [picture(slugs[0])] if slugs and picture(slugs[0]) else []
    parts += ["## The idea", rest]
    if figures:
        parts += _networks(name)
    parts += [*_checkpoints(name, slugs), *(_walks(slugs) if figures else []), *_recipes(name), *_deviations(module)]
    parts += ["## API", *_api(name, module)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _facts(name: str) -> str:
    """Paper, kind and abilities."""
    rows = [
        ("paper", paper(name)),
        ("the paper's value", PAPERS[name].value),
        ("family", family(name)),
        ("can", ", ".join(abilities(name))),
        ("file", f"`{zoo.ARCHITECTURES[name].replace('.', '/')}.py`"),
    ]
    return "\n".join(["| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in rows if value)])


def _networks(name: str) -> list[str]:
    """The figures of the networks."""
    found = [form for form in forms() if form.architecture == name]
    parts = ["## Networks"] if found else []
    for form in found:
        parts.append(
            f"With the settings of the recipe `{form.recipe}`. Below each bar stands the shape of one image's maps, "
            "channels × height × width, or of its vector, and the layer that makes them."
        )
        parts += [figure(network) for network in networks(form)]
    return parts


def _checkpoints(name: str, slugs: list[str]) -> list[str]:
    """Checkpoints with their values beside the paper's."""
    if not slugs:
        return []
    lines = ["| checkpoint | value | the paper's | parameters | protocol |", "|---|---|---|---|---|"]
    for slug in slugs:
        entry = index()[slug]
        metric = next(iter(entry["metrics"]), None)
        value, protocol = (shown_value(metric, entry["data"]["name"]), metric["protocol"]) if metric else ("", "")
        cells = [f"[{slug}](../checkpoints/{slug}.md)", value, PAPERS[name].value, f"{entry['parameters']:,}"]
        lines.append(f"| {' | '.join(cells)} | {f'`{protocol}`' if protocol else ''} |")
    told = "The card of a checkpoint has all its values. Values of different data or protocols cannot be compared."
    return ["## Checkpoints", "\n".join(lines), told, *(picture(slug) for slug in slugs[1:]), *_use(slugs[0])]


def _walks(slugs: list[str]) -> list[str]:
    """Animations, closed at first: nothing moves before a reader asks."""
    return [
        f'??? example "Animation of {slug}"\n\n'
        f"    ![{slug}: {caption(slug)}](../walks/{slug}.gif){{ .grid loading=lazy }}"
        for slug in slugs
        if caption(slug)
    ]


def _use(slug: str) -> list[str]:
    """How to load a checkpoint."""
    return [f'```python\nimport zoo\n\nmodel = zoo.load("{slug}")\n```']


def _recipes(name: str) -> list[str]:
    """The recipes with their first lines."""
    if not (found := recipes_of(name)):
        return []
    lines = [f"| `{recipe}` | {recipes.describe(recipe)} |" for recipe in found]
    usual = min(found, key=lambda recipe: ("small", "smoke", "paper").index(recipe.rpartition("-")[2]))
    command = f"```\nzoo fit --config {usual}\n```"
    return ["## Recipes", "\n".join(["| recipe | what it trains |", "|---|---|", *lines]), command]


def _deviations(module: str) -> list[str]:
    """Where the code departs from the paper."""
    found = notes_of(module)
    if not found:
        return []
    lines = [f"- {note.text} (`{note.file}`, {note.owner})" for note in found]
    return ["## Deviations from the paper", "\n".join(lines)]


def _api(name: str, module: str) -> list[str]:
    """The class by mkdocstrings, then what else its file exports."""
    others = [other for other in importlib.import_module(module).__all__ if other != name]
    return [f"::: {module}.{other}\n    options:\n      heading_level: 3" for other in [name, *others]]


def table() -> str:
    """All architectures, by family."""
    parts = []
    for kind, told in FAMILIES.items():
        names = [name for name in sorted(zoo.ARCHITECTURES, key=str.lower) if family(name) == kind]
        lines = ["| architecture | idea | paper | checkpoints |", "|---|---|---|---|"]
        for name in names:
            idea = first_sentence(importlib.import_module(zoo.ARCHITECTURES[name]).__doc__)
            idea = idea.partition(": ")[2] or idea
            slugs = ", ".join(f"[{slug}](../checkpoints/{slug}.md)" for slug in checkpoints(name))
            lines.append(f"| [{name}]({name}.md) | {idea} | {paper(name)} | {slugs} |")
        parts.append(f"## {kind[0].upper()}{kind[1:]}\n\n{told}\n\n" + "\n".join(lines))
    return "# Architectures\n\nOne file per paper. Each page is made from the code.\n\n" + "\n\n".join(parts) + "\n"
