"""Running a plan: skipping, failing, waiting, sharing; and real runs that are killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from zoo.bench import runner
from zoo.bench.plan import Plan, Run
from zoo.bench.runner import Runner, shard_of
from zoo.bench.suite import read_suite

Fails = Callable[..., str]
SUITE = """
data: {class_path: tests.cli.parts.Noise}
budget: {images: 40}
seeds: [0, 1]
evaluate: {num_samples: 16, extractor: classifier-mnist28, metrics: [fd, kd]}
curve: {looks: 1, num_samples: 8, metrics: [fd]}
measures: [tests.bench.own.brightness]
entries:
  mine: {model: {class_path: tests.bench.own.LSGAN}, note: not of this package}
  dcgan: {model: {class_path: DCGAN, init_args: {base_channels: 4, latent_dim: 4}}}
"""


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """Four runs that nobody trains."""
    path = tmp_path / "mine.yaml"
    path.write_text(SUITE)
    folder = tmp_path / "runs/bench/mine"
    folder.mkdir(parents=True)
    runs = [Run(n, s, folder / f"{n}-{s}", folder / f"{n}.yaml", {"images": 40}) for s in (0, 1) for n in "ab"]
    return Plan(read_suite(path), folder, {}, {}, runs)


def pretend(monkeypatch: pytest.MonkeyPatch, codes: dict[str, list[str]]) -> list[str]:
    """Processes that do what a line of Python says, the first of a run's list first; returns names as they start."""
    started: list[str] = []

    def start(plan: Plan, run: Run, *args: Any) -> subprocess.Popen[bytes]:
        started.append(run.name)
        left = codes.get(run.name, [""])
        with open(run.log, "ab") as log:
            return subprocess.Popen([sys.executable, "-S", "-c", left.pop(0)], stdout=log, stderr=log)

    monkeypatch.setattr(runner, "_started", start)
    monkeypatch.setattr(runner, "POLL", 0.01)
    monkeypatch.setattr(runner, "BUSY", 0.05)
    return started


