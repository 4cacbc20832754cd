"""`report.html`: everything a comparison found, in one file that needs nothing else."""

from comparison.report.content import ReportContent
from comparison.report.page import write_report

__all__ = ["ReportContent", "write_report"]
