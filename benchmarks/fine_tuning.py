"""What a start from a checkpoint is worth: `python -m benchmarks.fine_tuning NAME RUNS`.

The runs follow one recipe on the same pictures for as many steps: some start from a checkpoint (`--init`), the others
from nothing, each with several seeds. Values are those that their callbacks measured when the trainings ended.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.environment import RESULTS, environment
from benchmarks.seeds import finished, one_commit, spread

__all__ = ["main", "row"]

OWN = ("seed_everything", "init")
"""Settings in which the runs differ."""


def row(runs: Sequence[Path]) -> dict[str, Any]:
    """Values of runs, by what they started from.

    Args:
        runs: folders of finished runs.

    Raises:
        FileNotFoundError: a folder is no finished run.
        ValueError: the runs differ in more than seed and start, or measured different things, or there is one start.
    """
    configs, summaries = [], []
    starts: dict[str, dict[str, dict[str, Any]]] = {}
    for run in runs:
        config, summary = finished(run)
        start = Path(str(config.get("init") or "nothing")).name
        seeds = starts.setdefault(start, {})
        if (seed := str(config["seed_everything"])) in seeds:
            raise ValueError(f"{run} has seed {seed} and starts from {start}, as another of the runs")
        seeds[seed] = summary["values"]
        configs.append({key: value for key, value in config.items() if key not in OWN})
        summaries.append(summary)
    facts = [(s["steps"], s["precision"], {k: v["protocol"] for k, v in s["values"].items()}) for s in summaries]
    measured = facts[0][2]
    if any(config != configs[0] for config in configs) or any(fact != facts[0] for fact in facts):
        raise ValueError("the runs differ in more than seed and start: give those of one setting")
    if len(starts) < 2:
        raise ValueError(f"all runs start from {', '.join(starts)}: give those of another start too")
    return {
        "benchmark": "fine_tuning",
        "architecture": summaries[0]["model"].rpartition(".")[2],
        "data": summaries[0]["data"],
        "steps": summaries[0]["steps"],
        "images": summaries[0]["images"],
        "precision": summaries[0]["precision"],
        "training_seconds": [round(summary["training_seconds"]) for summary in summaries],
        "protocols": measured,
        "starts": {
            start: {name: spread({seed: values[name]["value"] for seed, values in seeds.items()}) for name in measured}
            for start, seeds in starts.items()
        },
        **environment(torch.device("cpu")),
        "commit": one_commit(summaries),
    }


def main(arguments: list[str] | None = None) -> None:
    """Print and write the row."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.fine_tuning",
        description="Compare runs that start from a checkpoint with runs that start from nothing, and write a row.",
        epilog="example: python -m benchmarks.fine_tuning clothing64 runs/tuned-* runs/scratch-*",
    )
    parser.add_argument("name", help="name of the row: fine_tuning-NAME.json")
    parser.add_argument("runs", nargs="+", type=Path, help="folders of finished runs")
    parser.add_argument("--out-dir", type=Path, default=RESULTS, help="folder of the rows; default: benchmarks/results")
    args = parser.parse_args(arguments)
    try:
        found = row(args.runs)
    except (OSError, ValueError, LookupError) as error:
        sys.exit(f"benchmarks.fine_tuning: {error}")
    text = json.dumps(found, indent=2)
    print(text)
    (args.out_dir / f"fine_tuning-{args.name}.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
