"""A run in a terminal, as its user sees it: calm, interrupted by Ctrl-C, and resumed."""

from __future__ import annotations

import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from installing import install
from terminals import Terminal, assert_calm, bar_lines

RECIPE = """
name = "few"
goal = 0.5
data = {{ source = "folder", root = "{images}", per_class = {{ train = 16, val = 8, test = 16 }} }}
backbone = {{ name = "local-dir:{weights}" }}
preprocess = {{ size = 64 }}
training = {{ epochs = 3, batch_size = 8, precision = "float32" }}

[[phase]]
name = "bottleneck"

[[phase]]
name = "fine-tune"
start_from = "bottleneck"
freeze = {{ name = "all-but-last-blocks", blocks = 1 }}
epochs = 5
"""
#: Saves a checkpoint after each epoch, lets epochs last long enough to be seen, and waits for Ctrl-C.
SLOW = """
import os, time
import tlkit
from tlkit.training import loop
loop.SAVE_EVERY = 0.0

@tlkit.hookimpl
def tlkit_epoch_ended(phase, epoch):
    print(f"printed by a plugin after {phase.name} {epoch}")
    time.sleep(60 if "STALL" in os.environ and (phase.name, epoch) == ("fine-tune", 3) else 0.12)
"""
OUT = "runs/with space"


@dataclass
class Runs:
    """A run that Ctrl-C ended, and the one that went on."""

    interrupted: Terminal
    resumed: Terminal


@pytest.fixture(scope="module")
def runs(weights: Path, by_class: Path, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    folder = tmp_path_factory.mktemp("terminal")
    (folder / "recipe.toml").write_text(RECIPE.format(images=by_class, weights=weights))
    site = str(install(folder / "site", "slow", SLOW))
    command = [
        str(Path(sys.executable).with_name("tlkit")),
        "run",
        "recipe.toml",
        "--out",
        OUT,
        "--no-report",
    ]
    environment = {"PYTHONPATH": site, "TLKIT_CACHE": str(folder / "cache")}
    interrupted = Terminal(command, 80, folder=folder, environment={**environment, "STALL": "1"})
    interrupted.wait_for("printed by a plugin after fine-tune 3")
    for _ in range(2):  # impatient
        interrupted.press("\x03")
        time.sleep(0.05)
    assert interrupted.wait() == 130, "\n".join(interrupted.lines())
    resumed = Terminal(command, 120, folder=folder, environment=environment)
    assert resumed.wait() == 0, "\n".join(resumed.lines())
    return Runs(interrupted, resumed)


def test_every_screen_has_one_bar_at_the_bottom(runs: Runs) -> None:
    for terminal, columns in ((runs.interrupted, 80), (runs.resumed, 120)):
        tasks = set()
        for screen in terminal.screens:
            assert_calm(screen, columns)
            for line in bar_lines(screen):
                assert not re.search("loss|accuracy|printed|interrupted", line)
                tasks.add(line.split(" ━")[0])
        assert "training fine-tune" in tasks
        assert not bar_lines(terminal.lines()), "no bar is left"


def test_epochs_and_results_stay_in_order(runs: Runs) -> None:
    shown = re.compile(r"((?:printed by a plugin after )?(?:bottleneck|fine-tune) \d)(?:/\d: loss .* s)?$")
    lines = [match[1] for line in runs.interrupted.lines() if (match := shown.match(line))]
    epochs = [*(f"bottleneck {epoch}" for epoch in (1, 2, 3)), *(f"fine-tune {epoch}" for epoch in (1, 2, 3))]
    assert lines == [line for epoch in epochs for line in (epoch, f"printed by a plugin after {epoch}")]
    lines = runs.resumed.lines()
    assert sum(line.startswith("fine-tune: ") and line.endswith(" on 32 test images") for line in lines) == 1
    assert lines[-1] == OUT


def test_a_plan_is_wrapped_at_words(runs: Runs) -> None:
    lines = runs.interrupted.lines()
    begin = next(index for index, line in enumerate(lines) if line.startswith("bottleneck will train"))
    assert lines[begin + 1].startswith("  ")
    assert " ".join(map(str.strip, lines[begin : begin + 2])).endswith(" with images read anew each epoch")


def test_ctrl_c_says_how_to_go_on(runs: Runs) -> None:
    lines = runs.interrupted.lines()
    assert not any("Traceback" in line for line in lines)
    begin = next(index for index, line in enumerate(lines) if line.startswith("interrupted"))
    assert " ".join(map(str.strip, lines[begin : begin + 2])) == (
        f"interrupted: start the same command again with --out '{OUT}' to go on; finished phases are kept"
    )


def test_the_second_run_goes_on_and_its_bar_shows_what_is_done(runs: Runs) -> None:
    lines = runs.resumed.lines()
    assert f"{OUT} resumes: phase bottleneck is finished; fine-tune at epoch 4 of 5" in lines
    epochs = [line.split(":")[0] for line in lines if ": loss " in line]
    assert epochs == [f"fine-tune {epoch}/5" for epoch in (4, 5)]
    bars = [line for screen in runs.resumed.screens for line in bar_lines(screen) if "training" in line]
    first = next(line for line in bars if "/160" in line)
    assert re.search(r" 96/160$", first), first
    assert re.search(r"images/s 0:00:\d\d left$", bars[-1])
