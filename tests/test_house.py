"""The rules of the house, for every file that is there: who may import whom, how long a paper is, what it takes."""

from __future__ import annotations

import inspect
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import grimp
import pytest
import yaml

import zoo
from zoo.base import AdversarialModel
from zoo.pretrained import index

ROOT = Path(__file__).parents[1]
PAPERS = sorted(path for path in (ROOT / "zoo").glob("*.py") if not path.stem.startswith("_"))
MACHINERY = ("callbacks", "cli", "convert", "datamodules", "pretrained", "recipes", "weights")


@cache
def imports() -> dict[str, set[str]]:
    """Which module imports which at run time."""
    graph = grimp.build_graph("zoo", exclude_type_checking_imports=True, cache_dir=None)
    return {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}


def circles(graph: dict[str, set[str]]) -> list[set[str]]:
    """Groups of modules that import each other, in two passes of depth-first search (Kosaraju 1978)."""
    order: list[str] = []
    seen: set[str] = set()

    def visit(module: str, edges: dict[str, set[str]], done: list[str]) -> None:
        stack: list[tuple[str, Iterator[str]]] = [(module, iter(sorted(edges[module])))]
        seen.add(module)
        while stack:
            for other in stack[-1][1]:
                if other not in seen:
                    seen.add(other)
                    stack.append((other, iter(sorted(edges[other]))))
                    break
            else:
                done.append(stack.pop()[0])

    for module in sorted(graph):
        if module not in seen:
            visit(module, graph, order)
    backwards: dict[str, set[str]] = {module: set() for module in graph}
    for module, others in graph.items():
        for other in others:
            backwards[other].add(module)
    seen.clear()
    found = []
    for module in reversed(order):
        if module not in seen:
            group: list[str] = []
            visit(module, backwards, group)
            found.append(set(group))
    return [group for group in found if len(group) > 1]


def test_circles_are_found() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set()}
    assert circles(graph) == [{"a", "b", "c"}]


def test_no_circle_between_modules() -> None:
    assert circles(imports()) == []


@pytest.mark.parametrize("path", PAPERS, ids=lambda path: path.stem)
def test_a_paper_imports_base_nn_engine_and_what_it_is(path: Path) -> None:
    for module in imports()[f"zoo.{path.stem}"]:
        assert module != "zoo", "the whole package is imported"
        assert module.split(".")[1] not in MACHINERY, module


@pytest.mark.parametrize("path", PAPERS, ids=lambda path: path.stem)
def test_a_paper_has_at_most_250_lines(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 250


def test_a_file_at_the_top_is_a_class_that_a_recipe_can_name() -> None:
    assert {f"zoo.{path.stem}" for path in PAPERS} == set(zoo.ARCHITECTURES.values())


# Parameters -----------------------------------------------------------------------------------------------------------

OPTIONS = {*inspect.signature(AdversarialModel.__init__).parameters, "augment", "options"}
RATES = {"learning_rate", "generator_learning_rate", "discriminator_learning_rate"}
COMMON = {"self", "image_size", "image_channels", "latent_dim", *RATES}
"""Whatever users set for images and batches of their own."""


def parameters(name: str) -> list[str]:
    """Parameters of an architecture, without those that the base declares for all."""
    return [p for p in inspect.signature(getattr(zoo, name).__init__).parameters if p not in OPTIONS]


def settings() -> Iterator[tuple[str, dict[str, Any]]]:
    """Class and arguments of every recipe and every published file."""
    for path in (ROOT / "zoo" / "recipes").glob("*.yaml"):
        model = yaml.safe_load(path.read_text())["model"]
        yield model["class_path"].rpartition(".")[2], model.get("init_args", {})
    for entry in index().values():
        name = entry["class"].rpartition(".")[2]
        signature = inspect.signature(getattr(zoo, name).__init__).parameters
        plain = {key: list(p.default) if isinstance(p.default, tuple) else p.default for key, p in signature.items()}
        yield name, {k: v for k, v in entry["hparams"].items() if k not in plain or plain[k] != v}


@cache
def used() -> dict[str, set[str]]:
    """By architecture: parameters that a recipe, a published file, a preset, a variant or a claim's test sets."""
    result: dict[str, set[str]] = {name: set() for name in zoo.ARCHITECTURES}
    for name, arguments in settings():
        result[name] |= arguments.keys()
    for name, module in zoo.ARCHITECTURES.items():
        tests = ROOT / "tests" / "models" / f"test_{module.rpartition('.')[2]}.py"
        source = inspect.getsource(inspect.getmodule(getattr(zoo, name)) or zoo)
        text = source[source.index("@classmethod") :] if "@classmethod" in source else ""
        text += tests.read_text() if tests.exists() else ""
        result[name] |= set(re.findall(r"\b(\w+)=", text)) | set(re.findall(r"\"(\w+)\":", text))
    for name in zoo.ARCHITECTURES:  # what is set in a variant is set in its parent, and the other way round
        for parent in getattr(zoo, name).__mro__[1:]:
            if parent.__name__ in result:
                passed_on = re.findall(r"\b(\w+)=", inspect.getsource(getattr(zoo, name).__init__))
                result[name], result[parent.__name__] = (
                    result[name] | result[parent.__name__],
                    result[parent.__name__] | set(passed_on),
                )
    return result


@pytest.mark.parametrize("name", sorted(zoo.ARCHITECTURES))
def test_parameters_are_few_and_used(name: str) -> None:
    own = parameters(name)
    assert len(own) - 1 <= 14, own  # without self
    idle = [p for p in own if p not in COMMON and p not in used()[name]]
    assert not idle, f"no recipe, preset, published file or claim sets {idle}"


def test_wheel_holds_zoo_alone(tmp_path: Path) -> None:
    """Nothing else lies at the top of anybody's environment."""
    text = (ROOT / "pyproject.toml").read_text()
    packages = re.search(r"^packages = \[(.*?)\]", text, re.S | re.M)
    assert packages is not None
    listed = set(re.findall(r'"([\w.]+)"', packages[1]))
    assert all(package.partition(".")[0] == "zoo" for package in listed)
    tracked = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    folders = {str(Path(file).parent).replace("/", ".") for file in tracked.split()}
    named = {f"zoo.{f}" if f.split(".")[0] in ("callbacks", "datamodules") else f for f in folders}
    assert {f for f in named if f.partition(".")[0] == "zoo"} == listed - {"zoo.weights", "zoo.recipes"} | (
        named & {"zoo.weights", "zoo.recipes"}
    )
