"""Which selection rule trains best: every rule of configs/selection, over budgets, augmentation, teacher and seeds.

    python benchmarks/selection_quality.py                      # the table of docs/selection.md; hours on two cores
    python benchmarks/selection_quality.py --blocks rules --seeds 0 --table

Run it from the root of the repository, with SRDISTILL_DATA at the folder of BSD400, Set5, Set14 and BSD100. Each row is
one training with the command line that users have (`main.py fit`, then `test`): edsr_tiny x4, the same recipe and
number of updates for all, last checkpoint, PSNR-Y. What is done already (in --out) is not run again, so that it can be
stopped and started at will; --table only prints.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import itertools
import json
import os
import statistics
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("WANDB_MODE", "disabled")

from datamodules.fingerprint import write_atomic

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "configs"
RULES = tuple(sorted(file.stem for file in (CONFIGS / "selection").glob("*.yaml")))
SCORED = {"gain", "highest_loss"}
"""Rules that need a briefly trained network."""
SETS = ("Set5", "Set14", "BSD100")
FULL, MAIN = 100.0, 0.68
BUDGETS = (0.07, 0.68, 2.0, 5.0)
BEST = ("random", "sharpening", "gain")
SCORER_UPDATES = 500
COLUMNS = ("rule", "seeds", *SETS, "mean", "to random", "to full data")


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        rule: file name in configs/selection, or "full".
        percent: of the full set's pixels.
        augmentation: recipe.
        teacher: whether targets are half those of the full-data network of seed 0.
        seed: of selection, initial weights, crops and augmentation.
    """

    rule: str
    percent: float
    augmentation: str
    teacher: bool
    seed: int

    @property
    def name(self) -> str:
        """Folder-safe name."""
        return f"{self.rule}-{self.percent:g}-{self.augmentation}{'-teacher' * self.teacher}-{self.seed}"


def blocks(seeds: Iterable[int]) -> dict[str, list[Run]]:
    """The runs by block, the most telling first; a run may stand in several."""
    seeds = list(seeds)
    strong_and_plain = ("strong", "plain")

    def product(
        rules: Iterable[str], budgets: Iterable[float], augmentations: Iterable[str], teacher: bool
    ) -> list[Run]:
        # Seeds vary slowest: after the first round there is a whole table.
        chosen = itertools.product(seeds, rules, budgets, augmentations)
        return [Run(rule, budget, augmentation, teacher, seed) for seed, rule, budget, augmentation in chosen]

    return {
        "full": product(["full"], [FULL], strong_and_plain, False),
        "rules": product(RULES, [MAIN], ["strong"], False),
        "teacher": product(BEST, [MAIN, 0.07], ["strong"], True),
        "budgets": product(BEST, BUDGETS, ["strong"], False),
        "plain": product(RULES, [MAIN], ["plain"], False),
        "all": product(RULES, BUDGETS, strong_and_plain, False) + product(RULES, BUDGETS, strong_and_plain, True),
    }


