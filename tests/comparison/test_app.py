"""Options of `compare`, what it says before anything runs, and its estimates of time."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest

from comparison.app import _without
from comparison.planning.stages import Stage
from comparison.planning.task import Task
from comparison.running.outlook import Outlook
from comparison.running.store import Done, Store
from tests.compare_runs import compare, write_plan


@pytest.mark.parametrize(
    ("words", "left"),
    [
        (["--config", "p.yaml", "--slurm", "s.sh", "--jobs", "2"], ["--config", "p.yaml", "--jobs", "2"]),
        (["--slurm=s.sh", "--config", "p.yaml"], ["--config", "p.yaml"]),
        (["--config", "slurm.yaml", "--name", "--slurms"], ["--config", "slurm.yaml", "--name", "--slurms"]),
        (["--jobs", "2", "--slurm", "s.sh"], ["--jobs", "2"]),
    ],
)
def test_script_repeats_the_command_without_itself(words, left):
    assert _without(words, "--slurm") == left


def test_unknown_key_of_a_plan_is_refused(tmp_path, tiny_photographs, capsys):
    plan = write_plan(tmp_path, tiny_photographs, sets={"trainer.max_steps": 1})
    with pytest.raises(SystemExit):
        compare(plan, tmp_path / "root")
    assert "sets" in capsys.readouterr().err
    assert not (tmp_path / "root").exists()


def test_unknown_option_is_refused_with_the_nearest(tmp_path, tiny_photographs, capsys):
    with pytest.raises(SystemExit):
        compare(write_plan(tmp_path, tiny_photographs), tmp_path / "root", "--budget", "[5]")
    assert "there is no option 'budget'; did you mean 'budgets'?" in capsys.readouterr().err


def test_dry_run_of_a_new_plan_estimates_and_runs_nothing(tmp_path, tiny_photographs, capsys):
    plan = write_plan(tmp_path, tiny_photographs, regimes={"full": {}, "random": {}}, relabelling=[False])
    compare(plan, tmp_path / "root", "--dry_run")
    *lines, last = capsys.readouterr().out.splitlines()
    assert lines == [
        "to do  fit      full-train-net-plain-s0",
        "to do  test     full-test-net-plain-s0",
        "to do  predict  random-select-20-s0",
        "to do  fit      random-train-20-net-plain-s0",
        "to do  test     random-test-20-net-plain-s0",
    ]
    # The two trainings by timed updates; what a selection or a test takes, only a finished one tells.
    assert re.fullmatch(r"the rest takes about [\d.]+ s on 2 jobs, and 3 stages of unknown length", last)
    assert {path.name for path in (tmp_path / "root").iterdir()} == {"memo"}


def test_stage_that_lacks_its_input_names_it(tmp_path, tiny_photographs):
    plan = write_plan(tmp_path, tiny_photographs, regimes={"full": {}, "random": {}}, relabelling=[False])
    message = "^--only random-train-20-net-plain-s0: it reads random-select-20-s0, which is not done$"
    with pytest.raises(ValueError, match=message):
        compare(plan, tmp_path / "root", "--only", "random-train-20-net-plain-s0")


def task(name, signature, *needs):
    return Task(Stage(name, "test", "test", (), needs, {}), f"key-of-{name}", signature)


@pytest.fixture
def outlook(tmp_path):
    """Of six stages like two that are done, which took 40 s and 60 s, and one like no other."""
    store = Store(tmp_path)
    (tmp_path / "out").mkdir()
    for key, seconds in (("a", 40.0), ("b", 60.0)):
        store.finish(Done(key, key, "test", [], "out", "out", seconds, "like"))
    tasks = [task(name, "like") for name in "cdef"] + [task("g", "like", "f"), task("odd", "unlike")]
    return lambda jobs: Outlook(SimpleNamespace(tasks=tasks, configs={}), store, jobs), tasks


def test_rest_is_played_through_with_the_means_of_finished_stages(outlook):
    make, _ = outlook
    assert make(2).missing().describe() == "about 2 min 30 s on 2 jobs, and 1 stage of unknown length"  # c, e, g
    assert make(1).missing().seconds == 5 * 50.0


@pytest.mark.parametrize(
    ("waiting", "running", "seconds"),
    [
        ("", {}, 0),
        ("cd", {}, 50),
        ("c", {"d": 30.0}, 50),  # beside the 20 s that the other still takes
        ("cg", {"f": 20.0}, 80),  # which is waited for
        ("", {"c": 500.0}, 0),  # any moment now
        ("", {"odd": 3.0}, None),
    ],
)
def test_time_left_counts_what_running_stages_have_behind_them(outlook, waiting, running, seconds):
    make, tasks = outlook
    stages = {task.stage.name: task.stage for task in tasks}
    assert make(2).seconds_left([stages[name] for name in waiting], running) == seconds
