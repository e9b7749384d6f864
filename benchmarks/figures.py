"""Checks that the figures in README.md and docs are those of a run: what a page says of it, its record says.

uv run python -m benchmarks.figures

A marker stands above a block (a paragraph, a list, a table or a code block) of a page:

    <!-- figures: NAME -->      each number of the block, or each line of a code block, is in the record NAME
    <!-- made: NAME -->         the block is made from records, by the function of that name in made.py
    <!-- no figures: REASON --> nothing in the block is measured, or it is checked otherwise

NAME is a file of benchmarks/recorded, which benchmarks/record.py writes, or a heading of RESULTS.md; above
text there may be several, separated by "; ". A block that looks measured needs a marker, and so does the
output of a command if it has any number. The command makes blocks anew, and names what is wrong;
tests/test_figures.py does the same without writing.

Lines of a code block, its commands included, must be the record's, in that order. The numbers of any other
block must be in the record, with the same unit where both have one, but in any place: two numbers that are
exchanged are not noticed. Make a block whose numbers matter most.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import typer

from benchmarks.made import MADE
from benchmarks.records import ROOT, source, without_progress

MARKER = re.compile(r"<!-- (figures|made|no figures): (.+) -->")
#: A number as pages write it; not a part of a name such as mobilenetv2_100, or of 10^5.
NUMBER = re.compile(r"\d{4}-\d\d-\d\d|(?<![\w.,^-])\d[\d,]*(?:\.\d+)?(?:e-?\d+)?(?!\w)")
#: What no run says: code, addresses, the level of intervals, and versions.
NOT_MEASURED = re.compile(
    r"`[^`]*`|\]\([^)]*\)|<[^>]*>|95% (?=interval|confidence)|(?:Python|Ray|transformers) [\d.]+"
)
#: What a measured number looks like.
MEASURED = re.compile(
    r"(?<![\w.])\d+\.\d+(?!\w|\.\d)|\d of (?:the )?\d|,\d{3},\d|\bp = "
    r"|\d (?:s|ms|µs|seconds|minutes|min|kB|MB|GB|points|times)\b|\d%|/s\b"
    r"|20\d\d-\d\d-\d\d"
)
#: The units that are compared, as pages and records write them.
UNITS = {
    **dict.fromkeys(("s", "second", "seconds"), "s"),
    **dict.fromkeys(("min", "minute", "minutes"), "min"),
    **dict.fromkeys(("point", "points"), "points"),
    **dict.fromkeys(("x", "times"), "times"),
    **{unit: unit for unit in ("ms", "µs", "h", "%", "kB", "MB", "GB")},
}
NO_SOURCE = (
    "these figures name no source: put `<!-- figures: NAME -->`, or `<!-- no figures: REASON -->`, above"
    " (benchmarks/figures.py says what NAME may be)"
)
#: Languages of code blocks that are written, not printed.
WRITTEN = ("python", "toml", "csv", "bash")
#: A number and its unit, which may come after a second number: 2 to 3 s.
QUANTITY = re.compile(
    rf"({NUMBER.pattern})[ -]?(?:(?:to|and|or) (?=(?:{NUMBER.pattern})[ -]?(%|[^\W\d]+))|(%|[^\W\d]+))?"
)


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
        return [line for line in self.shown if not line.startswith("$ ")]

    @property
    def shown(self) -> list[str]:
        """The lines of a code block: commands, without ``uv run``, and what they have printed."""
        text = re.sub(r" \\\n +", " ", self.text)  # a command of several lines
        lines = [line.rstrip() for line in text.splitlines()[1:-1]]
        return [re.sub(r"^\$ uv run ", "$ ", line) for line in lines if line and line != "…"]

    @property
    def looks_measured(self) -> bool:
        """Whether it has a number that looks measured: in what a command has printed, any."""
        if not self.is_code:
            return bool(MEASURED.search(NOT_MEASURED.sub("", self.text)))
        written = self.text.startswith(tuple(f"```{language}\n" for language in WRITTEN))
        return not written and bool(re.search(r"\d", "\n".join(self.output)))


def pages() -> list[Path]:
    """Returns the pages that are checked; docs/timm.md is written by a command as a whole."""
    listed = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("plugins/*/README.md")]
    return listed + [page for page in sorted((ROOT / "docs").rglob("*.md")) if page.name != "timm.md"]


def blocks(text: str) -> Iterator[Block]:
    """Yields the blocks of a page, each with the marker above it."""
    marker, lines, begins, in_code = None, list[str](), 0, False
    for number, line in enumerate([*text.splitlines(), ""], 1):
        fence = line.startswith("```")
        if lines and not in_code and (fence or not line.strip()):
            yield Block(begins, "\n".join(lines), marker)
            marker, lines = None, []
        if not lines and (match := MARKER.fullmatch(line)):
            marker = match[1], match[2]
            continue
        if in_code or line.strip():
            begins = begins if lines else number
            lines.append(line)
        if fence and in_code:
            yield Block(begins, "\n".join(lines), marker)
            marker, lines = None, []
        in_code ^= fence


def quantities(text: str) -> list[tuple[str, str]]:
    """Returns the numbers of a text, without separators of thousands, and the word or sign after each."""
    return [
        (match[1].replace(",", ""), UNITS.get(unit := match[2] or match[3] or "", unit))
        for match in QUANTITY.finditer(text)
    ]


def block_problems(block: Block) -> list[str]:
    """Returns what is wrong with the figures of a block."""
    if block.marker is None:
        return [NO_SOURCE] if block.looks_measured else []
    kind, names = block.marker
    if kind == "no figures":
        return []
    if kind == "made":
        if names not in MADE:
            return [f"benchmarks/made.py has no {names!r}: {', '.join(MADE)}"]
        is_equal = block.text == MADE[names]()
        return [] if is_equal else ["this is not what its record says: run python -m benchmarks.figures"]
    sources = {name: source(name) for name in names.split("; ")}
    if missing := [name for name, text in sources.items() if text is None]:
        return [f"neither benchmarks/recorded nor RESULTS.md has {name!r}" for name in missing]
    texts = [text for text in sources.values() if text is not None]
    if not block.is_code:
        return number_problems(block.text, "\n".join(without_progress(text) for text in texts), names)
    if len(texts) > 1:
        return ["a code block has one command's output: name one record"]
    return output_problems(block.shown, texts[0].splitlines(), names)


def number_problems(text: str, recorded: str, name: str) -> list[str]:
    """Returns the numbers of a text that the record does not have, or has with another unit only."""
    known = set(quantities(recorded))
    numbers = {number for number, _ in known}
    return [
        f"{number} {unit if number in numbers else ''}".rstrip() + f" is not in {name}"
        for number, unit in quantities(NOT_MEASURED.sub("", text))
        if not {(number, unit), (number, "")} & known and (unit in UNITS.values() or number not in numbers)
    ]


def output_problems(shown: list[str], recorded: list[str], name: str) -> list[str]:
    """Returns the lines that a page shows and the record does not have, in that order."""
    rest = iter(recorded)
    return next(([f"{line!r} is not in {name}, or not there"] for line in shown if line not in rest), [])


def problems(page: str, text: str) -> list[str]:
    """Returns what is wrong with the figures of a page, with the line of each block."""
    return [f"{page}:{block.line}: {problem}" for block in blocks(text) for problem in block_problems(block)]


def with_made(text: str) -> str:
    """Returns a page with the blocks that are made from records made anew."""
    lines = text.splitlines()
    for block in reversed(list(blocks(text))):
        if block.marker and block.marker[0] == "made" and block.marker[1] in MADE:
            begin = block.line - 1
            lines[begin : begin + len(block.text.splitlines())] = MADE[block.marker[1]]().splitlines()
    return "\n".join(lines) + "\n"


def main() -> None:
    """Make the pages' blocks anew, and name the figures that are not in their records."""
    wrong: list[str] = []
    for page in pages():
        text = with_made(page.read_text(encoding="utf-8"))
        page.write_text(text, encoding="utf-8")
        wrong += problems(str(page.relative_to(ROOT)), text)
    typer.echo("\n".join(wrong) or "Every figure is in its record.")
    raise typer.Exit(bool(wrong))


if __name__ == "__main__":
    typer.run(main)