class Bench:
    """Trains and measures single runs in a folder of runs.

    Args:
        root: of the run folders.
        updates: of every training.
    """

    def __init__(self, root: Path, updates: int) -> None:
        self.root = root
        self.updates = updates

    def measure(self, run: Run) -> dict[str, Any]:
        """The row of one run: PSNR-Y per set, patches, seconds of selection and training."""
        start = time.perf_counter()
        data = self._relabelled(run) if run.teacher else self._data(run)
        prepared = time.perf_counter() - start
        tested = self._train_and_test(run.name, [*data, "--data.init_args.augmentation", run.augmentation], run.seed)
        return {**asdict(run), "updates": self.updates, "preparation_seconds": round(prepared, 1), **tested}

    def prepare(self, runs: list[Run]) -> None:
        """Trains the networks that rules and teachers need, once."""
        if any(run.rule in SCORED for run in runs) and not self._checkpoint("scorer").is_file():
            self._fit("scorer", _configs("sr/full", "data/bsd"), 0, SCORER_UPDATES)
        teacher = self._teacher
        if any(run.teacher for run in runs) and not self._checkpoint(teacher.name).is_file():
            self._fit(teacher.name, self._data(teacher), teacher.seed, self.updates)

    @property
    def _teacher(self) -> Run:
        return Run("full", FULL, "plain", False, 0)

    def _train_and_test(self, name: str, data: list[str], seed: int) -> dict[str, Any]:
        from main import main

        if not self._checkpoint(name).is_file():
            self._fit(name, data, seed, self.updates)
        with self._log(name):
            cli = main(["test", *data, *self._where(name), "--ckpt_path", str(self._checkpoint(name))])
        assert cli is not None
        results = json.loads((cli.run_dir / "results.json").read_text())["sets"]
        folder = self._checkpoint(name).parents[1]
        cost, provenance = (json.loads((folder / file).read_text()) for file in ("cost.json", "provenance.json"))
        return {
            "psnr_y": {name: round(results[name]["psnr_y"], 4) for name in SETS},
            "validation_psnr_y": round(_last(folder / "metrics.csv", "val/psnr_y"), 4),
            "training_seconds": round(cost["training_seconds"], 1),
            "images": provenance["data_budget"]["images"],
        }

    def _fit(self, name: str, data: list[str], seed: int, updates: int) -> None:
        from main import main

        length = ["--trainer.max_steps", str(updates), "--trainer.val_check_interval", str(updates)]
        quiet = ["--trainer.num_sanity_val_steps", "0", "--image_grid.images", "0", "--run.name", "run"]
        with self._log(name):
            main(["fit", *data, *self._where(name), *length, *quiet, "--seed_everything", str(seed)])

    def _data(self, run: Run) -> list[str]:
        if run.rule == "full":
            return _configs("sr/full", "data/bsd")
        chosen = [*_configs("sr/selected", "data/bsd", f"selection/{run.rule}"), *self._selection(run)]
        return [*chosen, "--data.init_args.select_seed", str(run.seed)]

    def _selection(self, run: Run) -> list[str]:
        given = ["--data.init_args.budget.percent", f"{run.percent:g}"]
        if run.rule in SCORED:
            given += ["--data.init_args.criterion.init_args.checkpoint", str(self._checkpoint("scorer"))]
        return given

    def _relabelled(self, run: Run) -> list[str]:
        """Makes the distilled set and its relabelled copy by `predict`; the options that train on it."""
        from main import main

        sets = self.root / "sets"
        chosen, relabelled = sets / f"{run.name}-chosen", sets / f"{run.name}-relabelled"
        selection = [*_configs("distill/select", "data/bsd", f"selection/{run.rule}"), *self._selection(run)]
        seed = ["--data.init_args.select_seed", str(run.seed), "--distilled.folder", str(chosen)]
        with self._log(run.name):
            if not chosen.is_dir():
                main(["predict", *selection, *seed, *self._where(run.name)])
            given = ["--data.init_args.distilled", str(chosen), "--distilled.folder", str(relabelled)]
            teacher = ["--model.init_args.teacher", str(self._checkpoint(self._teacher.name))]
            if not relabelled.is_dir():
                main(["predict", *_configs("distill/relabel", "data/bsd"), *given, *teacher, *self._where(run.name)])
        return [*_configs("sr/distilled", "data/bsd"), "--data.init_args.distilled", str(relabelled)]

    def _where(self, name: str) -> list[str]:
        return ["--run.root", str(self.root), "--run.experiment", name, "--trainer.enable_progress_bar", "false"]

    def _checkpoint(self, name: str) -> Path:
        return self.root / name / "fit" / "run" / "checkpoints" / "last.ckpt"

    @contextlib.contextmanager
    def _log(self, name: str) -> Iterator[None]:
        """What the commands print goes to a file."""
        self.root.mkdir(parents=True, exist_ok=True)
        file = (self.root / f"{name}.log").open("a")
        with file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
            yield


def _last(file: Path, column: str) -> float:
    """The last value of a column that is mostly empty."""
    with file.open(encoding="utf-8", newline="") as lines:
        return float([row[column] for row in csv.DictReader(lines) if row.get(column)][-1])


def _configs(*names: str) -> list[str]:
    return [word for name in names for word in ("--config", str(CONFIGS / f"{name}.yaml"))]


def measure(bench: Bench, run: Run) -> dict[str, Any]:
    """In a worker process."""
    import torch

    torch.set_num_threads(1)
    return bench.measure(run)


