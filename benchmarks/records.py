"""Reads what runs have printed and measured: benchmarks/recorded, and the sections of RESULTS.md."""

from __future__ import annotations

import re
from pathlib import Path

from tlkit.errors import RunFolderError
from tlkit.experiment.results import Results
from tlkit.utils.json_files import read_json

ROOT = Path(__file__).parents[1]
RECORDED = ROOT / "benchmarks" / "recorded"
RESULTS = ROOT / "benchmarks" / "RESULTS.md"
#: Lines of a record that say how far a run is: epochs, and counts with a rate.
PROGRESS = re.compile(r"^\S+ \d+/\d+: loss .*\n|^.+, [\d,]+/(?:s|min)\b.*\n", re.MULTILINE)


def source(name: str) -> str | None:
    """Returns a record, or the section of RESULTS.md with that heading; None if there is neither."""
    record = RECORDED / f"{name}.txt"
    if record.is_file():
        return record.read_text(encoding="utf-8")
    text = RESULTS.read_text(encoding="utf-8")
    heading = re.search(rf"^(##+) {re.escape(name)}$", text, re.MULTILINE)
    if heading is None:
        return None
    rest = text[heading.end() :]
    after = re.search(rf"^#{{2,{len(heading[1])}}} ", rest, re.MULTILINE)
    # the heading that it is below has the date
    (*_, above) = re.findall(r"^## .+$", text[: heading.end()], re.MULTILINE)
    return above + (rest[: after.start()] if after else rest)


def without_progress(record: str) -> str:
    """Returns a record without its lines of progress, whose many numbers would vouch for nearly any other."""
    return PROGRESS.sub("", record)


def results(name: str) -> Results:
    """Returns the results of a recorded run."""
    return read_json(RECORDED / f"{name}.json", Results, RunFolderError)
