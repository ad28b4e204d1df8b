"""Templates of sentences about emoji, such as "a picture of {name}"."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from zoo.engine.files import nearest

__all__ = ["checked_templates", "sentences", "usual_templates"]

WORDS = ("name", "thing", "tone", "gender", "category", "vendor")


def usual_templates() -> list[str]:
    """The templates that come with the package."""
    text = (Path(__file__).parents[1] / "data" / "captions" / "emoji.txt").read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def checked_templates(templates: Sequence[str]) -> list[str]:
    """Given templates, if every emoji gets a sentence that names it.

    Args:
        templates: sentences with words in braces.

    Raises:
        ValueError: an unknown word, or a missing one.
    """
    for template in templates:
        words = re.findall(r"{(.*?)}", template)
        for word in words:
            if word not in WORDS:
                raise ValueError(f"template {template!r} has an unknown word {word!r}: {nearest(word, WORDS)}")
        if "name" not in words and not {"thing", "tone"} <= set(words):
            raise ValueError(
                f"template {template!r} does not say which emoji: it needs {{name}}, or {{thing}}, {{tone}}"
            )
    if not any(set(re.findall(r"{(.*?)}", template)) <= {"name", "vendor", "category"} for template in templates):
        raise ValueError("emoji without skin tone or gender need a template of their own, such as '{name}'")
    return list(templates)


def sentences(templates: Sequence[str], row: dict[str, str]) -> list[str]:
    """The sentences of an emoji, from the templates whose words the emoji has.

    Args:
        templates: sentences with words in braces.
        row: the emoji's row of the table, with its vendor.
    """
    tone, gender = row["skin_tone"], row["gender"]
    words = {
        "name": row["caption"],
        "thing": row["caption"].removesuffix(f": {tone} skin tone"),
        "tone": "" if tone == "none" else tone,
        "gender": "" if gender == "none" else gender,
        "category": row["category"].lower().replace("&", "and"),
        "vendor": row["vendor"],
    }
    return [t.format(**words) for t in templates if all(words[word] for word in re.findall(r"{(.*?)}", t))]
