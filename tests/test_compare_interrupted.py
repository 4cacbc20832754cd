"""A comparison that is killed or stopped goes on where it was, and ends with the same bits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import torch
from filelock import FileLock

from comparison import outputs
from tests.compare_runs import assert_same_weights, compare, read_csv, still_running, write_plan

ROOT = Path(__file__).parent.parent
STEPS = 400  # so many that a busy machine has time to interrupt
LONG = {"trainer.max_steps": STEPS, "trainer.val_check_interval": STEPS // 4, "checkpoint.every_n_steps": 20}
FIT = "full-train-net-plain-s0"


@pytest.fixture
def start(tmp_path):
    """Starts the command from a folder that is not ours, as the leader of a group of processes."""
    started = []

    def run(plan, root):
        command = [sys.executable, str(ROOT / "main.py"), "compare", "--config", str(plan), "--root", str(root)]
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        streams |= {
            "preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
        }  # shells ignore it in background
        started.append(
            subprocess.Popen([*command, "--jobs", "2"], cwd=tmp_path, start_new_session=True, env=os.environ, **streams)
        )
        return started[-1]

    yield run
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def wait_for_checkpoint(root, attempt, process, seconds=300):
    """Until the attempt of the fit has written one; returns its folder."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        for path in (root / "stages" / FIT / "fit").glob("*/checkpoints/last.ckpt"):
            if int(path.parts[-3].partition("-")[2] or 0) == attempt:
                return path.parents[1]
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    pytest.fail(f"attempt {attempt} has written no checkpoint: {process.communicate()[0]}")


def steps_of(run):
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]


def test_interrupted_fit_goes_on_where_it_was(tmp_path, tiny_photographs, start, monkeypatch):
    """After kill -9 of the main process, then after Ctrl-C."""
    monkeypatch.setattr(outputs, "draw_all", lambda *arguments: {})  # takes most of the time of a report
    only = {"regimes": {"full": {}}, "baseline": "", "relabelling": [False]}
    plan, root = write_plan(tmp_path, tiny_photographs, **only, **LONG), tmp_path / "root"

    process = start(plan, root)
    first = wait_for_checkpoint(root, 0, process)
    tree = psutil.Process(process.pid).children(recursive=True)
    (server,) = (one for one in tree if one.ppid() == process.pid and one.children())
    assert server.memory_info().rss > 200 << 20  # has imported what stages need, wherever the command was started
    process.kill()
    assert still_running(tree, 10) == []
    assert 0 < steps_of(first) < STEPS

    process = start(plan, root)
    second = wait_for_checkpoint(root, 1, process)
    tree = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGINT)
    told = process.communicate(timeout=60)[0]
    assert process.returncode == 130
    assert f"{FIT}: resumed" in told
    assert told.splitlines()[-1] == "stopped; the same command goes on from here"
    assert still_running(tree, 10) == []
    assert steps_of(first) < steps_of(second) < STEPS
    assert not (root / "done").exists()
    assert [path.name for path in (root / "study").iterdir()] == [".lock"]

    compare(plan, root)
    records = {json.loads(path.read_text())["stage"]: json.loads(path.read_text()) for path in root.glob("done/*")}
    words = records[FIT]["command"]
    assert words[words.index("--ckpt_path") + 1] == str(second / "checkpoints" / "last.ckpt")

    compare(plan, tmp_path / "uninterrupted")
    (whole,) = (tmp_path / "uninterrupted" / "stages" / FIT / "fit").iterdir()
    resumed = root / records[FIT]["run"]
    assert_same_weights(resumed, whole)
    curves = [
        [(line["step"], line["val/psnr_y"]) for line in read_csv(run / "metrics.csv") if line["val/psnr_y"]]
        for run in (resumed, whole)
    ]
    assert len(curves[0]) == 4
    assert curves[0] == curves[1]
    results = [read_csv(folder / "study" / "per_image.csv") for folder in (root, tmp_path / "uninterrupted")]
    assert results[0] == results[1]


def test_the_folder_of_a_running_comparison_is_locked(tmp_path, tiny_photographs):
    plan, root = write_plan(tmp_path, tiny_photographs), tmp_path / "root"
    (root / "study").mkdir(parents=True)
    refused = f"^another compare is running in {root / 'study'}; wait for it, or give"
    with FileLock(root / "study" / ".lock"), pytest.raises(BlockingIOError, match=refused):
        compare(plan, root)
