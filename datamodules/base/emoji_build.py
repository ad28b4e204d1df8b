"""How the emoji archive is made from the packages of the icon sets.

    python -m zoo.datamodules.base.emoji_build FOLDER

reads the data files of the npm packages @iconify-json/{openmoji, twemoji, noto, fluent-emoji-flat} from FOLDER, as
folders or as .tgz files, and writes to datamodules/data/emoji, the same to the byte each time:

    <vendor>.json.xz   the SVG of each emoji, in the order of emoji.json
    emoji.json         code point, name, category, skin tone, gender, base emoji and split of each emoji
    sha256.json        sums of the above
"""

from __future__ import annotations

import argparse
import hashlib
import json
import lzma
import re
import tarfile
from pathlib import Path
from typing import Any

from zoo.datamodules.base.emoji_archive import DATA, SKIN_TONES, VENDORS

__all__ = ["base", "build", "caption", "gender", "skin_tone"]

SPLIT_SHARES = {"train": 0.8, "val": 0.1, "test": 0.1}

# Code points that differ from another one in gender only.
_NEUTRAL = {
    "1f468": "1f9d1",  # man -> person
    "1f469": "1f9d1",  # woman
    "1f466": "1f9d2",  # boy -> child
    "1f467": "1f9d2",  # girl
    "1f474": "1f9d3",  # old man -> older person
    "1f475": "1f9d3",  # old woman
    "1f478": "1fac5",  # princess -> person with crown
    "1f934": "1fac5",  # prince
    "1f385": "1f9d1-1f384",  # Santa Claus -> mx claus
    "1f936": "1f9d1-1f384",  # Mrs. Claus
    "1f930": "1fac4",  # pregnant woman -> pregnant person
    "1fac3": "1fac4",  # pregnant man
    "1f57a": "1f483",  # man dancing -> woman dancing
    "1f46b": "1f9d1-1f91d-1f9d1",  # woman and man holding hands -> people holding hands
    "1f46c": "1f9d1-1f91d-1f9d1",
    "1f46d": "1f9d1-1f91d-1f9d1",
    "1f48f": "1f9d1-2764-1f48b-1f9d1",  # kiss
    "1f491": "1f9d1-2764-1f9d1",  # couple with heart
    "1faf1": "1f91d",  # handshake of two tones: rightwards hand + leftwards hand
}
_WOMAN = {"1f469", "1f467", "1f475", "1f478", "1f936", "1f930", "1f483", "1f46d", "2640", "1f9d5"}
_MAN = {"1f468", "1f466", "1f474", "1f934", "1f385", "1fac3", "1f57a", "1f46c", "2642"}


def skin_tone(code: str) -> str:
    """Skin tone of a code point sequence, or "none"; sequences with two tones are not drawn by all vendors."""
    return next((SKIN_TONES[part] for part in code.split("-") if part in SKIN_TONES), "none")


def gender(code: str) -> str:
    """Gender of a code point sequence: "woman", "man", or "none" (neutral, or both)."""
    parts = set(code.split("-"))
    woman, man = bool(parts & _WOMAN), bool(parts & _MAN)
    return "woman" if woman and not man else "man" if man and not woman else "none"


def base(code: str) -> str:
    """The sequence with skin tone, gender and facing direction taken out: what may not lie in two splits."""
    if code in ("2640", "2642"):
        return code
    dropped = {*SKIN_TONES, "200d", "fe0f", "2640", "2642", "27a1"} if "200d" in code or "-" in code else set()
    parts = [_NEUTRAL.get(part, part) for part in code.split("-") if part not in dropped]
    text = "-".join(parts)
    return "1f91d" if text == "1f91d-1faf2" else text


def caption(name: str) -> str:
    """English name from the key: "woman-teacher-dark-skin-tone" becomes "woman teacher: dark skin tone"."""
    match = re.search(r"-((?:(?:medium-)?(?:light|dark)|medium)-skin-tone)", name)
    if match is None:
        return name.replace("-", " ")
    rest = name[: match.start()] + name[match.end() :]
    tone = match[1].removesuffix("-skin-tone")
    return f"{rest.replace('-', ' ')}: {tone} skin tone"


