"""The command line as users see it: real processes, exit codes, messages, speed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import processes
import pytest
from commands import command
from installing import install
from processes import Started

import tlkit as tlkit_package

TLKIT = [str(Path(sys.executable).with_name("tlkit"))]
Command = Callable[..., "subprocess.CompletedProcess[str]"]

RECIPE = """
name = "few"
data = {{ source = "catsdogs", root = "{photos}", per_class = {{ train = 8, val = 3, test = 4 }} }}
backbone = {{ name = "test_resnet", weights = "none" }}
preprocess = {{ size = 32 }}
training = {{ epochs = 1, precision = "float32" }}

[[phase]]
name = "bottleneck"
"""


@pytest.fixture
def tlkit(tmp_path: Path, few_photos: Path) -> Command:
    """Runs tlkit in a folder that holds ``recipe.toml``; its output is text."""
    (tmp_path / "recipe.toml").write_text(RECIPE.format(photos=few_photos))

    def run(*arguments: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, **({"PYTHONPATH": str(path)} if path else {})}
        return subprocess.run(
            [*TLKIT, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True
        )

    return run


@pytest.fixture
def here(tlkit: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """That folder, for commands in this process: a new one takes seconds to load torch."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_run_shows_plan_progress_table_and_report(tlkit: Command, tmp_path: Path, here: Path) -> None:
    ended = tlkit("run", ".", "--out", "out")
    assert ended.returncode == 0, ended.stderr
    lines = ended.stdout.splitlines()
    assert lines[-1] == "out/report.html"
    assert lines[0].startswith("few: cat, dog; images: 16 train, 6 val, 8 test")
    assert "  trainable  194 in the head" in lines
    assert "  frozen     372,688" in lines
    assert any(
        re.match(r"bottleneck will train for about .* with cached features \(", line) for line in lines
    )
    assert "bottleneck 1/1: loss" in ended.stderr
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    test = results["phases"][0]["test"]
    interval = "{:.3f}–{:.3f}".format(*test["ci95"])
    (row,) = (line for line in lines if line.strip().startswith("bottleneck ") and interval in line)
    assert f"{test['accuracy']:.3f}" in row
    assert "Accuracy on 8 test images" in lines
    assert "Baselines: 0.500 by chance, 0.500 by always predicting cat." in lines
    assert "\x1b[" not in ended.stdout + ended.stderr  # a pipe gets plain lines
    again = command("run", ".", "--out", "out")
    assert again.returncode == 0
    assert again.stdout.splitlines()[-1] == "out/report.html"
    assert row in again.stdout.splitlines()


def test_runs_are_numbered(here: Path) -> None:
    assert command("run", "recipe.toml", "--no-report").stdout.splitlines()[-1] == "runs/few/1"
    assert command("run", "recipe.toml", "--no-report").stdout.splitlines()[-1] == "runs/few/2"


def test_a_plan_writes_no_folder(here: Path) -> None:
    ended = command("run", ".", "--plan", "--set", "phase.bottleneck.freeze=nothing")
    assert ended.returncode == 0
    assert "  cached     nothing: all parameters are trainable" in ended.stdout.splitlines()
    assert re.search(r"^bottleneck will train for about .* read anew each epoch$", ended.stdout, re.MULTILINE)
    assert not (here / "runs").exists()


def test_a_plan_warns_of_a_head_that_nothing_trains(here: Path) -> None:
    warning = "nothing trains the head"
    assert warning not in command("run", ".", "--plan").stdout
    assert warning in command("run", ".", "--plan", "--set", "training.epochs=0").stdout


def test_classes_with_few_images_are_warned_of_by_name(here: Path) -> None:
    warning = "  - class dog has 4 training images and 1 test image"
    few = command("run", ".", "--plan", "--set", "data.per_class={train=4, val=3, test=1}")
    assert warning in few.stderr.splitlines()
    assert "fewer than 5 training images are too few to learn a class" in few.stderr
    assert "training images" not in command("run", ".", "--plan").stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "nowhere.toml"], "nowhere.toml"),
        (["run", ".", "--set", "training.epochz=3"], "training.epochz: is unknown (did you mean 'epochs'?)"),
        (["run", ".", "--set", "backbone.name=resnet19"], "did you mean 'resnet18'"),
        (["run", ".", "--set", "training.epochs=three"], "training.epochs: must be a whole number"),
        (["run", ".", "--set", "data.root=elsewhere"], "elsewhere"),
        (["run", ".", "--phase", "bottlneck"], "did you mean 'bottleneck'"),
        (["run", ".", "--device", "warp"], "warp"),
        (["run", ".", "--out", "/sys/tlkit"], "cannot be written"),
        (["run", ".", "--set", "backbone.name=photos"], "write local-dir:"),
        (["plugins", "show", "liner"], "did you mean 'linear'"),
        (["plugins", "show", "adamw"], "recipes name it in training.optimizer"),
        (["cache", "prune", "--limit", "lots"], "is not a size"),
    ],
)
def test_a_users_mistake_exits_with_2_and_says_what_to_do(
    arguments: list[str], message: str, here: Path
) -> None:
    ended = command(*arguments)
    assert ended.returncode == 2
    assert message in ended.stderr
    assert "Traceback" not in ended.stderr