def test_one_that_fails_stops_no_other(plan: Plan, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    started = pretend(monkeypatch, {"b-0": ["print('zoo: error: no memory'); raise SystemExit(1)"]})
    found = Runner(plan, plan.runs).run()
    assert started == ["a-0", "b-0", "a-1", "b-1"]
    assert (found.done, found.failed) == (["a-0", "a-1", "b-1"], {"b-0": "no memory"})
    assert f"b-0: failed: no memory ({plan.folder}/b-0.log)" in capsys.readouterr().out


def test_one_that_another_process_trains_is_waited_for(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    line = f"print('zoo: error: process 7 on h trains in {plan.folder / 'a-0'}: wait'); raise SystemExit(2)"
    started = pretend(monkeypatch, {"a-0": [line, line, ""]})
    found = Runner(plan, plan.runs[:2]).run()
    assert (found.done, found.failed, started.count("a-0")) == (["b-0", "a-0"], {}, 3)


def test_what_is_finished_is_skipped_unless_it_starts_anew(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Run, "is_finished", property(lambda run: run.seed == 0))
    started = pretend(monkeypatch, {})
    found = Runner(plan, plan.runs, fresh=["b-0"]).run()
    assert (found.skipped, started) == (["a-0"], ["b-0", "a-1", "b-1"])


def test_the_time_left_does_not_count_on_runs_that_are_skipped(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Run, "is_finished", property(lambda run: run.name != "b-1"))
    pretend(monkeypatch, {})
    bars: list[Any] = []
    inner = runner.tqdm
    monkeypatch.setattr(runner, "tqdm", lambda **options: bars.append(inner(**options)) or bars[-1])
    monkeypatch.setattr(runner.tqdm, "write", inner.write, raising=False)
    Runner(plan, plan.runs).run()
    assert (bars[0].n, bars[0].initial) == (4, 3)


def test_several_at_a_time(plan: Plan, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each of two waits for the other's file."""
    line = "import os, time\nopen({!r}, 'w')\nwhile not os.path.exists({!r}): time.sleep(0.01)"
    pairs = (("a-0", "b-0"), ("b-0", "a-0"))
    codes = {mine: [line.format(str(tmp_path / mine), str(tmp_path / other))] for mine, other in pairs}
    pretend(monkeypatch, codes)
    assert Runner(plan, plan.runs[:2], jobs=2).run().failed == {}


def test_an_interruption_ends_the_runs(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, {"a-0": ["import time; print('begun', flush=True); time.sleep(60)"]})
    processes: list[subprocess.Popen[bytes]] = []
    inner = runner._started

    def start(*args: Any) -> subprocess.Popen[bytes]:
        processes.append(inner(*args))
        return processes[-1]

    def show(*args: Any) -> None:
        if (plan.folder / "a-0.log").read_text():
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(runner, "_started", start)
    monkeypatch.setattr(Runner, "_show", show)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        Runner(plan, plan.runs).run()
    assert processes[0].returncode == -signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == before


def test_shards_share_all_runs(plan: Plan) -> None:
    parts = [[run.name for run in shard_of(plan.runs, f"{i}/3")] for i in range(3)]
    assert parts == [["a-0", "b-1"], ["b-0"], ["a-1"]]
    assert shard_of(plan.runs, None) == plan.runs
    for wrong in ("2/2", "0/0", "1", "a/b", "-1/2"):
        with pytest.raises(ValueError, match="--shard is I/N"):
            shard_of(plan.runs, wrong)


def test_a_run_has_its_share_of_cores_and_gpus(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[list[str], dict[str, str]]] = []
    monkeypatch.setattr(runner.subprocess, "Popen", lambda command, env, **options: seen.append((command, env)))
    monkeypatch.setattr(runner.os, "cpu_count", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    for slot in range(3):
        runner._started(plan, plan.runs[0], slot, 3, slot == 2, False)
    assert [(env["OMP_NUM_THREADS"], env["CUDA_VISIBLE_DEVICES"]) for _, env in seen] == [
        ("2", "4"),
        ("2", "6"),
        ("2", "4"),
    ]
    assert seen[0][0][1:] == [
        *("-m", "zoo", "fit", "--config", str(plan.folder / "a.yaml"), "--seed_everything", "0"),
        *("--runs_dir", str(plan.folder.parents[1]), "--name", "bench/mine/a-0"),
    ]
    assert seen[2][0][-1] == "--fresh"
    assert seen[0][1]["WANDB_RUN_GROUP"] == "mine"


WRONG: list[tuple[list[str], str]] = [
    (["mine.yaml", "--only=cdgan"], "the suite mine has no entry 'cdgan': did you mean 'dcgan'"),
    (["mine.yaml", "--minutes=0"], "a budget of minutes must be above 0, not 0"),
    (["mine.yaml", "--minutes=1", "--images=8"], "a budget is one of"),
    (["mine.yaml", "--seeds=x"], "--seeds is a number or a list"),
    (["mine.yaml", "--seeds=0"], "seeds are a number of at least 1"),
    (["mine.yaml", "--jobs=0"], "--jobs must be at least 1"),
    (["mine.yaml", "--shard=2/2"], "--shard is I/N"),
    (["mnist82"], "there is no suite or file 'mnist82': did you mean 'mnist28'"),
    (["mnist28", "--data_dir=nowhere"], "MNIST is not in nowhere"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG)
def test_bad_input(fails: Fails, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str) -> None:
    monkeypatch.setenv("ZOO_OFFLINE", "1")
    Path("mine.yaml").write_text(SUITE)
    assert message in fails("bench", "run", *arguments)
    assert not Path("runs").exists()


def test_changed_settings_name_the_runs_they_affect(fails: Fails) -> None:
    Path("mine.yaml").write_text(SUITE)
    folder = Path("runs/bench/mine")
    (folder / "mine-1").mkdir(parents=True)
    (folder / "mine-1/config.yaml").write_text("model:")
    (folder / "mine.yaml").write_text("of another day")
    message = fails("bench", "run", "mine.yaml")
    assert "the settings of mine-1 have changed since these runs began: --fresh trains them anew" in message
    assert (folder / "mine.yaml").read_text() == "of another day"


# Real runs ------------------------------------------------------------------------------------------------------------


def bench(*options: str) -> subprocess.Popen[bytes]:
    """`zoo bench run` of one seed, in a process of its own."""
    root = Path(__file__).parents[2]
    environment = dict(os.environ, PYTHONPATH=str(root), OMP_NUM_THREADS="1")
    arguments = [sys.executable, "-m", "zoo", "bench", "run", "mine.yaml", "--seeds=1", *options]
    return subprocess.Popen(arguments, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def board(runs_dir: str) -> dict[str, Any]:
    """The values of a leaderboard, those along the way among them, without times."""
    found = json.loads(Path(runs_dir, "bench/mine/leaderboard.json").read_text())
    return {
        entry["name"]: {
            "values": {value["metric"]: value for value in entry["values"]},
            "history": [
                [(point["metric"], point["step"], point["images"], point["value"]) for point in run["history"]]
                for run in entry["runs"]
            ],
        }
        for entry in found["entries"]
    }


@pytest.mark.slow
def test_killed_twice_it_comes_to_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("mine.yaml").write_text(SUITE)
    assert bench("--runs_dir=straight", "--only=mine").wait() == 0
    for _ in range(2):
        process = bench("--runs_dir=killed", "--only=mine")
        begun = len(list(Path("killed").rglob("metrics.csv")))
        while len(list(Path("killed").rglob("metrics.csv"))) == begun and process.poll() is None:
            time.sleep(0.05)
        process.kill()
        process.wait()
    assert bench("--runs_dir=killed", "--only=mine").wait() == 0
    straight = board("straight")
    assert set(straight) == {"mine"}
    assert set(straight["mine"]["values"]) == {"fd", "kd", "brightness"}
    assert [point[1] for point in straight["mine"]["history"][0] if point[0] == "fd"] == [3, 5]
    assert board("killed") == straight


@pytest.mark.slow
def test_two_workers_do_every_run_once() -> None:
    Path("mine.yaml").write_text(SUITE)
    workers = [bench(), bench()]
    assert [worker.wait() for worker in workers] == [0, 0]
    logs = {path.stem: path.read_text() for path in Path("runs/bench/mine").glob("*.log")}
    assert set(logs) == {"mine-0", "dcgan-0"}
    assert all(log.count("Finished: 5 steps") == 1 for log in logs.values())
