"""Runs one stage in a process of its own."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from io import TextIOWrapper
from pathlib import Path

import psutil
import torch
from filelock import FileLock

from cli.app import run
from cli.errors import exit_with_message
from comparison.planning.plan import ROOT
from comparison.planning.stages import Stage
from comparison.planning.task import Task
from comparison.running.resume import complete
from comparison.running.store import Done, Store, read_json


@dataclass(frozen=True)
class Job:
    """What a worker process needs to know.

    Attributes:
        stage: to run.
        key: of it.
        words: of its command line, with paths of what it reads.
        signature: see `Done`.
        root: of the store.
        wandb: `group`, `wandb` and `project` of the run, see `RunSettings`.
        environment: variables; empty leaves those of the process.
        threads: of torch; None leaves torch's default.
        device: the only GPU to use, as CUDA_VISIBLE_DEVICES names it; None leaves all.
    """

    stage: Stage
    key: str
    words: tuple[str, ...]
    signature: str
    root: Path
    wandb: Mapping[str, str]
    environment: Mapping[str, str] = field(default_factory=dict)
    threads: int | None = None
    device: str | None = None

    @classmethod
    def of(cls, task: Task, outputs: Mapping[str, str], root: Path, wandb: Mapping[str, str]) -> Job:
        """A job for this process.

        Args:
            task: to run.
            outputs: what the stages that it needs have written, by name.
            root: see the class.
            wandb: see the class.
        """
        return cls(task.stage, task.key, tuple(task.stage.with_outputs(outputs)), task.signature, root, wandb)


def work(job: Job) -> None:
    """The whole life of a worker process: what the stage prints goes to its log."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _redirect(Store(job.root).log(job.stage.name))
    os.environ.clear()  # of the server process, which may have started under other ones
    os.environ.update(job.environment)
    if job.device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = job.device
    if job.threads is not None:
        torch.set_num_threads(job.threads)
    with exit_with_message():
        run_stage(job)


def run_stage(job: Job) -> None:
    """Runs a stage unless it is done, going on from the last checkpoint of an earlier attempt; records that it is done.

    Another process that runs the same stage is waited for.
    """
    store = Store(job.root)
    store.lock(job.key).parent.mkdir(parents=True, exist_ok=True)
    with FileLock(store.lock(job.key)):
        if store.done(job.key) is None:
            _run(job, store)


def arguments(job: Job, store: Store) -> tuple[list[str], Path]:
    """The command line of the next attempt, and its run folder."""
    stage, folder = job.stage, store.next_attempt(job.stage, job.key)
    where = ["--run.root", str(store.runs), "--run.experiment", stage.name, "--run.name", folder.name]
    about = {**job.wandb, "job_type": stage.kind, "labels": json.dumps(dict(stage.labels))}
    labels = [word for key, value in about.items() for word in (f"--run.{key}", value)]
    words = [stage.command, *job.words, *where, *labels, "--trainer.enable_progress_bar", "false"]
    if stage.command == "predict":
        words += ["--distilled.folder", str(store.set_folder(stage, job.key)), "--distilled.overwrite", "true"]
    elif stage.command == "fit" and (checkpoint := store.checkpoint(stage, job.key)):
        words += ["--ckpt_path", str(checkpoint)]
    return words, folder


def _run(job: Job, store: Store) -> None:
    earlier = store.attempts(job.stage, job.key)
    words, folder = arguments(job, store)
    sys.argv = [str(ROOT / "main.py"), *words]  # that Lightning starts further processes of several devices with
    start = time.perf_counter()
    run(words)
    if "--ckpt_path" in words and job.stage.command == "fit":
        complete(folder, earlier)
    spent = read_json(folder / "cost.json").get("seconds", 0.0)  # of a fit, in earlier attempts too
    output = store.set_folder(job.stage, job.key) if job.stage.command == "predict" else folder
    record = Done(
        job.stage.name,
        job.key,
        job.stage.kind,
        words,
        store.relative(folder),
        store.relative(output),
        max(time.perf_counter() - start, spent),
        job.signature,
    )
    store.finish(record)


def _redirect(log: Path) -> None:
    """Also what libraries print without Python."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # else what is printed comes after the error that follows it


def _end_with_parent() -> None:
    """Ends this process when the one that runs the comparison has gone, so that no stage goes on unseen after kill -9.

    That is not the process it was forked from: the fork server lives as long as any of its children.
    """
    runner = multiprocessing.parent_process()
    if runner is not None:
        runner.join()
        end_process(os.getpid())


def end_process(pid: int) -> None:
    """Kills a process, and before it those that it has started, such as Lightning's for several devices."""
    with suppress(psutil.NoSuchProcess):
        for child in psutil.Process(pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                child.kill()
        psutil.Process(pid).kill()