def test_debug_shows_the_traceback() -> None:
    assert "Traceback" in Started(processes.tlkit, "run", "nowhere.toml", "--debug").wait().stderr


def run_on_a_full_disk(limit: int, *arguments: object) -> None:
    """Runs a command whose files may grow to `limit` bytes."""
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    sys.dont_write_bytecode = True  # it must not be cut short: later runs of the tests would read it
    processes.tlkit(*arguments)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limits of a process's files")
def test_a_full_disk_is_reported_and_loses_nothing(cache: Path, here: Path) -> None:
    # the recipe fits, the features in front of the last block do not
    line = ("run", ".", "--out", "out", "--no-report", "--set", "phase.bottleneck.freeze=all-but-last-blocks")
    ended = Started(run_on_a_full_disk, 10_000, *line).wait()
    assert ended.returncode == 2
    assert "features cannot be written" in ended.stderr
    assert "features.cache=false" in ended.stderr
    assert not list(cache.rglob("*.unfinished"))
    assert command(*line).returncode == 0


def test_a_plugin_that_raises_at_import_is_named_and_the_rest_works(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(install(here / "site", "brokenplugin", "raise RuntimeError('no such luck')"))
    listed = command("plugins", "list")
    assert listed.returncode == 0
    assert re.search(r"brokenplugin.*broken.*no such luck", listed.stdout)
    failed = command("run", ".", "--set", "head.name=from-brokenplugin")
    assert failed.returncode == 2
    assert "brokenplugin" in failed.stderr
    assert command("run", ".", "--plan").returncode == 0


def import_seconds(modules: str) -> float:
    """Returns the processor time of a process that imports something, the least of three."""
    seconds = []
    for _ in range(3):
        before = os.times()
        subprocess.run([sys.executable, "-c", f"import {modules}"], check=True)
        after = os.times()
        seconds.append(sum(after[2:4]) - sum(before[2:4]))
    return min(seconds)


def test_help_is_fast_whatever_plugins_import(tlkit: Command, tmp_path: Path) -> None:
    path = install(tmp_path / "site", "slowplugin", "import torch, time\ntime.sleep(5)")
    install(path, "slowcommand", "import torch, time\ntime.sleep(5)", group="tlkit.commands")
    seconds, waiting = [], []
    while len(seconds) < 3 or (min(seconds) >= 0.5 and len(seconds) < 10):
        began, before = time.perf_counter(), os.times()
        assert tlkit("--help", path=path).returncode == 0
        after = os.times()
        # of its own: other tests run beside this one
        seconds.append(sum(after[2:4]) - sum(before[2:4]))
        waiting.append(time.perf_counter() - began)
    # on a machine that is slow today, Typer and rich alone take long, too
    assert min(seconds) < max(0.5, 3 * import_seconds("typer, rich.console, pydantic"))
    assert min(waiting) < 4, "a plugin's five seconds are not waited for"


def test_a_shell_completes_commands() -> None:
    environment = {
        **os.environ,
        "_TLKIT_COMPLETE": "complete_bash",
        "COMP_WORDS": "tlkit ev",
        "COMP_CWORD": "1",
    }
    ended = subprocess.run(TLKIT, env=environment, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout.split()) == (0, ["evaluate"])


def test_a_plugins_command_has_a_heading_of_its_own(tlkit: Command, tmp_path: Path) -> None:
    """It is loaded only when it is asked for."""
    code = "import typer\napp = typer.Typer()\n@app.command()\ndef hello(): print('hello')\n"
    points = {
        "greeter": "greeter:app",
        "gone": "greeter:nothing",
        "text": "greeter:__name__",
        "run": "greeter:app",
    }
    path = install(tmp_path / "site", "greeter", code, "tlkit.commands", points=points, summary="Says hello.")
    shown = tlkit("--help", path=path)
    assert re.search(r"Commands of plugins.*greeter +Says hello\.", shown.stdout, re.DOTALL)
    assert "greeter's command 'run' is left out: tlkit has a command of that name" in shown.stderr
    assert tlkit("greeter", "hello", path=path).stdout == "hello\n"
    for name, message in (
        ("gone", "could not be loaded: AttributeError: "),
        ("text", "must be a typer.Typer, not"),
    ):
        ended = tlkit(name, path=path)
        assert (ended.returncode, message in ended.stderr) == (2, True), ended.stderr
    assert tlkit("--version", path=path).returncode == 0


def test_blocks_of_vgg16() -> None:
    shown = command("plugins", "blocks", "vgg16", "--features", "map").stdout
    assert "14,714,688 parameters" in shown
    (last,) = (line for line in shown.splitlines() if line.strip().startswith("5 "))
    assert "7,079,424" in last
    assert "features.24.weight … features.28.bias" in last


def test_blocks_are_those_of_the_plan(here: Path) -> None:
    """Without options, features are pooled in both."""
    freeze = 'phase.bottleneck.freeze={name="all-but-last-blocks",blocks=1}'
    plan = command("run", ".", "--plan", "--set", "backbone.name=mobilenetv2_050", "--set", freeze).stdout
    (last,) = (
        line.split()
        for line in command("plugins", "blocks", "mobilenetv2_050").stdout.splitlines()
        if line.strip().startswith("5 ")
    )
    assert f"{last[2]} in 1 of 5 blocks" in plan
    assert last[1] == "blocks.5–6"
    assert "frontier   in front of blocks.5" in plan, "where the block begins"


def test_the_cache_is_listed_and_cleared(here: Path) -> None:
    assert command("run", ".", "--out", "out", "--no-report").returncode == 0
    assert re.search(
        r"^1 in .*features: [\d.]+ kB of 20\.0 GB$", command("cache", "list").stdout, re.MULTILINE
    )
    assert "hashes of images, in " in command("cache", "list").stdout
    assert "freed 0 B" in command("cache", "prune").stdout
    assert re.search(r"freed [\d.]+ kB", command("cache", "clear").stdout)
    listed = command("cache", "list").stdout
    assert listed.startswith("0 in ")
    assert len(listed.splitlines()) == 1, "folders with nothing but their mark are not listed"
    (tlkit_package.cache_folder() / "of-a-plugin").write_bytes(b"12345")
    assert "of-a-plugin, which a plugin stores, in " in command("cache", "list").stdout
    assert "of-a-plugin: a plugin's" in command("cache", "clear").stdout
    assert (tlkit_package.cache_folder() / "of-a-plugin").exists()


def test_two_processes_share_the_work_and_agree(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """accelerate starts both on the CPU; only the main process calls event hooks, and both stop."""
    code = """
import tlkit
@tlkit.hookimpl
def tlkit_epoch_ended(run, epoch):
    with (run.folder.parent / f"{run.folder.name}.txt").open("a") as file:
        file.write(f"{epoch}\\n")
    if epoch == 2:
        run.stop_phase("enough")
"""
    path = install(here / "site", "stopper", code)
    launch = [str(Path(sys.executable).with_name("accelerate")), "launch", "--cpu", "--num_processes", "2"]
    launch += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "-m", "tlkit"]
    options = ["--set", "training.epochs=3", "--set", "phase.bottleneck.freeze=all-but-last-blocks"]
    line = [*launch, "run", ".", "--out", "two", "--no-report", *options]
    environment = {**os.environ, "PYTHONPATH": str(path)}
    ended = subprocess.run(line, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[-1] == "two"
    assert ended.stdout.count("Accuracy on 8 test images") == 1
    together = json.loads((here / "two" / "results.json").read_text())["phases"][0]
    assert (here / "two.txt").read_text() == "1\n2\n"
    assert (together["stopped"], together["epochs"]) == ("enough", 2)
    assert (together["features"]["computed"], together["features"]["reused"]) == (22, 0)
    monkeypatch.syspath_prepend(path)
    alone = command("run", ".", "--out", "one", "--no-report", *options)
    assert alone.returncode == 0, alone.stderr
    single = json.loads((here / "one" / "results.json").read_text())["phases"][0]
    assert (single["features"]["computed"], single["features"]["reused"]) == (0, 22)
    # the same batches, their gradients averaged: the same network but for rounding
    assert single["val"]["log_loss"] == pytest.approx(together["val"]["log_loss"], rel=1e-3)
