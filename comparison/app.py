"""`python main.py compare`: runs what a plan lacks, and writes its report."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout
from jsonargparse import ActionConfigFile
from rich.console import Console
from rich.text import Text

from cli.app import quieten
from cli.explain import closest
from cli.parser import FriendlyParser
from comparison.outputs import REPORT, Outputs
from comparison.planning.plan import ROOT, Plan
from comparison.planning.prepare import Prepared, prepare
from comparison.results.collect import collect
from comparison.results.headline import headline
from comparison.running.display import Display
from comparison.running.outlook import Outlook
from comparison.running.runner import Failure, Runner, Slots
from comparison.running.slurm import write_script
from comparison.running.store import Store
from comparison.running.worker import Job, run_stage

DESCRIPTION = (
    "Compares ways of making training data: runs what the plan lacks, each stage a command of its own, and writes "
    "ROOT/NAME/report.html with tables, plots and pictures. What is done is not run again; after Ctrl-C or a failure "
    "the same command goes on."
)


@dataclass
class CompareOptions:
    """How a plan is run.

    Attributes:
        root: folder of all comparisons, which share finished stages.
        jobs: stages at a time; null is one for each GPU, or up to four on the cores of a machine without one.
        only: run a single stage of the plan, in this process; what it reads must be done.
        slurm: write a script that submits the missing stages to SLURM, and run nothing.
        wandb: Weights & Biases, as for single runs: `auto` writes offline runs where wandb is installed.
        project: of W&B.
    """

    root: str = "runs/compare"
    jobs: int | None = None
    only: str | None = None
    slurm: str | None = None
    wandb: Literal["auto", "offline", "online", "disabled"] = "auto"
    project: str = "srdistill"


def run(args: Sequence[str]) -> int:
    """Runs the command.

    Args:
        args: command line after `compare`.

    Returns:
        Status for the shell: 0, or 1 where a stage failed.

    Raises:
        ValueError: when the plan or an option cannot be meant; nothing was run.
        KeyboardInterrupt: on Ctrl-C.
    """
    quieten()
    parser = _parser()
    config = parser.parse_args(list(args))
    given = parser.instantiate_classes(config)
    plan = Plan(**{option.name: given[option.name] for option in fields(Plan)})
    options = CompareOptions(**{option.name: given[option.name] for option in fields(CompareOptions)})
    comparison = Comparison(plan, options)
    if given.dry_run:
        comparison.show()
        return 0
    if options.only is not None:
        comparison.run_one(options.only)
        return 0
    if options.slurm is not None:
        comparison.write_slurm(Path(options.slurm).expanduser(), args)
        return 0
    return comparison.run()


def _parser() -> FriendlyParser:
    parser = FriendlyParser(prog="main.py compare", description=DESCRIPTION, allow_abbrev=False)
    parser.usage = "%(prog)s --config FILE [--dry_run] [--KEY VALUE ...]"
    parser.add_argument("-c", "--config", action=ActionConfigFile, help="the plan; several files compose")
    parser.add_argument(
        "--dry_run", action="store_true", help="show the stages, what is done and how long the rest may take"
    )
    parser.add_class_arguments(CompareOptions)
    parser.add_class_arguments(Plan)
    return parser


class Comparison:
    """A plan and how it is run.

    Args:
        plan: to run.
        options: how.

    Raises:
        ValueError: when the plan cannot be run, with all that is wrong in it.
    """

    def __init__(self, plan: Plan, options: CompareOptions) -> None:
        if options.jobs is not None and options.jobs < 1:
            raise ValueError(f"--jobs {options.jobs}; expected 1 stage at a time, or more")
        self.plan = plan
        self.options = options
        self.store = Store(Path(options.root).expanduser())
        self.folder = self.store.root / plan.name
        self.slots = Slots.of(options.jobs)
        self.console = Console(highlight=False, soft_wrap=True)
        self.prepared: Prepared = prepare(plan, self.store.memo)
        self.outlook = Outlook(self.prepared, self.store, self.slots.jobs)

    def show(self) -> None:
        """The stages, which of them are done, and an estimate of the time that the others take."""
        for task in self.prepared.tasks:
            done = "done" if self.store.done(task.key) else "to do"
            self.console.print(f"{done:5}  {task.stage.command:7}  {task.stage.name}")
        self.console.print(f"the rest takes {self.outlook.missing().describe()}")

    def run(self) -> int:
        """Runs what is missing, and writes the report."""
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.folder / ".lock", timeout=0):
                return self._run()
        except Timeout:
            raise BlockingIOError(
                f"another compare is running in {self.folder}; wait for it, or give the plan another --name"
            ) from None

    def run_one(self, name: str) -> None:
        """Runs a single stage in this process, for schedulers.

        Raises:
            ValueError: when there is no such stage, or one that it reads is not done.
        """
        tasks = {task.stage.name: task for task in self.prepared.tasks}
        if name not in tasks:
            raise ValueError(f"--only {name}: the plan has no such stage{closest(name, tasks)}; --dry_run lists them")
        outputs = {}
        for need in tasks[name].stage.needs:
            done = self.store.done(tasks[need].key)
            if done is None:
                raise ValueError(f"--only {name}: it reads {need}, which is not done")
            outputs[need] = str(self.store.root / done.output)
        run_stage(Job.of(tasks[name], outputs, self.store.root, self._wandb))

    def write_slurm(self, path: Path, args: Sequence[str]) -> None:
        """Writes the script that submits what is missing."""
        missing = [task.stage for task in self.prepared.tasks if self.store.done(task.key) is None]
        words = [sys.executable, str(ROOT / "main.py"), "compare", *_without(args, "--slurm")]
        write_script(path, missing, words, self.options.jobs)
        self.console.print(f"{len(missing)} stages to submit: bash {path} SBATCH_OPTIONS")

    @property
    def _wandb(self) -> dict[str, str]:
        return {"group": self.plan.name, "wandb": self.options.wandb, "project": self.options.project}

    def _run(self) -> int:
        runner = Runner(self.prepared.tasks, self.store, self._wandb, self.slots)
        total = len(self.prepared.tasks)
        try:
            with Display(total, lambda: self.outlook.seconds_left(runner.waiting, runner.running)) as display:
                runner.run(display)
        except KeyboardInterrupt:
            self.console.print("stopped; the same command goes on from here")
            raise
        failures = list(runner.failures.values())
        self._write(failures)
        for failure in failures:
            where = f" (log: {failure.log})" if failure.log else ""
            self.console.print(Text.assemble((failure.stage, "red"), f": {failure.reason}{where}"))
        return 1 if failures else 0

    def _write(self, failures: Sequence[Failure]) -> None:
        rows, images = collect(self.prepared.trainings, self.prepared.keys, self.store)
        if not rows:
            self.console.print("no training was tested: there is nothing to report")
            return
        outputs = Outputs(self.folder, self.plan, self.prepared, self.store, self.options.wandb, self.options.project)
        summaries = outputs.write(rows, images, failures)
        self.console.print(headline(summaries, self.plan.reference, self.plan.baseline))
        self.console.print(f"report: {self.folder / REPORT}")


def _without(args: Sequence[str], option: str) -> list[str]:
    """A command line without an option and its value."""
    kept, skip = [], False
    for word in args:
        if not skip and word != option and not word.startswith(f"{option}="):
            kept.append(word)
        skip = word == option
    return kept
