"""What `zoo list` does."""

from __future__ import annotations

import json
import re
import textwrap

import zoo
from zoo import recipes
from zoo.cli.usage import Parser, UsageError

__all__ = ["list_"]


def list_(parser: Parser, arguments: list[str]) -> None:
    """List checkpoints, architectures and recipes."""
    add = parser.add_argument
    add("pattern", nargs="?", default="*", help="of the name, as dcgan or *emoji*")
    add("--task", help="checkpoints for generation, translation, assembly, reconstruction, classification or retrieval")
    add("--data", help="checkpoints whose data have this in their name, as emoji")
    add("--max_params", help="checkpoints of at most so many parameters, as 500K or 5M")
    add("--json", action="store_true", help="print the checkpoints' index entries as JSON")
    options = parser.parse_args(arguments)
    from zoo import pretrained
    from zoo.pretrained import cards
    from zoo.pretrained.fetch import matching, task_of

    index = pretrained.known()
    chosen = {"task": options.task, "data": options.data, "max_params": _number(options.max_params)}
    slugs = pretrained.list_pretrained(options.pattern, **chosen)
    if options.json:
        print(json.dumps({slug: index[slug] for slug in slugs}, indent=1))
        return
    if slugs:
        print("Checkpoints (zoo sample NAME; zoo show NAME has all values):")
    for slug in slugs:
        entry = index[slug]
        metric = next(iter(entry.get("metrics", [])), None)
        value = f"{metric['name']} {cards.value(metric)}" if metric else ""
        if metric and (words := cards.brief(metric["protocol"])):
            value += f" ({words})"
        size = f"{entry.get('parameters', 0) / 1e6:.2f}M"
        print(f"  {slug:<28} {task_of(entry):<14} {size:>6}  {value}")
    if any(value is not None for value in chosen.values()):
        if not slugs:
            raise ValueError("there is no such checkpoint: `zoo list` names them all")
        return
    kinds, known = (matching(names, options.pattern) for names in (zoo.ARCHITECTURES, recipes.list_recipes()))
    if kinds:
        print("\nArchitectures (zoo fit --model NAME):")
        print(textwrap.fill("  ".join(kinds), 118, initial_indent="  ", subsequent_indent="  "))
    if known:
        print("\nRecipes (zoo fit --config NAME):")
    for recipe in known:
        print(f"  {recipe:<40} {recipes.describe(recipe)}")
    if not (slugs or kinds or known):
        raise ValueError(f"nothing is named {options.pattern!r}: `zoo list` names everything")


def _number(text: str | None) -> float | None:
    """A number of parameters."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([KkMm]?)", text)
    if not match:
        raise UsageError(f"--max_params is a number such as 500K or 5M, not {text!r}")
    return float(match[1]) * {"": 1, "K": 1e3, "M": 1e6}[match[2].upper()]
