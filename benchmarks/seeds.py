"""One recipe trained with several seeds: `python -m benchmarks.seeds NAME --recipe RECIPE --measure class_error RUNS`.

Objectives, lengths and seeds are compared by validation images, which this program measures. The test value of each run
is the one that its callback measured when the training ended; nothing is measured on the test images again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmarks.environment import RESULTS, environment
from zoo import recipes
from zoo.callbacks.base import Result
from zoo.callbacks.measures import MEASURES
from zoo.pretrained import load
from zoo.pretrained.evaluation import measure_once
from zoo.pretrained.measures import configured_measures
from zoo.pretrained.publish import changed
from zoo.pretrained.verify import data_module

__all__ = ["finished", "main", "one_commit", "row", "spread"]

OWN = ("seed_everything", "data.init_args.data_dir", "trainer.precision")
"""Settings in which runs of one recipe may differ: seeds and places; bf16 is a matter of the hardware."""


def row(runs: Sequence[Path], recipe: str, measure: str, objective: str) -> dict[str, Any]:
    """Values of runs that differ in their seeds alone.

    Args:
        runs: folders of finished runs.
        recipe: recipe that they follow.
        measure: name of the measure.
        objective: what they minimize, in words.

    Raises:
        FileNotFoundError: a folder is no finished run.
        ValueError: the runs differ in more than their seeds, two have the same seed, or one measured something else.
    """
    settings = yaml.safe_load(recipes.find(recipe).read_text())
    configs, summaries = [], []
    values: dict[str, dict[str, float]] = {"validation": {}, "test": {}}
    protocols: dict[str, set[str]] = {"validation": set(), "test": set()}
    found: Result | None = None
    for run in runs:
        config, summary = finished(run)
        seed = str(config["seed_everything"])
        if seed in values["test"]:
            raise ValueError(f"{run} has seed {seed}, as another of the runs has")
        if measure not in summary["values"]:
            known = ", ".join(summary["values"]) or "nothing"
            raise ValueError(f"{run} did not measure {measure!r}, but {known}")
        found = _validated(run, config, measure)
        for split, value, protocol in (
            ("validation", found.value, found.protocol),
            ("test", summary["values"][measure]["value"], summary["values"][measure]["protocol"]),
        ):
            values[split][seed] = value
            protocols[split].add(protocol)
        configs.append({k: v for k, v in changed(settings, config) if k not in OWN})
        summaries.append(summary)
    if any(config != configs[0] for config in configs) or any(len(names) > 1 for names in protocols.values()):
        raise ValueError("the runs differ in more than their seeds: give those of one setting")
    assert found is not None
    facts = environment(torch.device("cpu")) | {"commit": one_commit(summaries)}
    return {
        "benchmark": "seeds",
        "recipe": recipe,
        "objective": objective,
        "changed": configs[0],
        "architecture": summaries[0]["model"].rpartition(".")[2],
        "data": summaries[0]["data"],
        "metric": measure,
        "unit": MEASURES[measure].unit,
        "chance": found.chance,
        "standard_error": found.error,
        **{split: {"protocol": protocols[split].pop(), **spread(values[split])} for split in values},
        "steps": summaries[0]["steps"],
        "training_seconds": [round(summary["training_seconds"]) for summary in summaries],
        "precision": summaries[0]["precision"],
        **facts,
    }


def _validated(run: Path, config: dict[str, Any], measure: str) -> Result:
    """The value of a run's last weights on validation images."""
    arguments = next(m.arguments for m in configured_measures(config) if m.measure == measure)
    init = config["data"]["init_args"]
    data = data_module({"class": config["data"]["class_path"], "init_args": init}, init.get("data_dir"))
    model = load(run / "checkpoints" / "last.ckpt")
    (found,) = measure_once(measure, model, data, arguments | {"split": "val"})
    return found


def finished(run: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings and summary of a run.

    Raises:
        FileNotFoundError: it has not finished.
    """
    for path in (run / "config.yaml", run / "run.json"):
        if not path.exists():
            raise FileNotFoundError(f"{run} is no finished run: {path} is missing")
    return yaml.safe_load((run / "config.yaml").read_text()), json.loads((run / "run.json").read_text())


def spread(values: dict[str, float]) -> dict[str, Any]:
    """Mean and deviation of values by their seeds."""
    numbers = list(values.values())
    deviation = statistics.stdev(numbers) if len(numbers) > 1 else None
    return {"value": statistics.mean(numbers), "deviation": deviation, "seeds": values}


def one_commit(summaries: Sequence[dict[str, Any]]) -> str:
    """The commit that trained all of these runs.

    Raises:
        ValueError: there are several.
    """
    commits = {str(summary.get("commit") or "unknown") for summary in summaries}
    if len(commits) > 1:
        raise ValueError(f"the runs are of several commits: {', '.join(sorted(commits))}")
    text = commits.pop()
    return text[:10] + ("+changes" if text.endswith("+") else "")


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, and write the row."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.seeds",
        description="Compare runs of one setting with several seeds, by validation images, and write a row.",
        epilog="example: python -m benchmarks.seeds semi100-affine --recipe aae-mnist28-semi100-small "
        "--measure class_error --objective 'with affine classes' runs/semi100-seed*",
    )
    parser.add_argument("name", help="name of the row: seeds-NAME.json")
    parser.add_argument("runs", nargs="+", type=Path, help="folders of finished runs")
    parser.add_argument("--recipe", required=True, help="recipe that the runs follow")
    parser.add_argument("--measure", required=True, help="measure of the recipe's callbacks")
    parser.add_argument("--objective", required=True, help="what the runs minimize, in words")
    parser.add_argument("--out-dir", type=Path, default=RESULTS, help="folder of the rows; default: benchmarks/results")
    args = parser.parse_args(arguments)
    try:
        found = row(args.runs, args.recipe, args.measure, args.objective)
    except (OSError, ValueError, LookupError) as error:
        sys.exit(f"benchmarks.seeds: {error}")
    text = json.dumps(found, indent=2)
    print(text)
    (args.out_dir / f"seeds-{args.name}.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
