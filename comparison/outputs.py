"""What a comparison leaves for readers: tables, plots, pictures, the report and the summary on W&B."""

from __future__ import annotations

import os
import platform
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from cli.loggers import wandb_mode
from comparison.dashboard.summary import log_summary
from comparison.pictures.crops import crop_rows, crop_sheet
from comparison.pictures.picture import CropRow, Sample
from comparison.pictures.samples import sample_sheet, sample_sheets
from comparison.planning.degradation import degradation_of
from comparison.planning.plan import Plan
from comparison.planning.prepare import Prepared
from comparison.planning.resolve import code_digest, digest_json
from comparison.plots import draw_all, save_png, to_svg
from comparison.report.content import ReportContent
from comparison.report.page import write_report
from comparison.results.headline import headline
from comparison.results.rows import ImageRow, Row
from comparison.results.statistics import Summary, summarise
from comparison.results.tables import write_results, write_tables
from comparison.running.runner import Failure
from comparison.running.store import Store
from datamodules.benchmarks import Benchmarks
from datamodules.fingerprint import write_atomic
from datamodules.software import describe_software
from datamodules.spectra import Spectrum, distilled_spectrum

REPORT = "report.html"
WRITTEN_FOR = ".written_for"
"""Digest of the files and of what they were made from: a comparison in which nothing has changed writes nothing."""


class Outputs:
    """The folder of one comparison.

    Args:
        folder: of the comparison.
        plan: that was run.
        prepared: what it came to.
        store: where its stages are recorded.
        wandb: mode of the summary run, see `RunSettings`.
        project: of W&B.
    """

    def __init__(self, folder: Path, plan: Plan, prepared: Prepared, store: Store, wandb: str, project: str) -> None:
        self.folder = folder
        self.plan = plan
        self.plan_yaml = yaml.safe_dump(asdict(plan), sort_keys=False, allow_unicode=True)
        self.prepared = prepared
        self.store = store
        self.wandb = wandb
        self.project = project

    def write(self, rows: Sequence[Row], per_image: Sequence[ImageRow], failures: Sequence[Failure]) -> list[Summary]:
        """Writes everything, unless all of it is there and was made from the same.

        Returns:
            The lines of the main table.
        """
        plan = self.plan
        summaries = summarise(rows, per_image, plan.reference, plan.baseline)
        marker = self.folder / WRITTEN_FOR
        if marker.is_file() and marker.read_text() == self._digest(failures):
            return summaries
        write_results(self.folder, rows, per_image, summaries)
        write_tables(self.folder, summaries, plan.reference, plan.baseline)
        write_atomic(self.folder / "plan.yaml", self.plan_yaml)
        plots, vectors = self._plots(rows, summaries)
        samples = sample_sheets(rows, self.store.root)
        crops = self._crops(rows, per_image)
        self._save_pictures(samples, crops)
        write_report(self.folder / REPORT, self._content(rows, summaries, vectors, samples, crops, failures))
        log_summary(
            self.plan.name,
            self.project,
            self.wandb,
            self.folder,
            rows,
            summaries,
            plots,
            self._sets(rows),
            self.folder / REPORT,
        )
        write_atomic(marker, self._digest(failures))
        return summaries

    def _digest(self, failures: Sequence[Failure]) -> str:
        """Of the files that are there, the plan, and the record of each stage: one that is run again has a new one."""
        paths = (path.relative_to(self.folder) for path in self.folder.rglob("*") if path.is_file())
        files = sorted(str(path) for path in paths if path.parts[0] != "wandb" and not path.name.startswith("."))
        records = [done and asdict(done) for done in map(self.store.done, self.prepared.keys.values())]
        made_by = [code_digest(("comparison",)), wandb_mode(self.wandb), self.project]
        return digest_json([files, self.plan_yaml, records, [failure.stage for failure in failures], made_by])

    def _plots(self, rows: Sequence[Row], summaries: Sequence[Summary]) -> tuple[dict[str, Path], dict[str, str]]:
        """PNG files and inline SVG, by name."""
        spectra = _spectra(rows, self.store.root)
        figures = draw_all(summaries, rows, self.store.root, spectra, self.plan.reference, self.plan.baseline)
        files = {name: self.folder / "plots" / f"{name}.png" for name in figures}
        for name, figure in figures.items():
            save_png(figure, files[name])
        _remove_others(self.folder / "plots", files.values())
        return files, {name: to_svg(figure) for name, figure in figures.items()}

    def _crops(self, rows: Sequence[Row], per_image: Sequence[ImageRow]) -> list[CropRow]:
        options = self._data_options()
        benchmarks = Benchmarks(**options["benchmarks"])
        scale, degradation = options["scale"], degradation_of(options)
        return crop_rows(rows, per_image, self.store.root, benchmarks, scale, degradation, self.plan.crops)

    def _data_options(self) -> Mapping[str, Any]:
        """Of any test: they are alike."""
        options: Mapping[str, Any] = self.prepared.configs[self.prepared.trainings[0].test]["data"]["init_args"]
        return options

    def _save_pictures(self, samples: Sequence[Sample], crops: Sequence[CropRow]) -> None:
        folder = self.folder / "pictures"
        folder.mkdir(parents=True, exist_ok=True)
        sheets = {f"set-{number:02d}.png": sample_sheet(sample) for number, sample in enumerate(samples)}
        if crops:
            sheets["crops.png"] = crop_sheet(crops)
        for name, sheet in sheets.items():
            sheet.save(folder / f".{name}", format="png")
            (folder / f".{name}").replace(folder / name)
        _remove_others(folder, [folder / name for name in sheets])

    def _sets(self, rows: Sequence[Row]) -> dict[str, Path]:
        folders = dict.fromkeys(row.distilled_folder for row in rows if row.distilled_folder is not None)
        return {Path(folder).name: self.store.root / folder for folder in folders}

    def _content(
        self,
        rows: Sequence[Row],
        summaries: Sequence[Summary],
        plots: Mapping[str, str],
        samples: Sequence[Sample],
        crops: Sequence[CropRow],
        failures: Sequence[Failure],
    ) -> ReportContent:
        plan = self.plan
        return ReportContent(
            title=plan.title or plan.name,
            headline=headline(summaries, plan.reference, plan.baseline),
            generated=datetime.now(UTC).isoformat(timespec="seconds"),
            summaries=summaries,
            rows=rows,
            plots=plots,
            samples=samples,
            crops=crops,
            commands=self._commands(),
            environment=_environment(rows),
            plan=self.plan_yaml,
            failed=[(failure.stage, str(failure.log or failure.reason)) for failure in failures],
            notes=_notes(rows, self.prepared, plan),
            regimes={name: regime.title for name, regime in self.prepared.regimes.items()},
            reference=plan.reference,
            baseline=plan.baseline,
        )

    def _commands(self) -> list[tuple[str, str]]:
        """Those that were run, in order of dependency."""
        done = [(task.stage.name, self.store.done(task.key)) for task in self.prepared.tasks]
        return [(name, shlex.join(["python", "main.py", *record.command])) for name, record in done if record]


