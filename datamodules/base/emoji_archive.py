"""The emoji that ship with the package: their table, their drawings, and how a drawing becomes pixels.

`Emoji` renders in processes of its own, which run this file as a script and read raw pixels from its standard output.
They start fast, because this file imports neither torch nor lightning.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import lzma
import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["DATA", "SKIN_TONES", "VENDORS", "drawings", "emoji_table", "fitted", "rasterize", "read"]

DATA = Path(__file__).parents[1] / "data" / "emoji"
VENDORS = {  # name -> (package, SPDX expression of the license)
    "openmoji": ("openmoji", "CC-BY-SA-4.0"),
    "twemoji": ("twemoji", "CC-BY-4.0"),
    "noto": ("noto", "Apache-2.0"),
    "fluent": ("fluent-emoji-flat", "MIT"),
}
SKIN_TONES = {"1f3fb": "light", "1f3fc": "medium-light", "1f3fd": "medium", "1f3fe": "medium-dark", "1f3ff": "dark"}


def read(name: str) -> bytes:
    """A file of the archive, its sum verified.

    Raises:
        ValueError: the file is damaged.
    """
    data = (DATA / name).read_bytes()
    if hashlib.sha256(data).hexdigest() != json.loads((DATA / "sha256.json").read_text())[name]:
        raise ValueError(f"{DATA / name} is damaged (its sha256 differs): install the package again")
    return data


@cache
def emoji_table() -> list[dict[str, str]]:
    """The rows of emoji.json."""
    table: list[dict[str, str]] = json.loads(read("emoji.json"))
    return table


def drawings(vendor: str) -> list[str]:
    """The drawings of a vendor as SVG text, in the order of the table.

    Args:
        vendor: name of the vendor.
    """
    result: list[str] = json.loads(lzma.decompress(read(f"{vendor}.json.xz")))
    return result


def fitted(svg: str, side: int = 256) -> str:
    """A drawing with a square view box around its ink, with a margin of 1/32 of the side.

    Args:
        svg: the drawing, as the archive has it.
        side: pixels of the larger side of the image in which the edges of the ink are found.
    """
    import resvg_py
    from PIL import Image

    found = re.search(r'viewBox="([^"]*)"', svg)
    assert found is not None
    left, top, width, _ = map(float, found[1].split())
    png = resvg_py.svg_to_bytes(svg_string=svg, width=side, height=side, skip_system_fonts=True)
    image = Image.open(io.BytesIO(bytes(png))).convert("RGBA")
    box = image.getchannel("A").point(lambda alpha: 255 * (alpha > 8)).getbbox()
    if box is None:  # nothing is drawn
        return svg
    unit = width / image.width
    middle = left + unit * (box[0] + box[2]) / 2, top + unit * (box[1] + box[3]) / 2
    extent = unit * max(box[2] - box[0], box[3] - box[1]) * 16 / 15
    view = f"{middle[0] - extent / 2:.4f} {middle[1] - extent / 2:.4f} {extent:.4f} {extent:.4f}"
    # With an explicit size: the rasterizer rounds that of a view box to whole numbers.
    return svg.replace(found[0], f'width="{side}" height="{side}" viewBox="{view}"', 1)


def rasterize(svg: str, size: int, background: str, *, fit_to_frame: bool = False) -> np.ndarray[Any, Any]:
    """Pixels of one drawing.

    Args:
        svg: the drawing.
        size: side of the image.
        background: color behind the drawing.
        fit_to_frame: scale the drawing to the frame, see `fitted`.

    Shape:
        Output: (3, size, size) uint8.
    """
    import resvg_py
    from PIL import Image

    svg = fitted(svg) if fit_to_frame else svg
    png = resvg_py.svg_to_bytes(svg_string=svg, width=size, height=size, background=background, skip_system_fonts=True)
    image = Image.open(io.BytesIO(bytes(png))).convert("RGB")
    if image.size != (size, size):  # a few drawings are not square: center them
        canvas = Image.new("RGB", (size, size), background)
        image.thumbnail((size, size), Image.Resampling.LANCZOS)
        canvas.paste(image, ((size - image.width) // 2, (size - image.height) // 2))
        image = canvas
    return np.asarray(image).transpose(2, 0, 1)


def main() -> None:
    """Write the pixels of a vendor's drawings, one image after the other, to standard output."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("vendor", choices=VENDORS)
    parser.add_argument("size", type=int)
    parser.add_argument("background")
    parser.add_argument("start", type=int, help="number of the first emoji")
    parser.add_argument("stop", type=int, help="number after the last emoji")
    parser.add_argument("--fit-to-frame", action="store_true")
    arguments = parser.parse_args()
    for svg in drawings(arguments.vendor)[arguments.start : arguments.stop]:
        pixels = rasterize(svg, arguments.size, arguments.background, fit_to_frame=arguments.fit_to_frame)
        sys.stdout.buffer.write(pixels.tobytes())


if __name__ == "__main__":
    main()
