"""The figures in README.md and docs are those of the runs that are recorded in benchmarks."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import typer

from benchmarks import figures, record, records
from benchmarks.figures import NUMBER, Block, block_problems, blocks, pages, problems
from benchmarks.records import ROOT, source
from tlkit.experiment.results import RunDescription


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_the_figures_of_a_page_are_those_of_its_records(page: Path) -> None:
    assert problems(name_of(page), page.read_text(encoding="utf-8")) == []


def changed(text: str) -> Iterator[tuple[int, str]]:
    """Yields the text with the last digit of one number changed, and how many digits the number has."""
    for number in NUMBER.finditer(figures.NOT_MEASURED.sub(lambda match: "_" * len(match[0]), text)):
        if number[0][-1].isdigit():
            digit = str((int(number[0][-1]) + 1) % 10)
            count = sum(character.isdigit() for character in number[0])
            yield count, text[: number.end() - 1] + digit + text[number.end() :]


def checked_blocks() -> Iterator[Block]:
    for page in pages():
        for block in blocks(page.read_text(encoding="utf-8")):
            if block.marker is not None and block.marker[0] != "no figures":
                yield block


def is_exact(block: Block) -> bool:
    """Whether the place of each number is checked, not only that it is somewhere in the record."""
    return block.is_code or (block.marker is not None and block.marker[0] == "made")


def test_a_figure_that_is_changed_by_hand_is_found() -> None:
    noticed, missed = Counter[str](), Counter[str]()
    for block in checked_blocks():
        text = "\n".join(block.output) if block.is_code else block.text
        for digits, change in changed(text):
            mutant = Block(block.line, f"```\n{change}\n```" if block.is_code else change, block.marker)
            kind = "exact" if is_exact(block) else "long" if digits > 2 else "short"
            (noticed if block_problems(mutant) else missed)[kind] += 1
    assert noticed["exact"] > 500 and not missed["exact"]
    # in a paragraph, the changed number may be another one of its record
    assert noticed["long"] > 50 and missed["long"] < 0.03 * noticed["long"]
    assert noticed["short"] > 20 and missed["short"] < 0.4 * noticed["short"]


def test_numbers_that_are_exchanged_are_found_where_their_place_is_checked() -> None:
    exchanged, missed = 0, []
    for block in filter(is_exact, checked_blocks()):
        for one, other in pairwise(NUMBER.finditer(block.text)):
            if one[0] != other[0]:
                between = block.text[one.end() : other.start()]
                text = block.text[: one.start()] + other[0] + between + one[0] + block.text[other.end() :]
                exchanged += 1
                if not block_problems(Block(block.line, text, block.marker)):
                    missed.append(text)
    assert exchanged > 200 and not missed, missed


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("It took 462 seconds, 84 of them once.", None),
        ("It took 462 minutes.", "462 min is not in x"),
        ("It took 2 s.", "2 s is not in x"),  # those are threads
        ("It took 2 to 462 s.", "2 s is not in x"),
        ("It took 9 s.", "9 is not in x"),
        ("It was 7.5 s.", "7.5 is not in x"),  # of an epoch
        ("In 84 of 100.", "100 is not in x"),
    ],
)
def test_a_number_is_in_the_record_with_its_unit(
    monkeypatch: pytest.MonkeyPatch, text: str, problem: str | None
) -> None:
    record = "$ tlkit x\n2026-11-27; 462 s by the clock; 2 threads\n\n"
    epochs = (
        "linear 1/2: loss 0.5, accuracy 0.9, 7.5 s\nfrozen pass: 100 images in 1.1 s, 90/s\n| 84 | 0.95 |\n"
    )
    monkeypatch.setattr(figures, "source", lambda name: record + epochs)
    reported = problems("page.md", f"<!-- figures: x -->\n{text}\n")
    assert reported == ([] if problem is None else [f"page.md:2: {problem}"])


def test_a_block_that_looks_measured_needs_a_marker() -> None:
    text = (
        "It has 1,000 photos.\n\nThe accuracy is 0.931.\n\n```toml\nlr = 0.001\n```\n\n```\n3 passed\n```\n\n"
        "Python 3.11 does.\n\n3 of 20 are decided.\n\n```console\n$ tlkit x --to y \\\n    --seed 1\n```\n"
    )
    assert [problem.split(":")[1] for problem in problems("page.md", text)] == ["3", "9", "15"]
    (problem,) = problems("page.md", "<!-- figures: Nowhere -->\n\nThe accuracy is 0.931.\n")
    assert problem == "page.md:3: neither benchmarks/recorded nor RESULTS.md has 'Nowhere'"
    assert problems("page.md", "<!-- no figures: a setting -->\n\nThe rate is 0.001.\n") == []
    assert problems("page.md", "<!-- no figures: a setting -->\nThe rate is 0.001.\n") == []


def test_lines_of_a_code_block_are_the_records_in_its_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        figures, "source", lambda name: "$ tlkit x\n\nfirst 0.931\nsecond 0.932\nthird 0.933\n"
    )
    page = "<!-- figures: x -->\n\n```console\n$ tlkit x\n…\n{}\n```\n"
    assert problems("page.md", page.format("first 0.931\nthird 0.933")) == []
    for wrong in ("third 0.933\nfirst 0.931", "second 0.922", "$ tlkit y"):
        (problem,) = problems("page.md", page.format(wrong))
        assert problem.startswith("page.md:3: ") and "is not in x" in problem
    (problem,) = problems("page.md", page.format("first 0.931").replace("x -->", "x; y -->"))
    assert problem == "page.md:3: a code block has one command's output: name one record"


def test_the_section_of_a_heading_ends_at_the_next_one() -> None:
    section = source("Installing")
    assert section is not None and section.count("\n## ") == 0 and "`tlkit[heif]`" in section
    parts = re.findall(
        r"^### (.+)$",
        source("2026-11-27: little data, on 2 cores with bfloat16, 24 GB, no GPU") or "",
        re.MULTILINE,
    )
    assert len(parts) > 5


def test_what_a_command_prints_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (records, record):
        monkeypatch.setattr(module, "RECORDED", tmp_path)
    record.main(
        "run", [sys.executable, "-c", "print('accuracy 0.931 in /tmp/x')"], rename=["/tmp/x=runs/pets"]
    )
    text = source("run")
    assert text is not None and text.endswith("\n\naccuracy 0.931 in runs/pets\n")
    assert re.match(r"\$ python.* -c .*\n\d{4}-\d\d-\d\d; 0 s by the clock, .* s of processor time; ", text)
    assert problems("page.md", "<!-- figures: run -->\n\nIts accuracy is 0.931.\n") == []
    with pytest.raises(SystemExit, match="nothing is recorded"):
        record.main("failed", [sys.executable, "-c", "raise SystemExit(3)"])
    assert source("failed") is None


def test_a_run_that_was_made_before_is_recorded_with_its_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (records, record):
        monkeypatch.setattr(module, "RECORDED", tmp_path / "recorded")
    run = RunDescription(
        versions={"tlkit": "0.0.1", "torch": "1.2.3", "timm": "0.4.5"},
        python="3.9.9",
        machine="Linux",
        device="cuda",
        threads=7,
        seed=1,
        command=("/x/tlkit", "fit", "photos"),
        finished=True,
    )
    (tmp_path / "run.json").write_text(run.model_dump_json())
    (tmp_path / "results.json").write_text("{}")
    (tmp_path / "log").write_text("accuracy 0.931\n")
    record.main("old", run_folder=tmp_path, log=tmp_path / "log", seconds=38, note="idle")
    command, where, *_ = (source("old") or "").splitlines()
    assert command == "$ tlkit fit photos"
    assert where.partition("; ")[2] == (
        "38 s by the clock, noted by hand; on cuda, threads: 7; "
        "Python 3.9.9, tlkit 0.0.1, torch 1.2.3, timm 0.4.5; idle"
    )
    with pytest.raises(typer.BadParameter, match="--log needs --run"):
        record.main("old", ["tlkit"], log=tmp_path / "log")
