"""Runs the missing stages of a plan, each in a process of its own, several at a time."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from multiprocessing import forkserver
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import torch

from cli.loggers import wandb_mode
from comparison.planning.plan import ROOT
from comparison.planning.stages import Stage
from comparison.planning.task import Task
from comparison.running.display import Display, read_progress
from comparison.running.store import Store
from comparison.running.worker import Job, end_process, work

TICK = 1.0
"""Seconds between two looks at how far the running stages are."""

GRACE = 20.0
"""Seconds that stages get to end by themselves after Ctrl-C."""

MOST = 4
"""Stages at a time on CPUs, unless asked for more: each takes a gigabyte or two of memory."""


@dataclass(frozen=True)
class Failure:
    """A stage that failed, or was not run because of one that did.

    Attributes:
        stage: its name.
        reason: the last line of its log, the signal that ended it, or the failed stage that it lacks.
        log: where to read more; None for a stage that was not run.
    """

    stage: str
    reason: str
    log: Path | None


@dataclass(frozen=True)
class Slots:
    """How many stages run at a time, and on what.

    Attributes:
        jobs: stages at a time.
        gpus: of the machine; with several jobs, each sees one.
    """

    jobs: int
    gpus: int

    @classmethod
    def of(cls, jobs: int | None) -> Slots:
        """As asked for; None is one for each GPU, without one up to `MOST`, one for each core."""
        gpus = torch.cuda.device_count()
        return cls(jobs or gpus or min(_cores(), MOST), gpus)

    @property
    def threads(self) -> int | None:
        """Of each job; threads that contend for cores are slower than fewer of them."""
        return max(1, _cores() // self.jobs)

    def device(self, slot: int) -> str | None:
        """The only GPU that a job sees, as CUDA_VISIBLE_DEVICES names it; None where it sees all, or there is none."""
        if not self.gpus or self.jobs == 1:
            return None
        given = os.environ.get("CUDA_VISIBLE_DEVICES")
        visible = given.split(",") if given else [str(gpu) for gpu in range(self.gpus)]
        return visible[slot % self.gpus].strip()


@dataclass
class _Running:
    process: ForkServerProcess
    slot: int
    start: float = field(default_factory=time.perf_counter)


class Runner:
    """Runs tasks in order of dependency.

    A failed stage stops those that need it, and no others. Workers are forked from a process that has imported
    everything, so that a stage starts at once and its peak memory is its own.

    Args:
        tasks: in order of dependency, those that are done among them.
        store: where finished stages are recorded.
        wandb: see `Job`.
        slots: stages at a time.

    Attributes:
        failures: by name, in the order in which they happened.
    """

    def __init__(self, tasks: list[Task], store: Store, wandb: Mapping[str, str], slots: Slots) -> None:
        self._tasks = {task.stage.name: task for task in tasks}
        self._store = store
        self._wandb = wandb
        self._slots = slots
        self._free = list(range(slots.jobs))
        self._running: dict[str, _Running] = {}
        self._outputs = {name: done.output for name, task in self._tasks.items() if (done := store.done(task.key))}
        self._waiting = [name for name in self._tasks if name not in self._outputs]
        self.failures: dict[str, Failure] = {}

    @property
    def waiting(self) -> list[Stage]:
        """Stages that are still to start."""
        return [self._tasks[name].stage for name in self._waiting]

    @property
    def running(self) -> dict[str, float]:
        """Seconds that the running stages have taken so far, by name."""
        now = time.perf_counter()
        return {name: now - running.start for name, running in self._running.items()}

    def run(self, display: Display) -> None:
        """Until nothing is left that can be run.

        Raises:
            KeyboardInterrupt: on Ctrl-C, once the running stages have ended.
        """
        context = multiprocessing.get_context("forkserver")
        if self._waiting:
            _start_server(_preloaded(self._wandb["wandb"]))
        display.skipped(len(self._outputs))
        try:
            while self._waiting or self._running:
                self._start(context.Process, display)
                wait([running.process.sentinel for running in self._running.values()], TICK)
                self._look(display)
        finally:
            self._stop()

    def _start(self, process: Callable[..., ForkServerProcess], display: Display) -> None:
        """Fills the free slots, and drops what can no longer be run."""
        for name in list(self._waiting):
            needs = self._tasks[name].stage.needs
            if lacking := next((need for need in needs if need in self.failures), None):
                self._waiting.remove(name)
                cause = self.failures[lacking]
                reason = f"not run: {lacking} failed" if cause.log else cause.reason
                self.failures[name] = Failure(name, reason, None)
                display.skipped(1)
            elif self._free and self._outputs.keys() >= set(needs):
                self._waiting.remove(name)
                slot = self._free.pop(0)
                self._running[name] = _Running(process(target=work, args=(self._job(name, slot),)), slot)
                self._running[name].process.start()
                task = self._tasks[name]
                display.begin(name, resumed=self._store.checkpoint(task.stage, task.key) is not None)

    def _job(self, name: str, slot: int) -> Job:
        task = self._tasks[name]
        outputs = {need: str(self._store.root / self._outputs[need]) for need in task.stage.needs}
        return replace(
            Job.of(task, outputs, self._store.root, self._wandb),
            environment=dict(os.environ),
            threads=self._slots.threads,
            device=self._slots.device(slot),
        )

    def _look(self, display: Display) -> None:
        """Takes note of what has ended, and of how far the others are."""
        for name, running in list(self._running.items()):
            if running.process.exitcode is not None:
                self._end(name, display)
            elif progress := self._progress(self._tasks[name]):
                display.progress(name, *progress)

    def _progress(self, task: Task) -> tuple[int, int] | None:
        attempts = self._store.attempts(task.stage, task.key)
        return read_progress(attempts[-1], task.updates) if attempts else None

    def _end(self, name: str, display: Display) -> None:
        running = self._running.pop(name)
        self._free.append(running.slot)
        done = self._store.done(self._tasks[name].key)
        if done is not None:
            self._outputs[name] = done.output
            display.end(name, time.perf_counter() - running.start)
            return
        log = self._store.log(name)
        reason = _reason(running.process.exitcode or 0, log)
        self.failures[name] = Failure(name, reason, log)
        display.failed(name, log, reason)

    def _stop(self) -> None:
        """Waits for stages that Ctrl-C has reached too, then ends them."""
        deadline = time.monotonic() + GRACE
        for running in self._running.values():
            running.process.join(max(0.0, deadline - time.monotonic()))
            if running.process.pid is not None and running.process.is_alive():
                end_process(running.process.pid)


def _preloaded(wandb: str) -> list[str]:
    """Modules that every stage would import; those of W&B, with pandas, would count as time of distillation."""
    used = wandb_mode(wandb) != "disabled"
    return ["comparison.running.worker", *(["wandb.apis.public", "pandas"] if used else [])]


def _start_server(modules: list[str]) -> None:
    """Starts the process that workers are forked from, in the environment of this one."""
    before = os.environ.get("PYTHONPATH")
    forkserver.set_forkserver_preload(modules)
    # Before Python 3.12.4, it does not look where this process has found its modules, but in the working folder.
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *([before] if before else [])])
    try:
        forkserver.ensure_running()
    finally:
        os.environ.pop("PYTHONPATH")
        if before is not None:
            os.environ["PYTHONPATH"] = before


def _reason(status: int, log: Path) -> str:
    """Why a stage failed; one that was killed had no time to say so."""
    if status < 0:
        hint = ", perhaps for lack of memory" if -status == signal.SIGKILL else ""
        return f"ended by {signal.Signals(-status).name}{hint}"
    return _last_line(log) or f"ended with status {status}"


def _last_line(log: Path) -> str:
    """What a failed stage said last; empty when it said nothing."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
