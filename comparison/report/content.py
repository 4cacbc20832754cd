"""What the report is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from comparison.pictures.picture import CropRow, Sample
from comparison.results.rows import Row
from comparison.results.statistics import Summary


@dataclass(frozen=True)
class ReportContent:
    """All that `report.html` shows. Texts are plain, the page escapes them; only plots are markup.

    Attributes:
        title: of the page.
        headline: what was found, in one sentence.
        generated: when the report was written, ISO 8601.
        summaries: lines of the tables; networks, recipes and test sets are offered in the order they have here.
        rows: what the lines are means of; the report takes protocol, test sets, seeds, devices and commits from them.
        plots: inline SVG by name; names and captions are in `comparison.report.figures`.
        samples: contact sheets of the distilled sets.
        crops: windows of test images, side by side.
        commands: name and shell command of each stage, in the order they can be run in.
        environment: versions and hardware, by name.
        plan: resolved, as YAML.
        failed: name of each stage that failed, and where its log is.
        notes: what a reader must know to judge the figures, such as several commits in one table.
        regimes: what each regime is, in a few words, by name.
        reference: regime that gaps are counted from.
        baseline: regime that gains are counted from.
    """

    title: str
    headline: str
    generated: str
    summaries: Sequence[Summary]
    rows: Sequence[Row]
    plots: Mapping[str, str]
    samples: Sequence[Sample]
    crops: Sequence[CropRow]
    commands: Sequence[tuple[str, str]]
    environment: Mapping[str, str]
    plan: str
    failed: Sequence[tuple[str, str]] = ()
    notes: Sequence[str] = ()
    regimes: Mapping[str, str] = field(default_factory=dict)
    reference: str = "full"
    baseline: str = "random"
