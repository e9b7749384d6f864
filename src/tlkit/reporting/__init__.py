"""From a run folder to a page that one can open, send and print."""

from tlkit.reporting.comparing import compare
from tlkit.reporting.page import report

__all__ = ["compare", "report"]
