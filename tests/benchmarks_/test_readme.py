from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks import readme

MACHINE = {
    "commit": "0123456789",
    "versions": {"python": "3.11", "torch": "2.11", "lightning": "2.6"},
    "hardware": {"cpu": "A CPU", "cores": 2, "capability": "AVX2"},
}


def quality(slug: str, protocol: str, value: float, **more: Any) -> dict[str, Any]:
    row = {"benchmark": "quality", "slug": slug, "protocol": protocol, "value": value, "seeds": {"0": value}}
    return row | {"recipe": "a-recipe", "seconds": 12.0, "other_real_images": None} | MACHINE | more


def speed(precision: str = "32", **settings: Any) -> dict[str, Any]:
    quartiles = {"median": 1.25, "lower": 1.2, "upper": 1.3}
    base = {"image_size": 64, "batch_size": 64, "channels_last": True, "compile": False, "device": "cpu", "threads": 2}
    loops = {name: {"images_per_second": 100.0, "gflop_per_step": 145.6} for name in ("zoo", "plain", "textbook")}
    return {
        "benchmark": "speed",
        "architecture": "dcgan",
        "settings": base | {"precision": precision} | settings,
        "loops": loops,
        "zoo_over": {"plain": quartiles, "textbook": quartiles},
        "share_outside_networks": 0.02,
        "parameters": {"generator": 3576704},
        **MACHINE,
    }


def tables(page: str) -> list[list[str]]:
    return [block.splitlines() for block in re.findall(r"(?:^\|.*\n)+", page, re.MULTILINE)]


def test_protocols_never_share_a_table() -> None:
    rows = [quality("b", "fd[x]", 300.0), quality("a", "fd[x]", 200.0, untrained=800.0, over_untrained=0.25)]
    found = tables(readme.page([*rows, quality("c", "fid[y]", 20.0)]))
    assert [len(table) - 2 for table in found] == [2, 1]
    assert found[0][2].startswith("| a | **200.0** | 0 | 800.0 | 25% |")
    assert "`fid[y]`" in readme.page([*rows, quality("c", "fid[y]", 20.0)])


def test_other_measures_have_tables_of_their_own() -> None:
    error = quality("a", "class_error[x]", 3.456, unit="%", untrained=88.0, parameters=1234567)
    rows = [quality("a", "fd[x]", 200.0, other_real_images=50.0), error, quality("b", "mig[y]", 0.0312)]
    page = readme.page(rows)
    percent, distance, gap = tables(page)
    assert "| checkpoint | value | seeds | untrained | parameters | recipe |" in percent[0]
    assert percent[2].startswith("| a | **3.46 %** | 0 | 88.00 % | 1,234,567 | a-recipe |")
    assert "| other real images |" in distance[0]
    assert "untrained" not in distance[0]
    assert gap[2].startswith("| b | **0.0312** | 0 | a-recipe |")
    assert page.index("class_error[x]") < page.index("3.46 %") < page.index("fd[x]")


def test_sizes_never_share_a_table() -> None:
    found = tables(readme.page([speed(), speed("bf16"), speed(image_size=32), speed(threads=1)]))
    assert sorted(len(table) - 2 for table in found) == [1, 1, 2]


def test_every_line_has_as_many_cells_as_the_head() -> None:
    for table in tables(readme.page([speed(), quality("a", "fd[x]", 1.0)])):
        assert len({line.count("|") for line in table}) == 1


def test_a_file_that_is_no_row_is_named(tmp_path: Path) -> None:
    (tmp_path / "good.json").write_text(json.dumps(speed()))
    assert len(readme.read(tmp_path)) == 1
    (tmp_path / "torn.json").write_text("{")
    with pytest.raises(ValueError, match=r"torn\.json is no row"):
        readme.read(tmp_path)


def test_the_page_follows_from_the_rows() -> None:
    readme.main(["--check"])


def test_an_old_page_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readme, "README", tmp_path / "README.md")
    with pytest.raises(SystemExit, match=r"README\.md does not follow"):
        readme.main(["--check"])
    readme.main([])
    readme.main(["--check"])


def test_what_bounds_a_step_by_hand() -> None:
    count = {"architecture": "dcgan", "image_size": 64, "options": {"update": "simultaneous"}, "plain": 400.0}
    counts = [count | {"zoo": 500.0, "gflop_per_image": 1.0}, count | {"zoo": 10.0, "gflop_per_image": 1.0}]
    head, _, *lines = tables(readme.page([{"benchmark": "launches", "counts": counts, **MACHINE}]))[1]
    assert head.startswith("| architecture | pixels | GFLOP/image | operations | launching, ms | ideal ms, H200 |")
    # 500 x 4 us = 2 ms; 64 GFLOP at 395 TFLOP/s = 0.162 ms, at 156 TFLOP/s 0.410 ms; 2 ms are 790 and 312 images.
    first = ["dcgan, update=simultaneous", "64", "1", "500", "2.00", "0.162", "launching", "790"]
    assert lines[0] == f"| {' | '.join([*first, '0.41', 'launching', '312'])} |"
    assert lines[1].endswith("| 0.04 | 0.162 | arithmetic | 16 | 0.41 | arithmetic | 7 |")
