"""Checks that the figures in README.md and docs are those of a run: what a page says of it, its record says.

uv run python -m benchmarks.figures

A marker stands above a block (a paragraph, a list, a table or a code block) of a page:

    <!-- figures: NAME -->      each number of the block, or each line of a code block, is in the record NAME
    <!-- table: NAME -->        the table is made from a record, by the function of that name in TABLES
    <!-- no figures: REASON --> nothing in the block is measured, or it is checked otherwise

NAME is a file of benchmarks/recorded, which benchmarks/record.py writes, or a heading of RESULTS.md; several
are separated by "; ". A block that looks measured needs a marker. The command writes the tables anew, and
names what is wrong; tests/test_figures.py does the same without writing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import typer
from safetensors import safe_open

from tlkit.errors import RunFolderError
from tlkit.experiment.results import PhaseResult, Results, describe_gains
from tlkit.utils.json_files import read_json

ROOT = Path(__file__).parents[1]
WEIGHTS = "plugins/catsdogs/src/tlkit_catsdogs/weights/vgg16-quarter.studio.safetensors"
RECORDED = ROOT / "benchmarks" / "recorded"
RESULTS = ROOT / "benchmarks" / "RESULTS.md"
MARKER = re.compile(r"<!-- (figures|table|no figures): (.+) -->")
#: A number as pages write it; not a part of a name such as mobilenetv2_100, or of 10^5.
NUMBER = re.compile(r"\d{4}-\d\d-\d\d|(?<![\w.,^-])\d[\d,]*(?:\.\d+)?(?:e-?\d+)?(?!\w)")
#: What no run says: code, addresses, and the level of intervals.
NOT_MEASURED = re.compile(r"`[^`]*`|\]\([^)]*\)|<[^>]*>|95% (?=interval|confidence)")
#: What a measured number looks like.
MEASURED = re.compile(
    r"(?<![\w.])[01]\.\d{3}\b|\bp = |\d (?:s|ms|µs|seconds|minutes|min)\b|/s\b|20\d\d-\d\d-\d\d|\d points"
)
#: Languages of code blocks that are written, not printed.
WRITTEN = ("python", "toml", "yaml", "csv", "json", "bash")


@dataclass(frozen=True)
class Block:
    """A part of a page between blank lines, or a code block.

    Attributes:
        line: the number of its first line, from 1.
        text: its lines.
        marker: the kind of the marker above it, and what it names; None: there is none.
    """

    line: int
    text: str
    marker: tuple[str, str] | None

    @property
    def is_code(self) -> bool:
        """Whether it is a code block."""
        return self.text.startswith("```")

    @property
    def output(self) -> list[str]:
        """The lines of a code block that a command has printed."""
        lines = [line.rstrip() for line in self.text.splitlines()[1:-1]]
        return [line for line in lines if line and line != "…" and not line.startswith("$ ")]

    @property
    def looks_measured(self) -> bool:
        """Whether it has a number that looks measured."""
        if not self.is_code:
            return bool(MEASURED.search(NOT_MEASURED.sub("", self.text)))
        written = self.text.startswith(tuple(f"```{language}\n" for language in WRITTEN))
        return not written and bool(MEASURED.search("\n".join(self.output)))


def pages() -> list[Path]:
    """Returns the pages that are checked; docs/timm.md is written by a command as a whole."""
    found = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("plugins/*/README.md")]
    return found + [page for page in sorted((ROOT / "docs").rglob("*.md")) if page.name != "timm.md"]


def blocks(text: str) -> Iterator[Block]:
    """Yields the blocks of a page, each with the marker above it."""
    marker, lines, begins, in_code = None, list[str](), 0, False
    for number, line in enumerate([*text.splitlines(), ""], 1):
        fence = line.startswith("```")
        if lines and not in_code and (fence or not line.strip()):
            content = "\n".join(lines)
            if match := MARKER.fullmatch(content):
                marker = match[1], match[2]
            else:
                yield Block(begins, content, marker)
                marker = None
            lines = []
        if in_code or line.strip():
            begins = begins if lines else number
            lines.append(line)
        if fence and in_code:
            yield Block(begins, "\n".join(lines), marker)
            marker, lines = None, []
        in_code ^= fence


def numbers(text: str) -> list[str]:
    """Returns the numbers of a text, without separators of thousands."""
    return [number.replace(",", "") for number in NUMBER.findall(text)]


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


def block_problems(block: Block) -> list[str]:
    """Returns what is wrong with the figures of a block."""
    if block.marker is None:
        hint = "<!-- figures: NAME --> above it; benchmarks/figures.py says how"
        return [f"says not where its figures are from: {hint}"] if block.looks_measured else []
    kind, names = block.marker
    if kind == "no figures":
        return []
    if kind == "table":
        if names not in TABLES:
            return [f"there is no table {names!r}: {', '.join(TABLES)}"]
        is_equal = block.text == TABLES[names]()
        return [] if is_equal else ["is not its record's table: run python -m benchmarks.figures"]
    sources = {name: source(name) for name in names.split("; ")}
    if missing := [name for name, text in sources.items() if text is None]:
        return [f"neither benchmarks/recorded nor RESULTS.md has {name!r}" for name in missing]
    texts = [text for text in sources.values() if text is not None]
    if block.is_code:
        return output_problems(block.output, texts[0].splitlines(), names)
    known = {number for text in texts for number in numbers(text)}
    unknown = [number for number in numbers(NOT_MEASURED.sub("", block.text)) if number not in known]
    return [f"{number} is not in {names}" for number in unknown]


def output_problems(shown: list[str], recorded: list[str], name: str) -> list[str]:
    """Returns the lines that a page shows and the record does not have, in that order."""
    rest = iter(recorded)
    return next(([f"{line!r} is not in {name}, or not there"] for line in shown if line not in rest), [])


def problems(page: str, text: str) -> list[str]:
    """Returns what is wrong with the figures of a page, with the line of each block."""
    return [f"{page}:{block.line}: {problem}" for block in blocks(text) for problem in block_problems(block)]


def results(name: str) -> Results:
    """Returns the results of a recorded run."""
    return read_json(RECORDED / f"{name}.json", Results, RunFolderError)


def table(head: str, alignment: str, rows: list[list[str]]) -> str:
    """Returns a table in Markdown."""
    return "\n".join([head, alignment, *(f"| {' | '.join(row)} |" for row in rows)])


def photos() -> str:
    """Returns the phases of the run on photos."""
    run = results("photos")
    gains = describe_gains(run.phases)

    def row(phase: PhaseResult) -> list[str]:
        scores = phase.measured
        low, high = scores.ci95
        gain = gains[phase.name][0] if phase.versus else ""
        best = f"{phase.best_epoch} of {phase.epochs}" if phase.epochs else ""
        accuracy = [f"{scores.accuracy:.3f}", f"{low:.3f}–{high:.3f}", f"{scores.correct} of {scores.n}"]
        return [phase.name, *accuracy, gain, best, f"{phase.seconds.total:.0f}"]

    head = "| phase | accuracy | 95% interval | correct | gain | best epoch | seconds |"
    return table(
        head, "| --- | ---: | ---: | ---: | --- | ---: | ---: |", [row(phase) for phase in run.phases]
    )


def photos_again() -> str:
    """Returns what features cost the run on photos, and a second one with another head."""
    firsts = {phase.name: phase for phase in results("photos").phases}
    rows = [
        [
            again.name,
            f"{firsts[again.name].features.computed:,}, then {again.features.computed:,}",
            f"{firsts[again.name].seconds.features:.1f} s",
            f"{again.seconds.features:.2f} s",
        ]
        for again in results("photos-again").phases
    ]
    head = "| phase | image views computed | for features, first run | for features, second run |"
    return table(head, "| --- | --- | ---: | ---: |", rows)


def weights() -> str:
    """Returns what the file of vgg16-quarter's weights says of itself."""
    with safe_open(ROOT / WEIGHTS, "pt") as file:  # type: ignore[no-untyped-call]
        values = file.metadata()
    low, high = json.loads(values["accuracy_ci95"])
    rows = [
        ["studio images to train on", f"{int(values['train_images']):,}"],
        ["epochs", values["epochs"]],
        ["minutes, on 2 cores that had other work, too", f"{float(values['seconds']) / 60:.0f}"],
        ["studio images to test", f"{int(values['test_images']):,}"],
        ["accuracy on those, with 95% interval", f"{float(values['accuracy']):.3f} ({low:.3f}–{high:.3f})"],
    ]
    return table("| | |", "| --- | ---: |", rows)


#: The tables that are made from records.
TABLES: dict[str, Callable[[], str]] = {
    "photos": photos,
    "photos-again": photos_again,
    "weights": weights,
}


def with_tables(text: str) -> str:
    """Returns a page with its tables made anew."""
    lines = text.splitlines()
    for block in reversed(list(blocks(text))):
        if block.marker and block.marker[0] == "table" and block.marker[1] in TABLES:
            begin = block.line - 1
            lines[begin : begin + len(block.text.splitlines())] = TABLES[block.marker[1]]().splitlines()
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the pages' tables anew, and name the figures that are not in their records."""
    wrong: list[str] = []
    for page in pages():
        text = with_tables(page.read_text(encoding="utf-8"))
        page.write_text(text, encoding="utf-8")
        wrong += problems(str(page.relative_to(ROOT)), text)
    typer.echo("\n".join(wrong) or "Every figure is in its record.")
    raise typer.Exit(bool(wrong))


if __name__ == "__main__":
    typer.run(main)
