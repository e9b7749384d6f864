"""From a run folder to a page that one can open, send and print."""

from tlkit.report.comparing import compare
from tlkit.report.page import report

__all__ = ["compare", "report"]
