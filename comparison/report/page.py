"""The page: a Jinja2 template filled with text, tables, plots and pictures."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from comparison.report.columns import columns
from comparison.report.content import ReportContent
from comparison.report.embed import embed_crop, embed_sheet
from comparison.report.figures import figures
from comparison.report.key_figures import key_figures
from comparison.report.tables import choices, tables
from comparison.results.untrained import wording
from datamodules.fingerprint import write_atomic

FOLDER = Path(__file__).parent


def write_report(path: Path, content: ReportContent) -> None:
    """Writes the page as one file that loads nothing from anywhere; whole, or not at all."""
    write_atomic(path, render(content))


def render(content: ReportContent) -> str:
    """The page as HTML.

    Raises:
        ValueError: for a plot without a caption, see `comparison.report.figures`.
    """
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"embed_crop": embed_crop, "embed_sheet": embed_sheet}
    return environment.get_template("template.html").render(content=content, **_parts(content), **_assets())


def _parts(content: ReportContent) -> dict[str, Any]:
    shown = columns(content.summaries, content.reference, content.baseline)
    filters = choices(content.summaries)
    return {
        "columns": shown,
        "untrained": wording(content.summaries),
        "choices": filters,
        "tables": tables(content.summaries, shown),
        "key_figures": key_figures(content.summaries, filters, content.reference, content.baseline),
        "figures": figures(content.plots),
        "script_of_stages": "\n".join(f"# {name}\n{command}\n" for name, command in content.commands),
        **_record(content),
    }


def _record(content: ReportContent) -> dict[str, Any]:
    """What the rows say of how they were made, without repetition and in order."""
    cells = [row.cell for row in content.rows]
    return {
        "protocols": sorted({row.protocol for row in content.rows}),
        "test_sets": {row.set: row.test_images for row in content.rows},
        "seeds": sorted({cell.seed for cell in cells}),
        "trainings": len(set(cells)),
        "devices": sorted({row.device for row in content.rows}),
        "commits": sorted({row.commit or "unknown" for row in content.rows}),
    }


def _assets() -> dict[str, str]:
    """Style and script are ours. The browser runs only the script with this hash, whatever else gets into the page."""
    style, script = ((FOLDER / name).read_text(encoding="utf-8") for name in ("style.css", "script.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return {"style": Markup(style), "script": Markup(script), "script_hash": f"sha256-{digest}"}  # noqa: S704
