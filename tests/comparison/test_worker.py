"""One stage in a process of its own, with a stand-in for the command that it runs; and what a resume takes over."""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from filelock import FileLock

from callbacks.cost import peak_rss_mib
from comparison.planning.stages import Stage
from comparison.planning.task import Task
from comparison.running import worker
from comparison.running.resume import complete
from comparison.running.store import Store
from comparison.running.worker import Job, arguments, end_process, run_stage, work

KEY = "0123456789abcdef" * 4
WANDB = {"group": "plan", "wandb": "disabled", "project": "p"}
LABELS = {"regime": "random", "teacher": False, "budget": 2.0}


def job_of(root, command="fit", words=("--x", "{output:before}"), **changed):
    kind = {"fit": "train", "predict": "distill", "test": "test"}[command]
    stage = Stage("random-stage", command, kind, words, ("before",), LABELS)
    job = Job.of(Task(stage, KEY, "like this"), {"before": "sets/of/before"}, root, WANDB)
    return Job(**{**vars(job), **changed})


def option(words, name):
    return words[words.index(name) + 1]


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


def test_command_line_names_folder_group_and_labels(store):
    words, folder = arguments(job_of(store.root), store)
    assert words[:3] == ["fit", "--x", "sets/of/before"]
    assert folder == store.root / "stages" / "random-stage" / "fit" / KEY[:12]
    where = [option(words, f"--run.{key}") for key in ("root", "experiment", "name")]
    assert Path(where[0], where[1], "fit", where[2]) == folder
    assert [option(words, f"--run.{key}") for key in WANDB] == list(WANDB.values())
    assert option(words, "--run.job_type") == "train"
    assert json.loads(option(words, "--run.labels")) == LABELS
    assert "--ckpt_path" not in words
    assert not folder.exists()


def test_prediction_writes_the_set_that_its_key_names(store):
    words, _ = arguments(job_of(store.root, "predict"), store)
    assert option(words, "--distilled.folder") == str(store.root / "sets" / f"random-stage-{KEY[:12]}")
    assert option(words, "--distilled.overwrite") == "true"


@pytest.mark.parametrize("command", ["fit", "test"])
def test_second_attempt_of_a_fit_goes_on(store, command):
    _, first = arguments(job_of(store.root, command), store)
    (first / "checkpoints").mkdir(parents=True)
    (first / "checkpoints" / "last.ckpt").touch()
    words, second = arguments(job_of(store.root, command), store)
    assert second.name == f"{KEY[:12]}-1"
    assert ("--ckpt_path" in words) == (command == "fit")
    if command == "fit":
        assert option(words, "--ckpt_path") == str(first / "checkpoints" / "last.ckpt")


@pytest.fixture
def calls(monkeypatch, store):
    """Command lines that were run; each leaves what the real one would."""
    lines = []

    def run(words):
        lines.append(words)
        where = [option(words, f"--run.{key}") for key in ("root", "experiment", "name")]
        folder = Path(where[0], where[1], words[0], where[2])
        (folder / "checkpoints").mkdir(parents=True)
        (folder / "cost.json").write_text('{"seconds": 1000.0}')

    monkeypatch.setattr(worker, "run", run)
    return lines


def test_finished_stage_is_recorded_and_not_run_again(store, calls):
    run_stage(job_of(store.root))
    (words,) = calls
    done = store.done(KEY)
    assert (done.stage, done.key, done.kind, done.signature) == ("random-stage", KEY, "train", "like this")
    assert done.command == words
    assert done.run == done.output == f"stages/random-stage/fit/{KEY[:12]}"
    assert done.seconds == 1000  # of all attempts, by the record of costs
    run_stage(job_of(store.root))
    assert len(calls) == 1


def test_output_of_a_prediction_is_its_set(store, calls):
    store.set_folder(job_of(store.root, "predict").stage, KEY).mkdir(parents=True)
    run_stage(job_of(store.root, "predict"))
    done = store.done(KEY)
    assert done.output == f"sets/random-stage-{KEY[:12]}"
    assert done.run == f"stages/random-stage/predict/{KEY[:12]}"


def test_failed_stage_is_not_recorded(store, calls, monkeypatch):
    def fail(words):
        raise ValueError("no")

    monkeypatch.setattr(worker, "run", fail)
    with pytest.raises(ValueError, match="no"):
        run_stage(job_of(store.root))
    assert store.done(KEY) is None