def run_all(runs: list[Run], bench: Bench, out: Path, workers: int) -> None:
    """Measures what `out` does not hold yet; each row is written as soon as it is there."""
    rows = read_rows(out)
    done = {
        Run(**{key: row[key] for key in Run.__dataclass_fields__}) for row in rows if row["updates"] == bench.updates
    }
    missing = [run for run in dict.fromkeys(runs) if run not in done]
    bench.prepare(missing)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        futures = {pool.submit(measure, bench, run): run for run in missing}
        for future in as_completed(futures):
            try:
                rows.append(future.result())
            except (Exception, SystemExit) as error:  # a rule that cannot meet a budget must not stop the others
                print(f"{futures[future].name}: {error or 'failed'}; see {bench.root / futures[future].name}.log")
                continue
            write_atomic(out, json.dumps({"rows": rows}, indent=1) + "\n")
            print(f"{len(rows)}: {futures[future].name} {rows[-1]['psnr_y']}", flush=True)


def read_rows(out: Path) -> list[dict[str, Any]]:
    """Rows that were measured before."""
    return json.loads(out.read_text())["rows"] if out.is_file() else []


def markdown(rows: list[dict[str, Any]]) -> str:
    """A table per budget, augmentation and teacher, best rule first: mean +- standard deviation over seeds."""
    full = _means([row for row in rows if row["rule"] == "full" and row["augmentation"] == "plain"])
    reference = statistics.mean(full) if full else float("nan")
    groups: dict[tuple[float, str, bool], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((-row["percent"], row["augmentation"], row["teacher"]), []).append(row)
    parts = []
    for (percent, augmentation, teacher), members in sorted(groups.items()):
        parts.append(f"\n**{-percent:g} %, {augmentation} augmentation{', with a teacher' * teacher}**\n")
        parts += [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
        parts += _lines(members, reference)
    return "\n".join(parts)


def _lines(members: list[dict[str, Any]], reference: float) -> list[str]:
    rules = {row["rule"] for row in members}
    of_rule = {rule: [row for row in members if row["rule"] == rule] for rule in rules}
    random = _means(of_rule.get("random", []))
    lines = []
    for rule in sorted(rules, key=lambda rule: -statistics.mean(_means(of_rule[rule]))):
        means = _means(of_rule[rule])
        sets = [_spread([row["psnr_y"][name] for row in of_rule[rule]]) for name in SETS]
        gain = f"{statistics.mean(means) - statistics.mean(random):+.2f}" if random else ""
        loss = f"{statistics.mean(means) - reference:+.2f}"
        lines.append(f"| {' | '.join([rule, str(len(means)), *sets, _spread(means), gain, loss])} |")
    return lines


def _means(rows: list[dict[str, Any]]) -> list[float]:
    """Mean of the three sets, one per run."""
    return [statistics.mean(row["psnr_y"].values()) for row in rows]


def _spread(values: list[float]) -> str:
    deviation = f" +- {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{deviation}"


def main(args: list[str] | None = None) -> None:
    """Measures and prints the tables."""
    parser = argparse.ArgumentParser(description="Selection rules compared by what trains on their choice.")
    names = list(blocks([0]))
    parser.add_argument("--blocks", nargs="+", choices=names, default=names[:-1], help="parts of the whole product")
    parser.add_argument("--rules", nargs="+", choices=["full", *RULES], help="only these")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--updates", type=int, default=2000, help="of every training")
    parser.add_argument("--workers", type=int, default=2, help="trainings at a time, one thread each")
    parser.add_argument("--runs", type=Path, default=Path("runs/selection_quality"), help="folder of runs and logs")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/selection_quality.json")
    parser.add_argument("--table", action="store_true", help="print what is there, measure nothing")
    options = parser.parse_args(args)
    if not options.table:
        wanted = blocks(options.seeds)
        runs = [run for block in options.blocks for run in wanted[block]]
        runs = [run for run in runs if not options.rules or run.rule in options.rules]
        run_all(runs, Bench(options.runs.absolute(), options.updates), options.out, options.workers)
    print(markdown(read_rows(options.out)))


if __name__ == "__main__":
    main()
