"""What the console shows in a terminal, in which bars are live, and in a pipe."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from terminals import Terminal, assert_calm, bar_lines

NAME = "measuring every layer of a backbone with a name that is far too long"
NESTED = f"""
import time, warnings
from tlkit.cli.console import json_line, progress, say, table
with progress({NAME!r}, 5000, "images") as outer:
    for step in range(4):
        with progress(f"block {{step}}", 2_000_000_000, "bytes") as inner:
            for _ in range(4):
                inner(500_000_000)
                time.sleep(0.07)
        outer(1250)
        say(f"result {{step}}")
        say(f"log {{step}} [b]" + " word" * 40, stderr=True)
        print(f"printed {{step}}")
        json_line(dict(step=step))
    warnings.warn("strange")
    table("A table", ["name", "text", "number>"], [["layer", "a text of many words " * 8, "1,234"]])
say("done")
"""


def show(code: str, columns: int, **environment: str) -> Terminal:
    """Runs Python code in a terminal until it has ended."""
    terminal = Terminal([sys.executable, "-c", code], columns, environment=environment)
    assert terminal.wait() == 0, "\n".join(terminal.lines())
    return terminal


@pytest.mark.parametrize("columns", [80, 120])
def test_text_goes_above_the_bars_and_tasks_share_one_display(columns: int) -> None:
    terminal = show(NESTED, columns)
    lines = terminal.lines()
    begins = re.compile(r'(result|printed) \d$|log \d \[b\]|{"step": \d}$|A table$')
    expected = [
        text
        for step in range(4)
        for text in (f"result {step}", f"log {step} [b]", f"printed {step}", f'{{"step": {step}}}')
    ]
    assert [match[0] for line in lines if (match := begins.match(line))] == [*expected, "A table"]
    assert lines[-1] == "done", "nothing is left of the bars"
    assert any("UserWarning: strange" in line for line in lines)
    assert not any("━" in line for line in lines)
    for screen in terminal.screens:
        assert_calm(screen, columns, bars=2)
    # the last screen may show a bar half drawn, or full
    pairs = [bars for bars in map(bar_lines, terminal.screens) if len(bars) == 2]
    outer = re.compile(r"measuring every( layer of a backbone)? … ━+[╸╺]━+ +3,750/5,000 .* left$")
    inner = re.compile(r"block \d +━+[╸╺]━+ 1\.5 GB/2\.0 GB +[\d.]+ GB/s 0:00:00 left$")
    assert any(outer.match(first) for first, _ in pairs)
    assert any(inner.match(second) for _, second in pairs)


def test_a_resumed_task_starts_with_what_is_done(tmp_path: Path) -> None:
    """Rate and time left are those of what is done now."""
    code = """
import time
from tlkit.cli.console import progress
with progress("training", 2000, "images", 1000) as tick:
    time.sleep(0.3)
    for _ in range(4):
        tick(25)
        time.sleep(0.25)
"""
    bars = [line for screen in show(code, 80).screens for line in bar_lines(screen)]
    assert next(line for line in bars if "/2,000" in line).endswith("1,000/2,000")
    rate = re.compile(r"1,100/2,000 +(\d+) images/s (\d):(\d\d):(\d\d) left$")
    rates = [match for line in bars if (match := rate.search(line))]
    assert rates and 60 <= int(rates[-1][1]) <= 100, bars
    assert 8 <= int(rates[-1][4]) <= 15
    piped = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert re.fullmatch(r"training: 100 images in 1\.\d s, [67]\d/s\n", piped.stderr)


def test_a_table_fits_the_terminal() -> None:
    cells = ["a_name_without_any_space_that_is_long" * 2, "some words " * 9, "1,234,567", "0.123 – 0.456"]
    code = f"""
from tlkit.cli.console import table
table("A title of so many words that it does not fit a terminal of eighty columns, whatever is done",
      ["one", "two", "three>", "four", "five", "six>"], [{cells!r} + {cells[:2]!r}])
"""
    (screen,) = show(code, 80).screens[-1:]
    assert all(len(line) < 80 for line in screen)
    text = "".join(re.findall(r"[\w,]", " ".join(screen)))
    assert "1,234,567" in text
    assert "eighty columns" in " ".join(" ".join(screen).split())


def test_only_the_terminal_gets_bars(tmp_path: Path) -> None:
    """Results that go to a file are not mixed with what the terminal shows."""
    out = tmp_path / "out.txt"
    code = """
import time
from tlkit.cli.console import progress, say
with progress("counting", 10, "images") as tick:
    for step in range(10):
        tick(1)
        say(f"result {step}")
        print("printed")
        say(f"log {step}", stderr=True)
        time.sleep(0.03)
"""
    terminal = Terminal(["sh", "-c", f'"$0" -c "$1" > {out}', sys.executable, code], 80)
    assert terminal.wait() == 0
    assert out.read_text() == "".join(f"result {step}\nprinted\n" for step in range(10))
    assert terminal.lines() == [f"log {step}" for step in range(10)]
    assert any(bar_lines(screen) for screen in terminal.screens)
    # a terminal that cannot move its cursor
    assert not any(bar_lines(screen) for screen in show(code, 80, TERM="dumb").screens)
