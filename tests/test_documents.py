"""What the documents say is true."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

import zoo
from benchmarks import architectures
from zoo import pretrained, recipes
from zoo.pretrained import cards

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.S)


@pytest.mark.slow
@pytest.mark.parametrize("block", BLOCKS)
def test_readme_blocks_run(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "README.md", "exec"), {"__name__": "__main__"})


def test_the_readme_is_short_and_its_links_lead_somewhere() -> None:
    assert len(README.splitlines()) <= 150
    targets = [target for target in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in target]
    assert targets
    assert all((ROOT / target).exists() for target in targets)


def test_readme_names_recipes_and_checkpoints_that_exist() -> None:
    assert set(re.findall(r"--config ([\w-]+)", README)) <= set(recipes.list_recipes())
    assert set(re.findall(r"zoo (?:show|sample|verify) ([\w-]+-\w+)", README)) <= set(pretrained.list_pretrained())


def test_readme_has_the_table_of_architectures() -> None:
    assert set(architectures.PAPERS) == set(zoo.ARCHITECTURES), "each architecture needs a line in PAPERS"
    assert architectures.document(README) == README, "run python -m benchmarks.architectures"
    assert all(architectures.table().count(f"`{name}`") == 1 for name in zoo.ARCHITECTURES)
    cells = [line.strip("| ").split(" | ") for line in architectures.table().splitlines()[2:]]
    shown = {}
    for row in (row for row in cells if len(row) > 3 and row[2]):
        shown |= dict(zip(row[2].split("<br>"), row[3].split("<br>"), strict=True))
    assert shown.keys() == {f"`{slug}`" for slug in pretrained.index()}
    for slug, entry in pretrained.index().items():
        metric, data = entry["metrics"][0], entry["data"]["name"]
        value, _, said = shown[f"`{slug}`"].partition(" (")
        assert value == f"{metric['name']} {cards.value(metric)}"
        for kind in ("dynamic", "fixed"):
            assert (f"{kind} binarization" in said) == (f"-{kind}" in data), slug
        assert ("chance" in said) == ("chance" in metric), slug


def test_cards_are_those_of_the_index() -> None:
    for slug, entry in pretrained.index().items():
        assert pretrained.card(slug) == cards.card(slug, entry)


def test_recipes_are_short_and_say_what_they_are() -> None:
    for name in recipes.list_recipes():
        lines = recipes.find(name).read_text().splitlines()
        assert len(lines) <= 40, name
        assert lines[0].startswith("# ")
        assert lines[1].startswith("# "), name
        assert name.rpartition("-")[2] in ("smoke", "small", "paper")


def test_versions_agree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == zoo.__version__
    assert f"version: {zoo.__version__}" in (ROOT / "CITATION.cff").read_text()


def test_the_changelog_leads_to_the_version() -> None:
    headings = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert headings[0] == "[Unreleased]"
    releases = [re.fullmatch(r"\[(\d+)\.(\d+)\.(\d+)\] - \d{4}-\d\d-\d\d", heading) for heading in headings[1:]]
    assert all(releases), "a release is `## [1.2.3] - 2030-01-31`"
    numbers = [tuple(map(int, release.groups())) for release in releases if release]
    assert numbers == sorted(numbers, reverse=True)
    if numbers:
        assert zoo.__version__ == ".".join(map(str, numbers[0])), "a version is entered when its heading is"


def test_hooks_are_what_make_lint_runs() -> None:
    recipe = re.search(r"^lint:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.M)
    assert recipe is not None
    commands = [line.strip().replace("$(BIN)", ".venv/bin") for line in recipe[1].splitlines()]
    (hooks,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [hook["entry"] for hook in hooks["hooks"]] == commands


def test_addresses_of_the_project_are_true_or_absent() -> None:
    """A link to a place that nobody owns yet would lead readers to somebody else."""
    files = [
        "README.md",
        "CITATION.cff",
        "pyproject.toml",
        "zoo/weights/pyproject.toml",
        *map(str, ROOT.glob("docs/**/*.md")),
    ]
    for file in files:
        assert not re.search(r"https?://\S*OWNER", (ROOT / file).read_text()), file
