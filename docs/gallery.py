"""The gallery: all checkpoints as tiles with their grids, to be filtered by family, data and task."""

from __future__ import annotations

import html
import re

from benchmarks.architectures import shown_value
from docs.architectures import FAMILIES, family
from docs.source import ROOT
from zoo.pretrained import cards, index
from zoo.pretrained.fetch import task_of

__all__ = ["data_of", "page"]


def data_of(entry: dict[str, object]) -> str:
    """The data set of a checkpoint, without size and form: emoji, mnist, fashionmnist, shapes.

    Args:
        entry: its index entry.
    """
    data = entry["data"]
    assert isinstance(data, dict)
    match = re.match(r"[a-z]+(?=\d|-|$)", "emoji" if "2" in data["name"].split("64")[0] else data["name"])
    return match[0] if match else str(data["name"])


def page() -> str:
    """The page in Markdown, its tiles in HTML."""
    entries = index()
    choices = {
        "family": [kind for kind in FAMILIES if any(family(_class(entry)) == kind for entry in entries.values())],
        "data": sorted({data_of(entry) for entry in entries.values()}),
        "task": sorted({task_of(entry) for entry in entries.values()}),
    }
    selects = "".join(_select(name, values) for name, values in choices.items())
    tiles = "".join(_tile(slug) for slug in entries)
    return (
        "---\nhide: [navigation, toc]\n---\n\n"
        "# Gallery\n\n"
        f"All {len(entries)} checkpoints. No picture was selected: samples have the seeds 0, 1, 2, and so on.\n\n"
        f'<form id="gallery-filters" aria-label="Filters">{selects}'
        f'<output id="gallery-count" aria-live="polite">{len(entries)} checkpoints</output></form>\n\n'
        f'<div id="gallery">{tiles}</div>\n'
    )


def _class(entry: dict[str, object]) -> str:
    return str(entry["class"]).rpartition(".")[2]


def _select(name: str, values: list[str]) -> str:
    options = "".join(f'<option value="{value}">{value}</option>' for value in values)
    return f'<label>{name} <select name="{name}"><option value="">all</option>{options}</select></label>'


def _tile(slug: str) -> str:
    """A checkpoint: its grid, or its value where there is nothing to see."""
    entry = index()[slug]
    metric = next(iter(entry["metrics"]), None)
    value = html.escape(shown_value(metric, entry["data"]["name"])) if metric else ""
    shown = cards.PICTURES[entry.get("pictures") or "samples"][0]
    if (ROOT / "zoo" / "weights" / f"{slug}.png").is_file():
        seen = f'<img src="grids/{slug}.png" alt="{slug}: {html.escape(shown, quote=True)}" loading="lazy">'
    else:
        seen = f'<span class="value">{value}</span>'
    facts = {"family": family(_class(entry)), "data": data_of(entry), "task": task_of(entry)}
    marks = " ".join(f'data-{name}="{fact}"' for name, fact in facts.items())
    told = f"{_class(entry)}, {entry['parameters'] / 1e6:.2f}M parameters"
    return (
        f'<a class="tile" href="checkpoints/{slug}.html" {marks}><span class="frame">{seen}</span>'
        f"<strong>{slug}</strong><span>{told}</span><span>{value}</span></a>"
    )
