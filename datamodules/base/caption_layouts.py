"""CUB-200-2011 and Oxford-102 with their captions, as the authors of the captions ship them."""

from __future__ import annotations

from pathlib import Path

from zoo.datamodules.base.tables import text_lines

__all__ = ["PICTURES", "CaptionLayout"]

PICTURES = {"cub": ("CUB_200_2011/images", "images"), "flowers": ("jpg", "102flowers/jpg", "102flowers", "images")}
"""Where the pictures of a source may lie."""


class CaptionLayout:
    """A folder with pictures, `text_c10/<class>/<picture>.txt`, and lists of the classes of each split.

    Args:
        folder: the folder.
        source: "cub" or "flowers".
    """

    def __init__(self, folder: Path, source: str) -> None:
        self.folder, self.source = folder, source

    @property
    def pictures(self) -> Path:
        """The folder of pictures: the first one that exists, else the first one."""
        places = [self.folder / name for name in PICTURES[self.source]]
        return next((place for place in places if place.is_dir()), places[0])

    @property
    def texts(self) -> Path:
        """The folder of captions.

        Raises:
            FileNotFoundError: there is none.
        """
        found = [*self.folder.glob("text_c10"), *sorted(self.folder.glob("*/text_c10"))]
        if not found:
            raise FileNotFoundError(f"{self.folder} has no folder text_c10 with the captions of {self.source}")
        return found[0]

    def captions(self) -> dict[str, tuple[str, list[str]]]:
        """Class and captions by the name of the picture, without its ending."""
        return {path.stem: (path.parent.name, text_lines(path)) for path in sorted(self.texts.glob("*/*.txt"))}

    def classes(self, *, train_on_val: bool) -> dict[str, set[str]]:
        """Names of the classes of each split.

        Args:
            train_on_val: the validation classes are training classes, too.

        Raises:
            FileNotFoundError: a list is missing.
        """
        lists = {}
        for split in ("trainval", "val", "test"):
            path = self.texts.parent / f"{split}classes.txt"
            if not path.is_file() and split != "val":
                raise FileNotFoundError(f"{path} is missing: it lists the classes of the split, one a line")
            lists[split] = set(text_lines(path)) if path.is_file() else set()
        train = lists["trainval"] - (set() if train_on_val else lists["val"])
        return {"train": train, "val": lists["val"], "test": lists["test"]}
