"""The SLURM script: read, checked by bash, and run against an sbatch that records what it is asked for and does it."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from comparison.planning.stages import Stage
from comparison.running import slurm
from comparison.running.slurm import waves, write_script

SBATCH = """
import json, os, pathlib, shutil, subprocess, sys

here = pathlib.Path(__file__).parent
if (here / "refuse").exists():
    sys.exit("sbatch: error: invalid partition specified")
jobs = here / "jobs.jsonl"
number = 100 + (len(jobs.read_text().splitlines()) if jobs.exists() else 0)
first = next(i for i, word in enumerate(sys.argv[1:], start=1) if not word.startswith("-"))
options = dict(word[2:].split("=", 1) for word in sys.argv[1:first] if "=" in word)
with jobs.open("a") as file:
    file.write(json.dumps({"job": number, "options": options, "script": sys.argv[first:]}) + "\\n")
spooled = here / f"spool-{number}"  # SLURM runs a copy, kept elsewhere
shutil.copy(sys.argv[first], spooled)
indices = options.get("array", "").partition("%")[0]
low, _, high = indices.partition("-")
for index in range(int(low), int(high) + 1) if indices else [None]:
    task = {} if index is None else {"SLURM_ARRAY_TASK_ID": str(index)}
    command = ["bash", spooled, *sys.argv[first + 1 :]]
    subprocess.run(command, env={**os.environ, **task}, cwd=options["chdir"], check=False, stdout=subprocess.DEVNULL)
print(f"{number};cluster")
"""

PROGRAM = """
import json, os, pathlib, sys

with (pathlib.Path(__file__).parent / "calls.jsonl").open("a") as file:
    file.write(json.dumps([os.getcwd(), *sys.argv[1:]]) + "\\n")