def _read_package(folder: Path, package: str) -> dict[str, Any]:
    """icons, chars, metadata and info of a package, from a folder or a .tgz file whose name holds the package's."""
    wanted = ("icons.json", "chars.json", "metadata.json", "info.json")
    for path in sorted(folder.iterdir()):
        if not re.search(rf"(^|-){re.escape(package)}-\d", path.name):
            continue
        if path.is_dir():
            return {name.removesuffix(".json"): json.loads(next(path.rglob(name)).read_text()) for name in wanted}
        with tarfile.open(path) as archive:
            members = {Path(member.name).name: member for member in archive.getmembers() if member.isfile()}
            files = {name: archive.extractfile(members[name]) for name in wanted}
            return {name.removesuffix(".json"): json.load(file) for name, file in files.items() if file is not None}
    raise FileNotFoundError(f"{folder} holds no folder or .tgz of @iconify-json/{package}")


def _svg(icons: dict[str, Any], name: str) -> str:
    """A stand-alone SVG of one icon, aliases resolved."""
    transforms = []
    while name in icons.get("aliases", {}):
        alias = icons["aliases"][name]
        transforms.append(alias)
        name = alias["parent"]
    icon = icons["icons"][name]
    width, height = icon.get("width", icons.get("width", 16)), icon.get("height", icons.get("height", 16))
    left, top = icon.get("left", icons.get("left", 0)), icon.get("top", icons.get("top", 0))
    body = icon["body"]
    for alias in reversed(transforms):
        if alias.get("hFlip"):
            body = f'<g transform="translate({2 * left + width} 0) scale(-1 1)">{body}</g>'
        if alias.get("vFlip"):
            body = f'<g transform="translate(0 {2 * top + height}) scale(1 -1)">{body}</g>'
        if alias.get("rotate"):
            center = f"{left + width / 2} {top + height / 2}"
            body = f'<g transform="rotate({90 * alias["rotate"]} {center})">{body}</g>'
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{left} {top} {width} {height}">{body}</svg>'
    )


def _assign_splits(codes: list[str]) -> dict[str, str]:
    """Split of each base emoji: large families first, each to the split that lacks most of its share of images."""
    families: dict[str, int] = {}
    for code in codes:
        families[base(code)] = families.get(base(code), 0) + 1
    counts = dict.fromkeys(SPLIT_SHARES, 0)
    split = {}
    for name in sorted(families, key=lambda b: (-families[b], hashlib.sha256(b.encode()).digest())):
        total = sum(counts.values()) + families[name]
        split[name] = max(counts, key=lambda s: (SPLIT_SHARES[s] * total - counts[s]) / SPLIT_SHARES[s])
        counts[split[name]] += families[name]
    return split


def build(source: Path, target: Path = DATA) -> None:
    """Rebuild the archive from the original packages.

    Args:
        source: folder with the packages.
        target: folder that gets the files.
    """
    packages = {vendor: _read_package(source, package) for vendor, (package, _) in VENDORS.items()}
    codes = sorted(set.intersection(*(set(package["chars"]) for package in packages.values())))
    categories = {
        name: category for category, names in packages["noto"]["metadata"]["categories"].items() for name in names
    }
    split = _assign_splits(codes)
    names = packages["noto"]["chars"]
    emoji = [
        {
            "code": code,
            "caption": caption(names[code]),
            "category": categories[names[code]],
            "skin_tone": skin_tone(code),
            "gender": gender(code),
            "base": base(code),
            "split": split[base(code)],
        }
        for code in codes
    ]
    target.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(json.dumps(item) for item in emoji)
    (target / "emoji.json").write_text(f"[\n{lines}\n]\n")
    for vendor, package in packages.items():
        svgs = [_svg(package["icons"], package["chars"][code]) for code in codes]
        data = json.dumps(svgs, separators=(",", ":")).encode()
        (target / f"{vendor}.json.xz").write_bytes(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME))
    files = ["emoji.json", *(f"{vendor}.json.xz" for vendor in VENDORS)]
    sums = {name: hashlib.sha256((target / name).read_bytes()).hexdigest() for name in files}
    (target / "sha256.json").write_text(json.dumps(sums, indent=1) + "\n")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m zoo.datamodules.base.emoji_build", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("source", type=Path, help="folder with the packages")
    parser.add_argument("--target", type=Path, default=DATA, help="folder that gets the files")
    arguments = parser.parse_args()
    build(arguments.source, arguments.target)


if __name__ == "__main__":
    main()
