"""The runner with real processes, which do at once what their command line says: order, failures, slots, Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest
import torch

from comparison.planning.stages import Stage
from comparison.planning.task import Task
from comparison.running import runner as module
from comparison.running.runner import Runner, Slots
from comparison.running.store import Done, Store

QUICK = {"group": "g", "wandb": "disabled", "project": "p"}


def act(job):
    """What a worker process does here: notes when and with what it ran, and ends as its first word says."""
    begin = time.monotonic()
    store = Store(job.root)
    do, *words = job.words
    log = store.log(job.stage.name)
    log.parent.mkdir(exist_ok=True)
    log.write_text("Epoch 3\nerror: too few patches\n\n" if do == "fail" else "Epoch 3\n")
    if do == "fail":
        raise SystemExit(1)
    if do == "silent":
        log.write_text("")
        raise SystemExit(3)
    if do == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    end = begin + 60
    while do == "meet" and len(list(log.parent.iterdir())) < 2 and time.monotonic() < end:
        time.sleep(0.01)
    time.sleep(60 if do == "hang" else 0.4)
    output = job.root / "out" / job.stage.name
    output.mkdir(parents=True)
    note = {"times": [begin, time.monotonic()], "words": words, "threads": job.threads, "pid": os.getpid()}
    (output / "note.json").write_text(json.dumps({**note, "variable": job.environment["FOR_STAGES"]}))
    name = store.relative(output)
    store.finish(Done(job.stage.name, job.key, job.stage.kind, [], name, name, 0.4, "s"))


class Recorder:
    """A display that takes notes."""

    def __init__(self):
        self.events = []
        self.reasons = {}

    def begin(self, stage_name, resumed):
        self.events.append((stage_name, "resumed" if resumed else "begin"))

    def progress(self, stage_name, done, total):
        self.events.append((stage_name, done, total))

    def end(self, stage_name, seconds):
        assert 0 < seconds < 60
        self.events.append((stage_name, "end"))

    def failed(self, stage_name, log, reason):
        self.events.append((stage_name, "failed"))
        self.reasons[stage_name] = reason

    def skipped(self, count):
        self.events.append(("skipped", count))


def task(name, *needs, do="succeed", updates=None):
    words = (do, *(f"{{output:{need}}}" for need in needs))
    return Task(Stage(name, "fit", "train", words, needs, {}), f"{name}-key", "s", updates)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


@pytest.fixture
def make(store, monkeypatch):
    """A runner of tasks."""
    monkeypatch.setattr(module, "work", act)
    monkeypatch.setattr(module, "TICK", 0.1)
    monkeypatch.setenv("FOR_STAGES", "as it was set")
    return lambda *tasks, jobs=2: Runner(list(tasks), store, QUICK, Slots(jobs, 0))


def notes(store):
    return {path.parent.name: json.loads(path.read_text()) for path in (store.root / "out").glob("*/note.json")}


def test_stages_run_when_what_they_need_is_done(make, store):
    tasks = [task("a", do="meet"), task("b", do="meet"), task("c"), task("ab", "a", "b"), task("abc", "ab", "c")]
    runner, display = make(*tasks), Recorder()
    runner.run(display)
    assert runner.failures == {}
    written = notes(store)
    times = {name: note["times"] for name, note in written.items()}
    for one in tasks:
        for need in one.stage.needs:
            assert times[need][1] < times[one.stage.name][0]
        assert written[one.stage.name]["words"] == [str(store.root / "out" / need) for need in one.stage.needs]
    at_once = [sum(begin <= other <= end for begin, end in times.values()) for other, _ in times.values()]
    assert max(at_once) == 2
    assert {note["variable"] for note in written.values()} == {"as it was set"}
    assert len({note["pid"] for note in written.values()}) == 5
    assert display.events[0] == ("skipped", 0)
    assert [name for name, what in display.events[1:] if what == "begin"] == ["a", "b", "c", "ab", "abc"]


def test_what_is_done_is_not_run_again(make, store):
    make(task("a"), task("b", "a")).run(Recorder())
    before = notes(store)
    runner, display = make(task("a"), task("b", "a"), task("c", "b")), Recorder()
    assert [stage.name for stage in runner.waiting] == ["c"]
    runner.run(display)
    assert display.events == [("skipped", 2), ("c", "begin"), ("c", "end")]
    after = notes(store)
    assert {name: after[name] for name in before} == before
    assert after["c"]["words"] == [str(store.root / "out" / "b")]


def test_no_process_is_started_where_all_is_done(make, monkeypatch):
    make(task("a")).run(Recorder())
    monkeypatch.setattr(module, "_start_server", lambda modules: pytest.fail("it would import everything"))
    display = Recorder()
    make(task("a")).run(display)
    assert display.events == [("skipped", 1)]


def test_failure_stops_what_needs_it_and_no_others(make, store):
    runner = make(task("bad", do="fail"), task("good"), task("after", "bad"), task("last", "after"), task("more"))
    display = Recorder()
    runner.run(display)
    assert notes(store).keys() == {"good", "more"}
    reasons = {name: (failure.reason, failure.log) for name, failure in runner.failures.items()}
    assert reasons == {
        "bad": ("error: too few patches", store.log("bad")),
        "after": ("not run: bad failed", None),
        "last": ("not run: bad failed", None),
    }
    assert display.reasons == {"bad": "error: too few patches"}
    assert display.events.count(("skipped", 1)) == 2


def test_killed_and_silent_stages_say_how_they_ended(make):
    runner = make(task("killed", do="kill"), task("silent", do="silent"))
    runner.run(Recorder())
    assert runner.failures["killed"].reason == "ended by SIGKILL, perhaps for lack of memory"
    assert runner.failures["silent"].reason == "ended with status 3"


def test_progress_and_resume_are_shown(make, store):
    attempts = store.runs / "a" / "fit"
    (attempts / "a-key" / "checkpoints").mkdir(parents=True)
    (attempts / "a-key" / "checkpoints" / "last.ckpt").touch()
    (attempts / "a-key" / "metrics.csv").write_text("step,loss\n49,0.1\n")
    display = Recorder()
    make(task("a", updates=200)).run(display)
    assert display.events[1] == ("a", "resumed")
    assert ("a", 50, 200) in display.events
    assert display.events[-1] == ("a", "end")


def test_ctrl_c_ends_stages_that_do_not_end_by_themselves(make, store, monkeypatch):
    monkeypatch.setattr(module, "GRACE", 0.5)
    runner, started = make(task("a", do="hang"), task("b")), []

    class Interrupted(Recorder):
        def end(self, stage_name, seconds):
            started.extend(running.process for running in runner._running.values())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runner.run(Interrupted())
    (process,) = started
    process.join(10)
    assert process.exitcode == -signal.SIGKILL
    assert notes(store).keys() == {"b"}
    assert store.done("a-key") is None


def test_slots_follow_the_machine(monkeypatch):
    monkeypatch.setattr(module, "_cores", lambda: 8)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert [Slots.of(jobs).jobs for jobs in (None, 1, 3, 16)] == [4, 1, 3, 16]
    assert [Slots.of(jobs).threads for jobs in (None, 1, 3, 16)] == [2, 8, 2, 1]
    assert Slots.of(None).device(0) is None
    monkeypatch.setattr(module, "_cores", lambda: 2)
    assert Slots.of(None) == Slots(2, 0)


def test_each_of_several_jobs_sees_one_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    slots = Slots.of(None)
    assert slots.jobs == 2
    assert [slots.device(slot) for slot in range(3)] == ["0", "1", "0"]
    assert Slots.of(1).device(0) is None  # all of them
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-5ab")  # those that a scheduler gave us
    assert [slots.device(slot) for slot in range(3)] == ["3", "GPU-5ab", "3"]


def test_server_finds_our_modules_from_any_folder(monkeypatch):
    """The forked process looks for them in PYTHONPATH; stages get the variables as they were."""
    seen = []
    monkeypatch.setattr(module.forkserver, "ensure_running", lambda: seen.append(os.environ["PYTHONPATH"]))
    root = str(Path(module.__file__).parents[2])
    monkeypatch.delenv("PYTHONPATH", raising=False)
    module._start_server(["comparison.running.worker"])
    assert "PYTHONPATH" not in os.environ
    monkeypatch.setenv("PYTHONPATH", "/mine")
    module._start_server(["comparison.running.worker"])
    assert os.environ["PYTHONPATH"] == "/mine"
    assert seen == [root, f"{root}{os.pathsep}/mine"]
