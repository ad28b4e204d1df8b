"""The pages of the site are made from the code, hold everything, and link to what is there."""

from __future__ import annotations

import html
import re
import subprocess
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import zoo
from docs import architectures, build, gallery, networks, notebooks, source, walks
from zoo import pretrained, recipes
from zoo.bench.speed import forms

ROOT = Path(__file__).parents[2]
WRITTEN = sorted((ROOT / "docs" / "pages").rglob("*.md"))
LINK = re.compile(r"\]\(([^)\s]+)\)|(?:href|src)=\"([^\"]+)\"")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources of the site, without the figures of the networks."""
    folder = tmp_path_factory.mktemp("site")
    build.build(folder, figures=False)
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[str, str]:
    return {str(path.relative_to(site / "pages")): path.read_text() for path in (site / "pages").rglob("*.md")}


def test_every_architecture_and_checkpoint_has_a_page(pages: dict[str, str]) -> None:
    for name in zoo.ARCHITECTURES:
        page = pages[f"architectures/{name}.md"]
        assert f"# {name}\n" in page
        assert f"::: {zoo.ARCHITECTURES[name]}.{name}\n" in page
        assert architectures.paper(name) in page
        for slug in architectures.checkpoints(name):
            assert f"(../checkpoints/{slug}.md)" in page
        for recipe in architectures.recipes_of(name):
            assert f"`{recipe}`" in page
        assert f"({name}.md)" in pages["architectures/index.md"]
    for slug, entry in pretrained.index().items():
        assert all(metric["protocol"] in pages[f"checkpoints/{slug}.md"] for metric in entry["metrics"])
        assert f'href="checkpoints/{slug}.html"' in pages["gallery.md"]
    assert {name for kind in zoo.ARCHITECTURES for name in architectures.recipes_of(kind)} == {*recipes.list_recipes()}


def test_every_deviation_from_a_paper_stands_on_a_page(pages: dict[str, str]) -> None:
    written = "".join(text for path, text in pages.items() if path.startswith("architectures/"))
    files = [*(ROOT / "zoo").glob("*.py"), *(ROOT / "zoo" / "nn").glob("*.py")]
    found = [note for path in files for note in source.notes(str(path.relative_to(ROOT)))]
    count = sum(path.read_text().count("NOTE(paper):") for path in files)
    assert len(found) == count > 20
    missing = [f"{note.file}:{note.line}" for note in found if note.text not in written]
    assert not missing
    vae = pages["architectures/BetaVAE.md"]
    assert "without the weak weight decay" in vae, "what holds for the parent"
    assert "TensorFlow's SAME padding" not in vae, "what holds for a definition of the same file that VAE does not use"


def test_internal_links_lead_somewhere(site: Path, pages: dict[str, str]) -> None:
    files = {str(path.relative_to(site / "pages")) for path in (site / "pages").rglob("*") if path.is_file()}
    made = files | {f"{path.removesuffix('.md')}.html" for path in pages}
    lost = []
    for page, text in pages.items():
        for match in LINK.finditer(re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.S)):
            target = html.unescape(match[1] or match[2]).partition("#")[0]
            if not target or re.match(r"\w+:", target):
                continue
            parts: list[str] = []
            for part in (PurePosixPath(page).parent / target).parts:
                parts = parts[:-1] if part == ".." else [*parts, part]
            if "/".join(parts) not in made:
                lost.append(f"{page}: {target}")
    assert not lost


def test_the_menu_has_every_page_once(site: Path, pages: dict[str, str]) -> None:
    settings = yaml.safe_load((site / "mkdocs.yml").read_text())

    def leaves(part: object) -> list[str]:
        if isinstance(part, str):
            return [part]
        return [leaf for value in (part.values() if isinstance(part, dict) else part) for leaf in leaves(value)]  # type: ignore[attr-defined]

    assert sorted(leaves(settings["nav"])) == sorted(pages)


def test_commands_are_what_the_parsers_say(pages: dict[str, str]) -> None:
    page = pages["reference/commands.md"]
    for command in ("fit", "sample", "bench run", "verify"):
        assert f"usage: zoo {command}" in page
    assert "--checkpoint_every" in page
    assert "zoo: error" not in page


def test_commands_of_written_pages_name_what_exists() -> None:
    text = "\n".join(path.read_text() for path in [*WRITTEN, *(ROOT / "docs" / "notebooks").glob("*.ipynb")])
    assert set(re.findall(r"--config[ =]([\w-]+)", text)) <= set(recipes.list_recipes())
    slugs = set(re.findall(r"(?:zoo (?:show|sample|verify)|--init|load\(\\?\") ?([a-z_]+-\w+(?:-\w+)*)", text))
    assert slugs
    assert slugs <= set(pretrained.list_pretrained())


def test_a_written_page_with_an_unknown_part_is_refused(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text("{{nothing}}")
    with pytest.raises(ValueError, match=r"page.md names a part 'nothing'"):
        build._filled(tmp_path / "page.md", build.PARTS)


def test_tiles_say_family_data_and_task() -> None:
    page = gallery.page()
    assert page.count('class="tile"') == len(pretrained.index())
    tile = re.search(r'<a class="tile" href="checkpoints/cyclegan-openmoji2noto64.html" ([^>]*)>', page)
    assert tile is not None
    assert tile[1] == 'data-family="GAN" data-data="emoji" data-task="translation"'
    for name in ("family", "data", "task"):
        offered = set(
            re.findall(r'<option value="([^"]+)">', page[page.index(f'name="{name}"') :].partition("</select>")[0])
        )
        assert offered == set(re.findall(rf'data-{name}="([^"]+)"', page))
    assert all(re.search(r'alt="[^"]+"', image) for image in re.findall(r"<img [^>]*>", page))


def test_shapes_of_networks() -> None:
    (form,) = [form for form in forms() if form.architecture == "DCGAN"]
    generator, discriminator = networks.networks(form)
    assert [step.shape for step in generator.steps] == [(100,), (128, 4, 4), (64, 8, 8), (32, 16, 16), (3, 32, 32)]
    assert generator.steps[2].layer == "ConvTranspose2d"
    assert [step.shape for step in discriminator.steps][::4] == [(3, 32, 32), (1, 1, 1)]
    drawn = networks.figure(generator)
    assert drawn.count("<rect") == 5
    assert 'aria-label="generator: 100, StartMap 128 × 4 × 4' in drawn


def test_a_walk_leads_from_each_sample_to_the_next(tmp_path: Path) -> None:
    walks.write("gan-mnist28", tmp_path / "walk.gif")
    animation = Image.open(tmp_path / "walk.gif")
    assert animation.n_frames == 2 * walks.FRAMES - 2  # type: ignore[attr-defined]
    model = zoo.load("gan-mnist28")
    ends = [zoo.grid(images, columns=4) for images in (model.sample(8, seed=0), model.sample(8, seed=0).roll(-1, 0))]
    for frame, expected in zip((0, walks.FRAMES - 1), ends, strict=True):
        animation.seek(frame)
        shown, made = (np.asarray(picture.convert("L")).astype(int) for picture in (animation, expected))
        assert abs(shown - made).max() <= 2
    assert walks.caption("projection_text2image-emoji64") is None
    assert "(../walks/dcgan-emoji32.gif)" in architectures.page("DCGAN", figures=True)


def test_codes_turn_and_images_are_drawn(tmp_path: Path) -> None:
    def frames(slug: str) -> list[np.ndarray[Any, Any]]:
        walks.write(slug, tmp_path / f"{slug}.gif")
        animation = Image.open(tmp_path / f"{slug}.gif")
        found = []
        for i in range(walks.FRAMES):
            animation.seek(i)
            found.append(np.asarray(animation.convert("L")).astype(int))
        return found

    model = zoo.load("infogan-mnist28")
    strips = model.traversals(1, walks.FRAMES, seed=0)
    ends = [zoo.grid(torch.stack([strips[f"continuous{i}"][0, end] for i in (0, 1)]), columns=4) for end in (0, -1)]
    found = frames("infogan-mnist28")
    assert all(abs(found[end] - np.asarray(ends[end].convert("L"))).max() <= 2 for end in (0, -1))

    model = zoo.load("pixelcnn-mnist28")
    whole = np.asarray(zoo.grid(model.sample(8, seed=0), columns=4).convert("L")).astype(int)
    found = frames("pixelcnn-mnist28")
    assert abs(found[-1] - whole).max() <= 2
    assert abs(found[5][2:15] - whole[2:15]).max() <= 2  # the upper half is there, and nothing below it
    assert set(np.unique(found[5][17:29, 4:28])) <= {127, 128}
    assert walks.caption("nade-mnist28") == "eight samples as they are drawn"
    assert walks.caption("classifier-mnist28") is None


def test_docstrings_become_markdown() -> None:
    text = source.paragraphs("A: one.\n\n    x = f(y)\n      + z\n\nOf <phase>_loss and `<run>`.")
    assert text == "A: one.\n\n```text\nx = f(y)\n  + z\n```\n\nOf &lt;phase>_loss and `<run>`."


def test_notebooks_are_small_and_their_pictures_are_written(tmp_path: Path) -> None:
    notebooks.write_files(tmp_path)
    made = notebooks.pages()
    assert len(made) == 3
    for path in notebooks.FOLDER.glob("*.ipynb"):
        assert path.stat().st_size < 500_000
        shown = re.findall(r"\((\S+\.(?:png|gif))\)", made[f"notebooks/{path.stem}.md"])
        assert shown
        assert all((tmp_path / name).stat().st_size > 100 for name in shown)


def _blocks(kind: str) -> list[tuple[str, str]]:
    pattern = re.compile(rf"```{kind}\n(.*?)```", re.S)
    return [(path.name, "\n".join(found)) for path in WRITTEN if (found := pattern.findall(path.read_text()))]


@pytest.mark.slow
@pytest.mark.parametrize(("page", "code"), _blocks("python"), ids=[name for name, _ in _blocks("python")])
def test_python_of_written_pages_runs(page: str, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(code, page, "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize(("page", "code"), _blocks("bash"), ids=[name for name, _ in _blocks("bash")])
def test_scripts_of_written_pages_can_be_parsed(page: str, code: str) -> None:
    subprocess.run(["bash", "-n"], input=code, text=True, check=True)


@pytest.mark.parametrize(("page", "code"), _blocks("yaml"), ids=[name for name, _ in _blocks("yaml")])
def test_yaml_of_written_pages_can_be_parsed(page: str, code: str) -> None:
    assert all(isinstance(part, dict) for part in yaml.safe_load_all(code))
