"""W&B: the run of a comparison that holds what no single training does: tables, plots, report, distilled sets."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cli.loggers import Mode, wandb_mode
from comparison.results.rows import Row
from comparison.results.statistics import Summary
from comparison.results.tables import records
from datamodules.distilled.reading import read_provenance
from datamodules.fingerprint import digest_file, write_atomic

if TYPE_CHECKING:
    import wandb

MARKER = "summary.sha256"
"""In `wandb/` of the comparison's folder: digest of the results that were logged, and the folder of their run."""

OF_SET = ("method", "scale", "seed", "budget", "source_fingerprint")
"""What an artifact tells of a distilled set's provenance."""


def log_summary(
    plan_name: str,
    project: str,
    mode: str,
    folder: Path,
    rows: Sequence[Row],
    summaries: Sequence[Summary],
    plots: Mapping[str, Path],
    sets: Mapping[str, Path],
    report: Path,
) -> Path | None:
    """Writes a run of job type `summary`, unless the same results were logged before.

    It holds the table `results` (of `rows`), the tables `summary` and `summary_teacher` (of `summaries`, without and
    with a teacher, which are never ranked together), `plots/NAME`, `report`, and the artifacts `PLAN-report` and
    `PLAN-SET`. Files of distilled sets are not copied: W&B reads them where they lie, when the run is synced.

    Args:
        plan_name: W&B's group.
        project: of W&B.
        mode: as in `RunSettings`.
        folder: of the comparison; the run lies in its `wandb`.
        rows: all of them.
        summaries: likewise.
        plots: PNG files by name.
        sets: folders of distilled sets by name.
        report: HTML file.

    Returns:
        The run's folder (which `wandb clean` may have removed since it was synced); None where W&B is disabled.

    Raises:
        FileNotFoundError: when a distilled set, a plot or the report is missing.
        ModuleNotFoundError: when W&B is asked for but not installed.
    """
    kind, marker = wandb_mode(mode), folder / "wandb" / MARKER
    if kind == "disabled":
        return None
    digest = _digest(project, kind, rows, summaries, sorted(plots), {name: _fingerprint(sets[name]) for name in sets})
    logged, _, known = marker.read_text("utf-8").strip().partition("  ") if marker.is_file() else ("", "", "")
    if logged == digest:
        return folder / "wandb" / known
    folder.mkdir(parents=True, exist_ok=True)
    with _staging(folder / "wandb" / "staging"), _new_run(plan_name, project, kind, folder) as run:
        run.log(_media(rows, summaries, plots, report))
        run.log_artifact(_artifact(f"{plan_name}-report", "report", {report.name: report}, {}))
        for key, where in sets.items():
            run.log_artifact(_artifact(f"{plan_name}-{key}", "dataset", _files(where), _describe(where)))
        written = Path(run.dir).parent
    write_atomic(marker, f"{digest}  {written.name}\n")
    return written


def _new_run(plan_name: str, project: str, mode: Mode, folder: Path) -> wandb.Run:
    import wandb

    return wandb.init(
        project=project,
        group=plan_name,
        job_type="summary",
        name=f"{plan_name} summary",
        dir=folder,
        mode=mode,
        settings=wandb.Settings(silent=mode == "offline", console="off", reinit="create_new"),
    )


@contextmanager
def _staging(folder: Path) -> Iterator[None]:
    """Where W&B puts copies that it sends later; by default in the user's home, away from the comparison."""
    before = os.environ.get("WANDB_DATA_DIR")
    os.environ["WANDB_DATA_DIR"] = str(folder.absolute())
    try:
        yield
    finally:
        os.environ.pop("WANDB_DATA_DIR")
        if before is not None:
            os.environ["WANDB_DATA_DIR"] = before


def _media(
    rows: Sequence[Row], summaries: Sequence[Summary], plots: Mapping[str, Path], report: Path
) -> dict[str, Any]:
    import wandb

    tables = {
        "results": list(records(Row, rows)),
        "summary": list(records(Summary, [summary for summary in summaries if not summary.group.teacher])),
        "summary_teacher": list(records(Summary, [summary for summary in summaries if summary.group.teacher])),
    }
    return {
        **{name: _table(lines) for name, lines in tables.items() if lines},
        **{f"plots/{name}": wandb.Image(str(path)) for name, path in plots.items()},
        "report": wandb.Html(report, inject=False),
    }


def _table(lines: Sequence[dict[str, Any]]) -> wandb.Table:
    import wandb

    return wandb.Table(columns=list(lines[0]), data=[list(line.values()) for line in lines])


def _artifact(name: str, kind: str, files: Mapping[str, Path], metadata: dict[str, Any]) -> wandb.Artifact:
    """By path, since a dataset's files stay as they are; a report is made anew, so a copy is put aside."""
    import wandb

    artifact = wandb.Artifact(re.sub(r"[^\w.-]", "-", name, flags=re.ASCII), kind, metadata=metadata)
    for entry, path in files.items():
        # Absolute, as `wandb sync` may be called from anywhere; past the cache, which would keep another copy.
        policy: Literal["immutable", "mutable"] = "immutable" if kind == "dataset" else "mutable"
        artifact.add_file(str(path.absolute()), name=entry, policy=policy, skip_cache=True)
    return artifact


def _files(folder: Path) -> dict[str, Path]:
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}


def _describe(folder: Path) -> dict[str, Any]:
    record = read_provenance(folder)
    return {**{key: record.get(key) for key in OF_SET}, "fingerprint": _fingerprint(folder)}


def _fingerprint(folder: Path) -> str:
    """Digest of the record of a set, which in turn has the digest of every file."""
    return digest_file(folder / "provenance.json")


def _digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, default=asdict).encode()).hexdigest()
