"""Makes the sources of the site in build/: `python -m docs.build`, then `mkdocs build --strict -f build/mkdocs.yml`.

Pages that people write lie in docs/pages; all others are made here from docstrings, parsers, recipes, cards and rows of
benchmarks. A written page has `{{name}}` where a made part goes.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

import zoo
from benchmarks import leaderboards, readme
from docs import architectures, demo, gallery, notebooks, reference, walks
from docs.source import ROOT
from zoo import pretrained, recipes
from zoo.bench.page import page
from zoo.pretrained import index

__all__ = ["build", "main", "pages"]

WRITTEN = ROOT / "docs" / "pages"

PARTS: dict[str, Callable[[], str]] = {
    "architectures": lambda: str(len(zoo.ARCHITECTURES)),
    "checkpoints": lambda: str(len(index())),
    "recipes": lambda: str(len(recipes.list_recipes())),
    "measures": reference.measures,
    "families": lambda: _families(),
    "sheet": lambda: _sheet(),
    "leaderboards": lambda: _leaderboards(),
    "bibtex": lambda: _bibtex(),
}
"""What a written page may name in double braces."""

SHEET = (
    "sngan-clothing64", "cyclegan-openmoji2noto64", "vae-mnist28", "sngan-fashionmnist32",
    "stargan-emoji64", "sngan-emoji64", "pixelrnn-mnist28-diagonal", "infogan-mnist28",
)  # fmt: skip
"""Checkpoints on the first page."""


def pages(figures: bool = True) -> dict[str, str]:
    """All pages in Markdown, by their paths.

    Args:
        figures: draw the networks of architectures and the walks of checkpoints, which takes passes through them.

    Raises:
        ValueError: a written page names a part that does not exist.
    """
    live = " [Live](demo/index.html){ .md-button }" if _has_demo(figures) else ""
    parts = PARTS | {"live": lambda: live}
    found = {str(path.relative_to(WRITTEN)): _filled(path, parts) for path in sorted(WRITTEN.rglob("*.md"))}
    found["gallery.md"] = gallery.page()
    found["architectures/index.md"] = architectures.table()
    found |= {f"architectures/{name}.md": architectures.page(name, figures) for name in zoo.ARCHITECTURES}
    found |= {f"checkpoints/{slug}.md": _card(slug) for slug in index()}
    found["reference/commands.md"] = reference.commands()
    found["reference/data.md"] = reference.data_sets()
    found["reference/callbacks.md"] = reference.callbacks_page()
    found["reference/api.md"] = reference.api()
    found["benchmarks.md"] = f"---\nhide: [navigation]\n---\n\n{readme.page(readme.read())}"  # its tables are wide
    found["changelog.md"] = (ROOT / "CHANGELOG.md").read_text()
    found |= notebooks.pages()
    return found


def _has_demo(figures: bool) -> bool:
    """Whether the site gets the live page, which takes minutes and onnxruntime-web."""
    return figures and demo.RUNTIME.is_dir()


def _filled(path: Path, parts: Mapping[str, Callable[[], str]]) -> str:
    """A written page with its made parts."""

    def part(match: re.Match[str]) -> str:
        if match[1] not in parts:
            raise ValueError(f"{path.name} names a part {match[1]!r}: there are {', '.join(parts)}")
        return parts[match[1]]()

    return re.sub(r"\{\{(\w+)\}\}", part, path.read_text())


def _card(slug: str) -> str:
    """The card of a checkpoint, with links to its picture and its architecture."""
    name = index()[slug]["class"].rpartition(".")[2]
    text = pretrained.card(slug).replace(f"]({slug}.png)", f"](../grids/{slug}.png){{ .grid }}")
    return f"{text}\n## Architecture\n\n[{name}](../architectures/{name}.md)\n"


def _families() -> str:
    """A line for each family, with its architectures."""
    lines = []
    for kind, told in architectures.FAMILIES.items():
        names = [name for name in sorted(zoo.ARCHITECTURES, key=str.lower) if architectures.family(name) == kind]
        links = ", ".join(f"[{name}](architectures/{name}.md)" for name in names)
        lines.append(f"- **{kind}.** {told} {links}.")
    return "\n".join(lines)


def _sheet() -> str:
    """Grids for the first page, each a link to its card."""
    tiles = []
    for slug in SHEET:
        name = index()[slug]["class"].rpartition(".")[2]
        image = f'<img src="grids/{slug}.png" alt="{slug}: pictures of a {name}" loading="lazy">'
        tiles.append(f'<a href="checkpoints/{slug}.html"><span class="frame">{image}</span><span>{slug}</span></a>')
    return f'<div class="sheet">{"".join(tiles)}</div>'


def _leaderboards() -> str:
    """For each suite that was run what it is, and its picture, which leads to its page."""
    parts = []
    for folder in leaderboards.kept():
        _, board = leaderboards.read(folder)
        image = f"![Entries of {folder.name} with their values and samples](leaderboards/{folder.name}.png)"
        parts.append(f"## {folder.name}\n\n{board['description']}.\n\n[{image}](leaderboards/{folder.name}.html)")
    return "\n\n".join(parts)


def _write_leaderboards(folder: Path) -> None:
    """The pages of the suites that were run, and their pictures."""
    folder.mkdir()
    for suite in leaderboards.kept():
        collection, board = leaderboards.read(suite)
        (folder / f"{suite.name}.html").write_text(page(board, collection.pictured))
        shutil.copy(suite / "leaderboard.png", folder / f"{suite.name}.png")


def _bibtex() -> str:
    """The BibTeX entry, from CITATION.cff."""
    cited: dict[str, Any] = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    authors = " and ".join(f"{{{author['name']}}}" for author in cited["authors"])
    fields = {"title": f"{{{cited['title']}: {cited['abstract'].rstrip('.')}}}", "author": f"{{{authors}}}"}
    fields["version"] = f"{{{cited['version']}}}"
    lines = [f"  {name} = {value}," for name, value in fields.items()]
    return "\n".join(["@software{generative_zoo,", *lines, "}"])


def navigation(paths: Sequence[str], has_demo: bool = False) -> list[Any]:
    """The menu.

    Args:
        paths: all pages.
        has_demo: whether there is a live page.
    """

    def under(folder: str) -> list[str]:
        return sorted((p for p in paths if p.startswith(f"{folder}/") and not p.endswith("index.md")), key=str.lower)

    kinds = [
        {kind: [f"architectures/{n}.md" for n in sorted(zoo.ARCHITECTURES, key=str.lower) if _is_of(n, kind)]}
        for kind in architectures.FAMILIES
    ]
    return [
        {"Start": "index.md"},
        {"Gallery": "gallery.md"},
        *([{"Live": "demo/index.html"}] if has_demo else []),
        {
            "Tutorials": [
                "tutorials/index.md",
                *(f"tutorials/{name}.md" for name in TUTORIALS),
                {"Notebooks": under("notebooks")},
            ]
        },
        {"Architectures": ["architectures/index.md", *kinds, {"checkpoints": under("checkpoints")}]},
        {
            "Reference": [
                {"Command line": "reference/commands.md"},
                {"Data sets": "reference/data.md"},
                {"Callbacks": "reference/callbacks.md"},
                {"Measures and protocols": "reference/measures.md"},
                {"API": "reference/api.md"},
            ]
        },
        {"Benchmarks": ["leaderboards.md", {"All results": "benchmarks.md"}]},
        {"About": [{"Changelog": "changelog.md"}, {"Cite": "cite.md"}]},
    ]


TUTORIALS = (
    "models", "own_code", "checkpoints", "own_pictures", "fine_tune", "benchmark", "architecture", "measure",
    "many_devices", "loggers",
)  # fmt: skip
"""Written tutorials, in their order."""


def _is_of(name: str, kind: str) -> bool:
    return architectures.family(name) == kind


def build(folder: Path, figures: bool = True) -> None:
    """Write the sources of the site: `pages/` and `mkdocs.yml`. Earlier ones are replaced.

    Args:
        folder: where they go.
        figures: draw the networks of the architectures and the walks of the checkpoints.
    """
    shutil.rmtree(folder / "pages", ignore_errors=True)
    made = pages(figures)
    for path, text in made.items():
        file = folder / "pages" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    shutil.copytree(ROOT / "docs" / "assets", folder / "pages" / "assets")
    (folder / "pages" / "grids").mkdir()
    for picture in (ROOT / "zoo" / "weights").glob("*.png"):
        shutil.copy(picture, folder / "pages" / "grids" / picture.name)
    for slug in filter(walks.caption, index() if figures else ()):
        walks.write(slug, folder / "pages" / "walks" / f"{slug}.gif")
    notebooks.write_files(folder / "pages" / "notebooks")
    _write_leaderboards(folder / "pages" / "leaderboards")
    if has_demo := _has_demo(figures):
        demo.write(folder / "pages" / "demo")
    settings = {
        "INHERIT": str(ROOT / "docs" / "mkdocs.yml"),
        "docs_dir": str(folder.absolute() / "pages"),
        "site_dir": str(folder.absolute() / "site"),
        "nav": navigation(list(made), has_demo),
        "plugins": {"mkdocstrings": {"handlers": {"python": {"paths": [str(ROOT)]}}}},
    }
    (folder / "mkdocs.yml").write_text(json.dumps(settings, indent=1))  # which is YAML, too


def main(arguments: list[str] | None = None) -> None:
    """Write the sources of the site."""
    parser = argparse.ArgumentParser(prog="python -m docs.build", description="Write the sources of the site.")
    parser.add_argument("--out", type=Path, default=ROOT / "build", help="folder of the sources (build)")
    build(parser.parse_args(arguments).out)


if __name__ == "__main__":
    main()