def test_stage_that_another_process_runs_is_waited_for(store, calls):
    store.lock(KEY).parent.mkdir(parents=True)
    waiting = threading.Thread(target=run_stage, args=(job_of(store.root),))
    with FileLock(store.lock(KEY)):
        waiting.start()
        waiting.join(0.3)
        assert waiting.is_alive()
        assert calls == []
        (store.root / "out").mkdir()
        record = {"stage": "random-stage", "key": KEY, "kind": "train", "command": [], "run": "out", "output": "out"}
        (store.root / "done").mkdir()
        (store.root / "done" / f"{KEY}.json").write_text(json.dumps({**record, "seconds": 1, "signature": "s"}))
    waiting.join(10)
    assert not waiting.is_alive()
    assert calls == []


def tell(words):
    """A stage that says what it finds, without flushing, and then fails."""
    print("printed")
    os.write(2, b"by the system\n")
    print(json.dumps({"variables": dict(os.environ), "threads": torch.get_num_threads(), "peak": peak_rss_mib()}))
    raise ValueError("the stage is wrong")


def work_and_tell(job):
    worker.run = tell
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115  # in blocks, also under PYTHONUNBUFFERED
    work(job)


@pytest.fixture
def start():
    """Runs a job as the runner does, and returns the process when it has ended."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["comparison.running.worker"])

    def run(job):
        process = context.Process(target=work_and_tell, args=(job,))
        process.start()
        process.join(120)
        return process

    return run


def test_worker_has_its_environment_and_its_memory_and_writes_a_log(store, start):
    environment = {"GREETING": "good morning", "PATH": os.environ["PATH"]}
    ballast = np.ones(400 << 17)  # 400 MiB
    ours = psutil.Process().memory_info().rss / 2**20
    process = start(job_of(store.root, environment=environment, threads=3, device="7"))
    assert ballast[-1] == 1
    assert process.exitcode == 1

    first, second, told, last = store.log("random-stage").read_text().splitlines()
    assert (first, second) == ("printed", "by the system")
    assert last == "error: the stage is wrong"
    told = json.loads(told)
    assert told["variables"] == {**environment, "CUDA_VISIBLE_DEVICES": "7"}
    assert told["threads"] == 3
    assert told["peak"] < ours - 300  # a fork of this process would begin with all that it has

    start(job_of(store.root))
    assert len(store.log("random-stage").read_text().splitlines()) == 8  # the first attempt's are still there


def test_process_ends_with_all_that_it_has_started():
    sleep = f"import subprocess; subprocess.run(['{sys.executable}', '-c', 'import time; time.sleep(60)'])"
    with subprocess.Popen([sys.executable, "-c", sleep]) as process:
        tree = [psutil.Process(process.pid)]
        while len(tree) < 2:
            tree = [tree[0], *tree[0].children(recursive=True)]
        end_process(process.pid)
        process.wait(10)
    assert psutil.wait_procs(tree[1:], 5)[1] == []
    end_process(process.pid)  # gone: nothing to do


def write_metrics(folder, lines):
    folder.mkdir(parents=True)
    with (folder / "metrics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)


def test_resumed_fit_has_the_metrics_of_the_whole_training(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    write_metrics(first, [{"step": step, "loss": f"a{step}"} for step in (1, 3, 5, 7)])  # a checkpoint at 4
    write_metrics(second, [{"loss": f"b{step}", "psnr": "20", "step": step} for step in (5, 7, 9)])
    (second / "provenance.json").write_text("second")
    (first / "provenance.json").write_text("first")
    complete(second, [first])
    with (second / "metrics.csv").open(newline="") as file:
        lines = [(line["step"], line["loss"], line["psnr"]) for line in csv.DictReader(file)]
    assert lines == [("1", "a1", ""), ("3", "a3", ""), ("5", "b5", "20"), ("7", "b7", "20"), ("9", "b9", "20")]
    assert (second / "provenance.json").read_text() == "second"
    assert not (second / "checkpoints").exists()


def test_fit_that_was_over_takes_over_what_it_did_not_write(tmp_path):
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    write_metrics(first, [{"step": 1, "loss": 0.1}])
    write_metrics(second, [{"step": 2, "loss": 0.2}])
    for folder in (first, second):
        (folder / "checkpoints").mkdir()
        (folder / "checkpoints" / "last.ckpt").write_text(folder.name)
        (folder / "provenance.json").write_text(folder.name)
    third.mkdir()
    complete(third, [first, second])
    assert (third / "checkpoints" / "last.ckpt").read_text() == "second"
    assert (third / "provenance.json").read_text() == "second"
    assert (third / "metrics.csv").read_text() == "step,loss\n1,0.1\n2,0.2\n"
