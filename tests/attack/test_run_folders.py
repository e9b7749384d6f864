"""A run folder between processes that are killed, started twice, or have no room: no wrong result, ever."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from contextlib import AbstractContextManager
from pathlib import Path

import processes
import pytest
from commands import command
from processes import Started, execute
from small_runs import Runner, predictions, without, write_recipe

import tlkit
from tlkit.errors import DataError, RecipeError, RunFolderError
from tlkit.experiment.observer import Tick
from tlkit.experiment.results import Results

#: What every test here runs: two phases of two epochs, on few photos.
OVERRIDES = ("training.epochs=2", "preprocess.size=32")
#: Counts a process's renames, removals and syncs, and kills it in front of one of them.
KILLER = """
import os, signal, sys
remaining = int(sys.argv[1])
def before(event, args):
    global remaining
    if event in ("os.rename", "os.remove", "os.mkdir", "shutil.rmtree") or (
        event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+")
    ):
        if {out!r} in str(args[0]):
            remaining -= 1
            if remaining == 0:
                os.kill(os.getpid(), signal.SIGKILL)
import tlkit
sys.addaudithook(before)
tlkit.run({recipe!r}, out={out!r}, overrides={overrides!r})
"""


@pytest.fixture
def recipe(few_photos: Path, tmp_path: Path) -> Path:
    return write_recipe(tmp_path / "recipe.toml", few_photos)


def assert_complete(folder: Path, expected: Results) -> None:
    """Checks that a run folder holds the same results as one whose run nobody disturbed."""
    results = Results.model_validate_json((folder / "results.json").read_text())
    assert without(results, "seconds", "features") == without(expected, "seconds", "features")
    assert results.goal_met is not None
    assert json.loads((folder / "run.json").read_text())["finished"]
    for phase in results.phases:
        tlkit.load(folder, phase=phase.name)
    assert not list(folder.rglob("*.unfinished"))


def kill_before(operation: int, recipe: Path, out: Path) -> bool:
    """Runs the recipe in a process that is killed before its n-th file operation; False if it ended first."""
    program = KILLER.format(recipe=str(recipe), out=str(out), overrides=OVERRIDES)
    completed = Started(execute, program, operation).wait()
    assert completed.returncode in (0, -signal.SIGKILL), completed.stderr
    return completed.returncode != 0


def assert_goes_on_after_kills(operations: list[int], recipe: Path, tmp_path: Path) -> int:
    expected = tlkit.run(recipe, out=tmp_path / "undisturbed", overrides=OVERRIDES).results
    kills = 0
    for operation in operations:
        out = tmp_path / f"killed-{operation}"
        if not kill_before(operation, recipe, out):
            break
        kills += 1
        tlkit.run(recipe, out=out, overrides=OVERRIDES)
        assert_complete(out, expected)
    return kills


def test_killed_before_some_of_its_file_operations(recipe: Path, tmp_path: Path) -> None:
    """The first ones, before recipe.toml is there, once left a folder that was refused for good."""
    assert assert_goes_on_after_kills([3, 23, 40], recipe, tmp_path) == 3


@pytest.mark.slow
def test_killed_before_each_of_its_file_operations(recipe: Path, tmp_path: Path) -> None:
    kills = assert_goes_on_after_kills(list(range(1, 1000)), recipe, tmp_path)
    print(f"{kills} kills")  # noqa: T201
    assert kills > 40


@pytest.mark.slow
def test_killed_at_random_moments(recipe: Path, tmp_path: Path) -> None:
    expected = tlkit.run(recipe, out=tmp_path / "undisturbed", overrides=OVERRIDES).results
    chance = random.Random(1)
    program = f"import sys, tlkit; tlkit.run({str(recipe)!r}, out=sys.argv[1], overrides={OVERRIDES!r})"
    for number in range(100):
        out = tmp_path / f"killed-{number}"
        started = Started(execute, program, out)
        started.process.join(chance.uniform(0.5, 3))
        started.process.kill()
        started.wait()
        tlkit.run(recipe, out=out, overrides=OVERRIDES)
        assert_complete(out, expected)


def start(recipe: Path, *arguments: str, cwd: Path) -> Started:
    overrides = [part for override in OVERRIDES for part in ("--set", override)]
    return Started(processes.tlkit, "run", recipe, "--no-report", *overrides, *arguments, folder=cwd)


def test_the_same_command_twice(recipe: Path, tmp_path: Path) -> None:
    """It once ended with exit 0 and a wrong results.json in 8 of 16 rounds."""
    both = [start(recipe, "--out", "same", cwd=tmp_path) for _ in range(2)]
    ended = sorted((started.wait() for started in both), key=lambda completed: completed.returncode)
    assert [completed.returncode for completed in ended] in ([0, 2], [0, 0]), ended
    if ended[1].returncode:
        assert "in use by another tlkit" in ended[1].stderr
    expected = tlkit.run(recipe, out=tmp_path / "undisturbed", overrides=OVERRIDES).results
    assert_complete(tmp_path / "same", expected)


def test_unnamed_folders_are_not_shared(recipe: Path, tmp_path: Path) -> None:
    """Three processes once shared runs/small/1."""
    for started in [start(recipe, cwd=tmp_path) for _ in range(3)]:
        ended = started.wait()
        assert ended.returncode == 0, ended.stderr
    folders = sorted((tmp_path / "runs" / "few").iterdir())
    assert len(folders) == 3
    expected = Results.model_validate_json((folders[0] / "results.json").read_text())
    for folder in folders:
        assert_complete(folder, expected)


def test_a_folder_in_use_is_refused_and_left_as_it_is(run: Runner, tmp_path: Path) -> None:
    from filelock import FileLock

    first = run(out=tmp_path / "out", overrides={"training.epochs": 1})
    (tmp_path / "out" / "run.json").unlink()  # unfinished again
    written = (tmp_path / "out" / "results.json").read_bytes()
    with FileLock(tmp_path / "out" / ".lock"), pytest.raises(RunFolderError, match="in use by another"):
        run(out=tmp_path / "out", overrides={"training.epochs": 1})
    assert (tmp_path / "out" / "results.json").read_bytes() == written
    assert run(out=tmp_path / "out", overrides={"training.epochs": 1}).results.phases == first.results.phases


def test_a_mistake_leaves_no_folder(run: Runner, tmp_path: Path) -> None:
    with pytest.raises(RecipeError):
        run(out=tmp_path / "a" / "b", overrides={"training.epochs": -1})
    assert not (tmp_path / "a").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    with pytest.raises(RunFolderError, match="holds no run"):
        run(out=tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_a_run_leaves_the_callers_random_state(run: Runner) -> None:
    import torch

    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    run(overrides={"training.epochs": 1})
    assert torch.equal(torch.rand(3), expected)


def test_a_recipe_that_was_read_takes_no_overrides(recipe: Path) -> None:
    """They were once ignored."""
    read = tlkit.read_recipe(recipe)
    for function in (tlkit.run, tlkit.fetch):
        with pytest.raises(RecipeError, match="was read already"):
            function(read, overrides={"seed": 2})


def test_images_that_change_while_a_run_reads_them(run: Runner, few_photos: Path, tmp_path: Path) -> None:
    """They were once filed under the old hash; a later run on the sound images used their features."""

    class Swapper(tlkit.Observer):
        def progress(self, task: str, total: int, unit: str, done: int = 0) -> AbstractContextManager[Tick]:
            if task == "frozen pass":
                (few_photos / "cat.1.jpg").write_bytes((few_photos / "dog.1.jpg").read_bytes())
            return super().progress(task, total, unit, done)

    original = (few_photos / "cat.1.jpg").read_bytes()
    every = {"data.per_class": {"train": 9, "val": 3, "test": 3}, "training.epochs": 1}
    with pytest.raises(DataError, match=r"cat\.1\.jpg is not the file that it was when the run began"):
        run(out=tmp_path / "out", overrides=every, observer=Swapper())
    (few_photos / "cat.1.jpg").write_bytes(original)
    resumed = run(out=tmp_path / "out", overrides=every)
    undisturbed = run(out=tmp_path / "other", overrides={**every, "features.cache": False})
    assert predictions(resumed, "fine-tune") == predictions(undisturbed, "fine-tune")


def test_a_phase_that_is_named_twice_runs_once(run: Runner) -> None:
    finished = run(phases=["bottleneck", "bottleneck"], overrides={"training.epochs": 1})
    assert [phase.name for phase in finished.results.phases] == ["bottleneck"]


def test_fit_without_epochs(by_class: Path, tmp_path: Path) -> None:
    """It once trained for up to 50."""
    with pytest.raises(RecipeError, match="must be at least 1"):
        tlkit.fit(by_class, backbone="vgg16-quarter", epochs=0, out=tmp_path / "out")


def test_ctrl_c_says_how_to_go_on(recipe: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tlkit", "run", str(recipe), "--no-report", "--out", "out"]
    process = subprocess.Popen(
        [*command, "--set", "training.epochs=2000", "--set", "preprocess.size=32"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 300
    log = tmp_path / "out" / "log.jsonl"
    while not (log.is_file() and '"epoch"' in log.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=300)
    assert process.returncode == 130
    assert "interrupted: start the same command again with --out out to go on" in error


@pytest.mark.slow
def test_six_processes_beside_clear_and_prune(recipe: Path, tmp_path: Path) -> None:
    """On one empty store: none fails, all agree, and each feature is computed once."""
    six = [start(recipe, "--out", f"run-{number}", cwd=tmp_path) for number in range(6)]
    removals = 0
    while any(started.process.is_alive() for started in six):
        for arguments in (("cache", "clear"), ("cache", "prune", "--limit", "1kB")):
            removed = command(*arguments)
            assert removed.returncode == 0, removed.stderr
            removals += 1
    for started in six:
        ended = started.wait()
        assert ended.returncode == 0, ended.stderr
    runs = [
        Results.model_validate_json((tmp_path / f"run-{n}" / "results.json").read_text()) for n in range(6)
    ]
    for number, results in enumerate(runs):
        assert_complete(tmp_path / f"run-{number}", runs[0])
        assert sum(phase.features.computed for phase in results.phases) in (0, 22)
    print(f"{removals} removals")  # noqa: T201


def test_results_that_cannot_be_written(run: Runner, tmp_path: Path) -> None:
    run(out=tmp_path / "out", overrides={"training.epochs": 1}, phases=["bottleneck"])
    target = tmp_path / "out" / "phases" / "fine-tune"
    target.mkdir()
    (target / "predictions.csv").mkdir()
    (target / "predictions.csv" / "in the way").touch()
    with pytest.raises(RunFolderError, match=r"predictions\.csv cannot be written.*finished phases are kept"):
        run(out=tmp_path / "out", overrides={"training.epochs": 1})
    evaluated = command("evaluate", tmp_path / "out", tmp_path / "photos")
    assert "Traceback" not in evaluated.stderr
