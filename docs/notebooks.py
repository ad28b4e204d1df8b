"""The notebooks as pages: their text, their code, and the pictures and prints that they are stored with."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docs.source import ROOT

__all__ = ["FOLDER", "pages", "write_files"]

FOLDER = ROOT / "docs" / "notebooks"

PICTURES = {"image/png": "png", "image/gif": "gif"}


def pages() -> dict[str, str]:
    """A page for each notebook."""
    return {f"notebooks/{path.stem}.md": _page(path) for path in sorted(FOLDER.glob("*.ipynb"))}


def _cells(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(path.read_text())["cells"]
    return found


def _pictures(path: Path) -> Iterator[tuple[int, str, bytes]]:
    """The pictures in a notebook: number of the cell, name of the file, content."""
    for i, cell in enumerate(_cells(path)):
        for output in cell.get("outputs", []):
            for kind, ending in PICTURES.items():
                if content := output.get("data", {}).get(kind):
                    yield i, f"{path.stem}-{i + 1}.{ending}", base64.b64decode("".join(content))


def _page(path: Path) -> str:
    """A notebook as Markdown."""
    drawn = {i: name for i, name, _ in _pictures(path)}
    parts = []
    for i, cell in enumerate(_cells(path)):
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        if i in drawn:
            parts.append(f"![What the code above draws]({drawn[i]}){{ .grid }}")
        for output in cell["outputs"]:
            if "text" in output:
                parts.append(f"```text\n{''.join(output['text']).rstrip()}\n```")
    parts.append(f"[This notebook as a file]({path.name})")
    return "\n\n".join(parts) + "\n"


def write_files(folder: Path) -> None:
    """Write the notebooks themselves, and the pictures in them.

    Args:
        folder: where the pages of the notebooks lie.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for path in FOLDER.glob("*.ipynb"):
        shutil.copy(path, folder / path.name)
        for _, name, content in _pictures(path):
            (folder / name).write_bytes(content)