def _remove_others(folder: Path, written: Iterable[Path]) -> None:
    """Pictures of an earlier state of the comparison that it no longer has."""
    for path in {*folder.glob("*.png")} - {*written}:
        path.unlink()


def _spectra(rows: Sequence[Row], root: Path) -> dict[str, Spectrum]:
    """Of one set of each regime without a teacher, at the smallest budget."""
    budget = min((row.cell.budget for row in rows if row.cell.budget is not None), default=None)
    folders: dict[str, str] = {}
    for row in rows:
        if row.distilled_folder is not None and not row.cell.teacher and row.cell.budget == budget:
            folders.setdefault(row.cell.regime, row.distilled_folder)
    return {regime: distilled_spectrum(root / folder) for regime, folder in folders.items()}


def _environment(rows: Sequence[Row]) -> dict[str, str]:
    software = describe_software()
    packages = {name: str(version) for name, version in software["packages"].items()}
    devices = ", ".join(dict.fromkeys(row.device for row in rows))
    machine = {"devices": devices, "CPU cores": str(os.cpu_count()), "platform": platform.platform()}
    return {**machine, "Python": str(software["python"]), **packages}


def _notes(rows: Sequence[Row], prepared: Prepared, plan: Plan) -> list[str]:
    """What a reader must know to judge the figures."""
    notes = []
    commits = list(dict.fromkeys(str(row.commit) for row in rows))
    if len(commits) > 1:
        notes.append(f"The trainings ran with {len(commits)} commits of the framework: {', '.join(commits)}.")
    if any(commit.endswith("+") for commit in commits):
        notes.append("Some trainings ran with changes that were not committed (marked +).")
    devices = list(dict.fromkeys(row.device for row in rows))
    if len(devices) > 1:
        notes.append(f"The trainings ran on different devices ({', '.join(devices)}): their times do not compare.")
    missing = len(prepared.trainings) - len({row.cell for row in rows})
    if missing:
        notes.append(f"{missing} of {len(prepared.trainings)} trainings of the plan are missing.")
    if len({row.updates for row in rows}) == 1:
        notes.append(
            "All trainings do the same number of updates: times differ by what else the machine did, not by regime."
        )
    if len(plan.seeds) == 1:
        notes.append("One seed: differences of less than about 0.1 dB may be chance.")
    return notes
