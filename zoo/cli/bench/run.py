"""What `zoo bench run` does."""

from __future__ import annotations

import sys
from pathlib import Path

from zoo.cli.local import local_path
from zoo.cli.usage import Parser, UsageError

__all__ = ["run"]


def run(parser: Parser, arguments: list[str]) -> None:
    """Train and measure all entries of a suite that are not finished, and make its leaderboard."""
    add = parser.add_argument
    add("suite", help="name of a suite, or its YAML file")
    add("--only", help="names of entries, as dcgan,vae")
    add("--seeds", help="number of seeds, or a list such as 0,1,2; '2,' is seed 2 alone (the suite's)")
    for kind in ("minutes", "images", "flops"):
        add(f"--{kind}", type=float, help=f"budget of each run in {kind}, in place of the suite's")
    add("--data_dir", type=local_path, help="folder of the data, where the package does not carry them")
    add("--shard", help="I/N: every Nth run, from the Ith on, for one of N workers or machines")
    add("--jobs", type=int, default=1, help="runs at a time on this machine (1)")
    add("--runs_dir", type=local_path, default=Path("runs"), help="folder of all runs (runs)")
    add("--fresh", action="store_true", help="train runs anew whose settings have changed; the old ones move aside")
    add("--wandb", action="store_true", help="log to Weights & Biases, all runs in one group")
    parser.epilog = "\n".join([_overview(), "", parser.epilog or ""])
    options = parser.parse_args(arguments)
    if options.jobs < 1:
        raise UsageError(f"--jobs must be at least 1, not {options.jobs}")
    from zoo.cli.quiet import quiet

    quiet()
    from zoo import suites
    from zoo.bench.plan import narrowed, planned
    from zoo.bench.reporting import write_report
    from zoo.bench.rows import read_suite as read_results
    from zoo.bench.runner import Runner, shard_of
    from zoo.bench.suite import check_budget, check_seeds, read_suite

    suite = read_suite(suites.find(options.suite))
    budgets = {kind: value for kind in ("minutes", "images", "flops") if (value := getattr(options, kind)) is not None}
    budgets = {
        kind: int(value) if kind == "images" and value == int(value) else value for kind, value in budgets.items()
    }
    if budgets:
        check_budget(budgets)
    seeds = _seeds(options.seeds)
    if seeds is not None:
        check_seeds(seeds)
    only = options.only.split(",") if options.only else None
    if options.data_dir is not None:
        suite.data.setdefault("init_args", {})["data_dir"] = str(options.data_dir)
    plan = planned(narrowed(suite, only=only, seeds=seeds, budget=budgets), options.runs_dir)
    changed = [] if options.fresh else plan.changed()
    if changed:
        names = ", ".join(r.name for r in changed[:8]) + (f" and {len(changed) - 8} more" if len(changed) > 8 else "")
        raise ValueError(
            f"the settings of {names} have changed since these runs began: --fresh trains them anew (the old ones move "
            "aside), another file name for the suite keeps both"
        )
    mine = shard_of(plan.runs, options.shard)
    fresh = [r.name for r in plan.changed()]
    plan.write()
    ((kind, number),) = plan.suite.budget.items()
    each = f"{number:g} {kind if number != 1 else kind.removesuffix('s')}"
    print(f"{len(mine)} runs of {each} each in {plan.folder}/; the same command goes on where it was", flush=True)
    outcome = Runner(plan, mine, jobs=options.jobs, fresh=fresh, wandb=options.wandb).run()
    print(f"{len(outcome.done)} finished, {len(outcome.skipped)} were finished before, {len(outcome.failed)} failed")
    if outcome.done or outcome.skipped:
        write_report(read_results(plan.folder), plan.folder)
        print(f"Leaderboard: {plan.folder / 'leaderboard.html'}")
    if outcome.failed:
        sys.exit(1)


def _seeds(text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        numbers = [int(part) for part in text.removesuffix(",").split(",")]
    except ValueError as error:
        raise UsageError(f"--seeds is a number or a list such as 0,1,2, not {text!r}") from error
    return numbers if "," in text else list(range(numbers[0]))


def _overview() -> str:
    from zoo import suites

    return "suites:   " + "  ".join(suites.list_suites())
