"""The page of `zoo bench report`: its data, its pictures, and that whatever a user wrote stays text."""

from __future__ import annotations

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

from tests.bench.folders import column, page_data, protocol, report, write_run, write_suite


def test_a_value_that_is_nan_is_shown_and_breaks_nothing() -> None:
    write_suite(Path("runs/bench/digits"), {"a": [math.nan, 5.0], "b": [math.inf, 6.0], "c": [7.0, 8.0]})
    board, text, page = report("digits")
    assert column(board["tables"][0], "fd")["a"]["mean"] is None
    assert column(board["tables"][0], "fd")["a"]["values"] == [None, 5]
    assert "| a | nan |" in text
    key = board["tables"][0]["columns"][0]["key"]
    shown = {row["entry"]: row["cells"][key]["value"] for row in page["tables"][0]["rows"]}
    assert list(shown.items()) == [("c", 7.5), ("a", None), ("b", None)]


def test_curves_have_the_clock_of_the_budget_or_the_average_rate() -> None:
    fd = protocol("fd")
    clocked = [
        {"step": 50, "loss": 1.0, "fd": 30.0, "fd_protocol": fd, "budget_seconds": 20.0, "budget_images": 3200},
        {"step": 75, "loss": 0.9, "fd": "", "fd_protocol": "", "budget_seconds": "", "budget_images": ""},
        {"step": 100, "loss": 0.5, "fd": 10.0, "fd_protocol": fd, "budget_seconds": 60.0, "budget_images": 6400},
    ]
    write_run(Path("x/clocked"), {"fd": 10.0}, history=clocked)
    plain = [{"step": 50, "fd": 30.0, "fd_protocol": fd}]
    write_run(Path("x/plain"), {"fd": 11.0}, history=plain, settings={"a": 1})
    _, _, page = report("--runs", "x/clocked", "x/plain", folder="leaderboard")
    (one,), (two,) = (next(iter(row["curves"].values())) for row in page["tables"][0]["rows"])
    assert (one["points"], one["clocked"]) == ([[20, 3200, 30], [64, 6400, 10]], True)
    assert (two["points"], two["clocked"]) == ([[32, 3200, 30], [64, 6400, 11]], False)


def test_what_is_measured_along_the_way_is_a_curve_and_no_value_of_the_end() -> None:
    cheap, whole = protocol("fd", "real=mnist28-train-100, fake=100, weights=raw"), protocol("fd")
    history = [{"step": step, "fd": 90.0 - step, "fd_protocol": cheap} for step in (25, 50, 75)]
    history += [{"step": 100, "fd": 7.0, "fd_protocol": cheap}]  # metrics.csv has a column for both
    write_run(Path("x/a"), {"fd": (7.0, whole)}, history=history)
    board, _, page = report("--runs", "x/a", folder="leaderboard")
    assert [c["key"] for c in board["tables"][0]["columns"] if c.get("metric") == "fd"] == [
        whole.replace(", weights=raw", "")
    ]
    series = page["tables"][0]["series"]
    assert [one["label"] for one in series] == ["fd (fake=100)", "fd"]
    (curve,) = page["tables"][0]["rows"][0]["curves"][series[0]["key"]]
    assert [point[2] for point in curve["points"]] == [65, 40, 15]


class Tags(HTMLParser):
    """Tags and attributes of a page, as a browser reads them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "onerror", "onclick")]


def test_names_and_notes_are_text_never_script() -> None:
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(1)>$title"
    folder = Path("runs/bench/digits")
    write_suite(folder, {"a": [1.0], "b<i>|*": [2.0]}, notes={"a": evil})
    plain = report("digits")[1]
    before = Tags((folder / "leaderboard.html").read_text()).tags
    assert page_data((folder / "leaderboard.html").read_text())["entries"]["a"]["note"] == evil
    assert r"b\<i\>\|\*" in plain
    (folder / "suite.yaml").write_text((folder / "suite.yaml").read_text().replace(json.dumps(evil)[1:-1], "harmless"))
    report("digits")
    assert Tags((folder / "leaderboard.html").read_text()).tags == before
    assert before.count("script") == 2


def test_the_page_holds_everything_and_is_small() -> None:
    folder = Path("runs/bench/digits")
    write_suite(folder, {f"entry{i}": [None] for i in range(15)})
    for i in range(15):
        (folder / f"entry{i}-0" / "config.yaml").unlink()
        (folder / f"entry{i}-0").rmdir()
        write_run(folder / f"entry{i}-0", {"fd": float(i)}, grid=274 if i else 1058)
    (folder / "entry3-0" / "samples" / "step-00000100.png").write_bytes(b"\x89PNG\r\n\x1a\n half")
    report("digits")
    page = (folder / "leaderboard.html").read_text()
    assert len(page) < 5 * 2**20
    assert Tags(page).links == []
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", page)
    entries = page_data(page)["entries"]
    assert entries["entry0"]["picture"].startswith("data:image/webp;base64,")
    assert entries["entry0"]["of"] == "samples of entry0, seed 0, after 100 steps"
    assert entries["entry3"]["picture"] == ""