sys.exit("left" in sys.argv)
"""


def make_program(path: Path, source: str) -> Path:
    path.write_text(f"#!{sys.executable}\n{source}")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def stage(name: str, *needs: str, words: tuple[str, ...] = ()) -> Stage:
    return Stage(name, "fit", "train", words, needs, {})


DIAMOND = [
    stage("top"),
    stage("alone"),
    stage("left", "top"),
    stage("right", "top", "done before"),
    stage("bottom", "left", "right"),
]


class Cluster:
    """A folder with a working folder, the script's folder, and an sbatch; all with names that shells trip over."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root / 'it\'s 100% "of" $HOME'
        self.work = self.root / "work here"
        self.work.mkdir(parents=True)
        monkeypatch.chdir(self.work)
        self.script = self.root / "plan's folder" / "slurm.sh"
        make_program(self.root / "sbatch", SBATCH)
        program = make_program(self.root / "my python", PROGRAM)
        self.command = [str(program), "main.py", "compare", "--config", "it's a $PLAN.yaml"]

    def submit(self, *options: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PATH": f"{self.root}:{os.environ['PATH']}"}
        command = ["bash", self.script.name, *options]
        return subprocess.run(
            command, cwd=self.script.parent, env=environment, capture_output=True, text=True, check=False
        )

    def read(self, name: str) -> list:
        path = self.root / name
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def stages(self) -> list[str | None]:
        """What was run, in order; None is the whole comparison."""
        calls = self.read("calls.jsonl")
        known = len(self.command)
        assert all(call[:known] == [str(self.work), *self.command[1:]] for call in calls)
        assert all(call[known:] in ([], ["--only", call[-1]]) for call in calls)
        return [call[-1] if call[known:] else None for call in calls]


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    return Cluster(tmp_path, monkeypatch)


def test_waves_of_a_diamond():
    named = [[stage.name for stage in wave] for wave in waves(DIAMOND)]
    assert named == [["top", "alone"], ["left", "right"], ["bottom"]]


def test_a_stage_follows_its_deepest_need():
    chain = [stage("a"), stage("b", "a"), stage("c", "b"), stage("d", "a", "c")]
    assert [[stage.name for stage in wave] for wave in waves(chain)] == [["a"], ["b"], ["c"], ["d"]]


def test_every_stage_runs_once_and_then_the_comparison(cluster: Cluster):
    write_script(cluster.script, DIAMOND, cluster.command, jobs=4)
    assert cluster.submit().returncode == 0
    # `left` fails (see PROGRAM), and what comes after it is run all the same
    assert cluster.stages() == ["top", "alone", "left", "right", "bottom", None]


def test_jobs_depend_on_the_wave_before_and_the_report_on_all(cluster: Cluster):
    write_script(cluster.script, DIAMOND, cluster.command, jobs=4)
    told = cluster.submit("--partition=gpu", "--comment=two words").stdout
    jobs = cluster.read("jobs.jsonl")
    options = [job["options"] for job in jobs]
    assert [job["job"] for job in jobs] == [100, 101, 102, 103]
    assert [option.get("dependency") for option in options] == [
        None, "afterany:100", "afterany:101", "afterany:100:101:102",
    ]  # fmt: skip
    assert [option.get("array") for option in options] == ["0-1%4", "0-1%4", "0-0%4", None]
    assert all((option["partition"], option["comment"]) == ("gpu", "two words") for option in options)
    assert "job 101, 2 stages" in told
    assert "report: job 103" in told


def test_logs_lie_beside_the_script(cluster: Cluster):
    write_script(cluster.script, DIAMOND, cluster.command)
    cluster.submit()
    logs = cluster.script.parent / "logs"
    assert logs.is_dir()
    written = [job["options"]["output"] for job in cluster.read("jobs.jsonl")]
    # sbatch takes %% for a percent sign in file names
    plain = str(logs).replace("%", "%%")
    assert written == [*[f"{plain}/slurm-%A_%a.out"] * 3, f"{plain}/slurm-%j.out"]


def test_a_dependency_of_the_user_holds_for_the_first_wave_alone(cluster: Cluster):
    write_script(cluster.script, DIAMOND, cluster.command)
    cluster.submit("--dependency=afterok:7", "--chdir=/")
    options = [job["options"] for job in cluster.read("jobs.jsonl")]
    assert [option["dependency"] for option in options] == [
        "afterok:7", "afterany:100", "afterany:101", "afterany:100:101:102",
    ]  # fmt: skip
    assert {option["chdir"] for option in options} == {str(cluster.work)}


def test_waves_larger_than_an_array(cluster: Cluster, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(slurm, "LARGEST_ARRAY", 2)
    many = [stage(f"s{number}") for number in range(5)]
    write_script(cluster.script, [*many, stage("last", "s4")], cluster.command)
    cluster.submit()
    options = [job["options"] for job in cluster.read("jobs.jsonl")]
    assert [option.get("array") for option in options] == ["0-1", "0-1", "0-0", "0-0", None]
    assert [option.get("dependency") for option in options] == [
        None, None, None, "afterany:100:101:102", "afterany:100:101:102:103",
    ]  # fmt: skip
    assert cluster.stages() == [*(f"s{number}" for number in range(5)), "last", None]


def test_with_nothing_missing_only_the_comparison_runs(cluster: Cluster):
    write_script(cluster.script, [], cluster.command)
    assert cluster.submit("--time=1").returncode == 0
    assert cluster.stages() == [None]
    assert "dependency" not in cluster.read("jobs.jsonl")[0]["options"]


def test_nothing_follows_a_refused_job(cluster: Cluster):
    write_script(cluster.script, DIAMOND, cluster.command)
    (cluster.root / "refuse").touch()
    result = cluster.submit("--partition=unknown")
    assert result.returncode != 0
    assert "invalid partition" in result.stderr
    assert "report" not in result.stdout
    assert cluster.stages() == []


def test_every_stage_is_listed_with_its_needs_and_command(cluster: Cluster):
    words = ("--config", "a b.yaml", "--model.x", "first line\nrm -rf $HOME\n'quoted'")
    write_script(cluster.script, [*DIAMOND, stage("odd", "right", words=words)], cluster.command)
    text = cluster.script.read_text()
    assert subprocess.run(["bash", "-n", cluster.script], check=False).returncode == 0
    comments = [line for line in text.splitlines() if line.startswith("#")]
    assert "#   bottom, needs left, right" in comments
    assert "#   right, needs top, done before" in comments
    assert "#     python main.py fit --config 'a b.yaml' --model.x 'first line" in comments
    assert not any(line.startswith("rm") for line in text.splitlines())
    assert cluster.submit().returncode == 0
    assert set(cluster.stages()) == {*(stage.name for stage in DIAMOND), "odd", None}
