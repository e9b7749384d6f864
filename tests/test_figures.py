"""The figures in README.md and docs are those of the runs that are recorded in benchmarks."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from benchmarks import figures, record
from benchmarks.figures import NUMBER, ROOT, Block, block_problems, blocks, pages, problems, source


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_the_figures_of_a_page_are_those_of_its_records(page: Path) -> None:
    assert problems(name_of(page), page.read_text(encoding="utf-8")) == []


def changed(text: str) -> list[str]:
    """The text with the last digit of one number changed, for each number of three digits or more."""
    texts = []
    for number in NUMBER.finditer(figures.NOT_MEASURED.sub(lambda match: "_" * len(match[0]), text)):
        digits = sum(character.isdigit() for character in number[0])
        if digits >= 3 and number[0][-1].isdigit():
            digit = str((int(number[0][-1]) + 1) % 10)
            texts.append(text[: number.end() - 1] + digit + text[number.end() :])
    return texts


def test_a_figure_that_is_changed_by_hand_is_found() -> None:
    found, missed = 0, []
    for page in pages():
        for block in blocks(page.read_text(encoding="utf-8")):
            if block.marker is None or block.marker[0] == "no figures":
                continue
            text = "\n".join(block.output) if block.is_code else block.text
            for change in changed(text):
                mutant = Block(block.line, f"```\n{change}\n```" if block.is_code else change, block.marker)
                if block_problems(mutant):
                    found += 1
                else:
                    missed.append(f"{name_of(page)}:{block.line}")
    # in a paragraph, the changed number may be another one of its record
    assert found > 300 and len(missed) < 0.1 * found, missed


def test_a_block_that_looks_measured_needs_a_marker() -> None:
    text = (
        "It has 1,000 photos.\n\nThe accuracy is 0.931.\n\n```toml\nlr = 0.001\n```\n\n```\ntook 38 s\n```\n"
    )
    assert [problem.split(":")[1] for problem in problems("page.md", text)] == ["3", "9"]
    (problem,) = problems("page.md", "<!-- figures: Nowhere -->\n\nThe accuracy is 0.931.\n")
    assert problem == "page.md:3: neither benchmarks/recorded nor RESULTS.md has 'Nowhere'"
    assert problems("page.md", "<!-- no figures: a setting -->\n\nThe rate is 0.001.\n") == []


def test_lines_of_a_code_block_are_the_records_in_its_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        figures, "source", lambda name: "$ tlkit x\n\nfirst 0.931\nsecond 0.932\nthird 0.933\n"
    )
    page = "<!-- figures: x -->\n\n```console\n$ tlkit x\n…\n{}\n```\n"
    assert problems("page.md", page.format("first 0.931\nthird 0.933")) == []
    for wrong in ("third 0.933\nfirst 0.931", "second 0.922"):
        (problem,) = problems("page.md", page.format(wrong))
        assert problem.startswith("page.md:3: ") and "is not in x" in problem


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
    for module in (figures, record):
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
