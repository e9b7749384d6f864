"""Installs and uses every example in the documents for plugin authors."""

from __future__ import annotations

import ast
import csv
import inspect
import json
import re
import shlex
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import fields
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import installing
import pytest
from commands import command

import tlkit
from tlkit.experiment.results import PhaseResult
from tlkit.plugins import hookspecs
from tlkit.plugins.loader import load_registry
from tlkit.plugins.registry import HOOKS
from tlkit.testing import CHECKS, results
from tlkit.training.history import EpochMetrics

DOCS = Path(__file__).parents[1] / "docs"
KIND_OF = {hook: kind for kind, hook in HOOKS.items()}
SPECS = {name: spec for name, spec in vars(hookspecs).items() if name.startswith("tlkit_")}
EVENTS = [name for name in SPECS if name not in KIND_OF]
Install = Callable[..., Path]


def code(page: str, language: str = "python", index: int = 0) -> str:
    """The page's first block of that language, or a later one."""
    blocks = re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) > index, f"{page} has {len(blocks)} {language} blocks"
    return str(blocks[index])


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Installs a module as a distribution with one entry point."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(site)
    written = []

    def write(module: str, source: str, *, group: str = "tlkit", name: str | None = None) -> Path:
        written.append(module)
        point = module if group == "tlkit" else f"{module}:app"
        return installing.install(site, module, source, group, points={name or module: point})

    yield write
    for module in written:
        sys.modules.pop(module, None)


@pytest.fixture
def recipe(few_photos: Path, tmp_path: Path) -> Path:
    """A small experiment of two phases; its goal is met in any epoch."""
    path = tmp_path / "recipe.toml"
    path.write_text(
        f"""
name = "few"
goal = 0.01
data = {{ source = "catsdogs", root = "{few_photos}", per_class = {{ train = 4, val = 2, test = 2 }} }}
backbone = {{ name = "test_resnet", weights = "none" }}
preprocess = {{ size = 32 }}
training = {{ epochs = 3, precision = "float32" }}

[[phase]]
name = "bottleneck"

[[phase]]
name = "fine-tune"
start_from = "bottleneck"
freeze = {{ name = "all-but-last-blocks", blocks = 1 }}
"""
    )
    return path


@pytest.mark.parametrize("hook", SPECS)
def test_every_hook_has_a_page_whose_example_has_its_arguments(hook: str, install: Install) -> None:
    spec = list(inspect.signature(SPECS[hook]).parameters)
    heading = (DOCS / "hooks" / f"{hook}.md").read_text(encoding="utf-8").splitlines()[0]
    assert heading == f"# `{hook}({', '.join(spec)})`"
    install("example", code(f"hooks/{hook}.md"))
    (state,) = (state for state in load_registry().plugins if state.name == "example")
    assert state.state == "loaded", state.reason
    implemented = getattr(sys.modules["example"], hook)
    assert list(inspect.signature(implemented).parameters) == spec


def public_imports(source: str) -> list[str]:
    """Modules of tlkit that an example imports, besides its public names."""
    nodes = list(ast.walk(ast.parse(source)))
    modules = [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    modules += [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    return [module for module in modules if module.startswith("tlkit.")]


@pytest.mark.parametrize(
    "page", [*(f"hooks/{hook}.md" for hook in SPECS), "tutorial.md", "python.md", "scikit-learn.md"]
)
def test_examples_import_public_names_only(page: str) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)
    assert blocks and not [module for block in blocks for module in public_imports(block)]


def test_the_tables_of_the_events_name_all_attributes() -> None:
    def attributes(event: str, value: str) -> set[str]:
        page = (DOCS / "hooks" / f"{event}.md").read_text(encoding="utf-8")
        cells = re.findall(r"^\| ([^|]+) \|", page, re.MULTILINE)
        return {name for cell in cells for name in re.findall(rf"`{value}\.(\w+)", cell)}

    assert attributes("tlkit_epoch_ended", "metrics") == {field.name for field in fields(EpochMetrics)}
    assert attributes("tlkit_phase_ended", "result") == {*PhaseResult.model_fields} - {"name"}
    run = {field.name for field in fields(tlkit.Run)} - {"stopping"}
    assert attributes("tlkit_run_started", "run") == run | {"stop_phase"}


@pytest.mark.parametrize("hook", KIND_OF)
def test_the_part_of_a_hooks_page_keeps_the_contract(hook: str, install: Install, few_photos: Path) -> None:
    install("example", code(f"hooks/{hook}.md"))
    registry = load_registry()
    ((kind, name),) = next(state.parts for state in registry.plugins if state.name == "example")
    assert kind == KIND_OF[hook]
    root = few_photos if kind == "source" else None
    done = list(results(kind, name, registry=registry, root=root))
    assert not [result for result in done if result.outcome == "failed"]
    commands = code(f"hooks/{hook}.md", "console").splitlines()
    assert commands[0].startswith(f"$ tlkit plugins check {name}")


def test_the_head_that_fits_itself(install: Install, recipe: Path, tmp_path: Path) -> None:
    install("example", code("hooks/tlkit_heads.md", index=1))
    registry = load_registry()
    outcomes = {result.check: result.outcome for result in results("head", "centroid", registry=registry)}
    assert "failed" not in outcomes.values()
    assert outcomes["fits itself"] == outcomes["its fitted state can be loaded"] == "passed"
    run = tlkit.run(recipe, overrides={"head": {"name": "centroid"}}, out=tmp_path / "run", registry=registry)
    fitted, tuned = run.results.phases
    assert (fitted.epochs, tuned.epochs) == (0, 3)
    assert tlkit.load(run.folder, phase="bottleneck").classes == ("cat", "dog")


@pytest.fixture
def room() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A chat room's incoming webhook: its address, and the messages that were posted to it."""
    messages: list[dict[str, Any]] = []

    class Room(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            messages.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Room)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", messages
    server.shutdown()
    server.server_close()


def test_the_examples_of_the_events(
    install: Install,
    recipe: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    room: tuple[str, list[dict[str, Any]]],
) -> None:
    for event in EVENTS:
        install(f"example_{event}", code(f"hooks/{event}.md"))
    address, messages = room
    monkeypatch.setenv("TLKIT_WEBHOOK", address)
    run = tlkit.run(recipe, out=tmp_path / "runs" / "one")
    phases = run.results.phases

    (line,) = (tmp_path / "runs" / "all-runs.jsonl").read_text().splitlines()
    started = json.loads(line)
    assert (started["folder"], started["recipe"], started["device"]) == ("one", "few", "cpu")
    assert started["images"]["train"] == 8
    assert started["trainable"]["fine-tune"] > started["trainable"]["bottleneck"] > 0

    assert (run.folder / "status.txt").read_text() == "fine-tune, 2 of 2: up to 3 epochs\n"

    for phase in phases:
        history = (run.folder / "phases" / phase.name / "history.csv").read_text().splitlines()
        assert len(history) == 2, "the goal was met in the first epoch"
        assert re.fullmatch(r"validation accuracy [\d.]+ meets the goal", phase.stopped or "")

    with (tmp_path / "runs" / "all-phases.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["phase"] for row in rows] == ["bottleneck", "fine-tune"]
    assert [float(row["accuracy"]) for row in rows] == [phase.test.accuracy for phase in phases]

    (message,) = messages
    assert message["text"].splitlines()[0] == f"few is done: {run.folder}"
    assert f"fine-tune: {phases[1].test.accuracy:.3f} (" in message["text"]


def test_an_event_that_raises_is_reported_and_stops_nothing(
    install: Install, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TLKIT_WEBHOOK", raising=False)
    install("example", code("hooks/tlkit_run_ended.md"))
    ended = command("run", recipe, "--out", tmp_path / "out", "--no-report")
    assert ended.returncode == 0, ended.stderr
    assert "example: KeyError: 'TLKIT_WEBHOOK'" in ended.stderr
    log = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    (failed,) = (line for line in log if line["event"] == "plugin_failed")
    assert failed["hook"] == "tlkit_run_ended"
    assert len(json.loads((tmp_path / "out" / "results.json").read_text())["phases"]) == 2


def test_the_example_of_a_command(install: Install, recipe: Path, few_photos: Path, tmp_path: Path) -> None:
    run = tlkit.run(recipe, out=tmp_path / "out")
    site = install("tlkit_inspect", code("commands-of-plugins.md"), group="tlkit.commands", name="inspect")
    named = code("commands-of-plugins.md", "toml")
    assert 'inspect = "tlkit_inspect:app"' in named
    assert site.is_dir()
    all_of_them = command("inspect", "unsure", run.folder, few_photos, "--below", "1.1")
    assert all_of_them.returncode == 0, all_of_them.stderr
    photos = sorted(few_photos.rglob("*.jpg"))
    assert [Path(line.split("\t")[0]) for line in all_of_them.stdout.splitlines()] == photos
    assert command("inspect", "unsure", run.folder, few_photos, "--below", "0").stdout == ""
    shown = command("--help").stdout
    assert "Commands of plugins" in shown


def code_lines(source: str) -> int:
    """Lines of code: without blank ones, comments alone and docstrings."""
    tree = ast.parse(source)
    nodes = [tree, *(node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))]
    docs = {
        line
        for node in nodes
        if ast.get_docstring(node) and isinstance(node.body[0], ast.Expr)
        for line in range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1)
    }
    lines = enumerate(source.splitlines(), 1)
    return sum(
        bool(line.strip()) and not line.strip().startswith("#")
        for number, line in lines
        if number not in docs
    )


def table_of_checks(printed: str) -> list[str]:
    """What `tlkit plugins check` prints, but for how much values differ and for the device."""
    lines = re.findall(r"^(?: backbone .*|\d+ passed.*)$", printed, re.MULTILINE)
    return [re.sub(r"differ by \S+|(?<=moved ).*", "", line).rstrip() for line in lines]


def test_the_tutorial(install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its commands, with little data; the package is written by hand instead of `pip install -e`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(DOCS.parent / "examples")
    text = (DOCS / "tutorial.md").read_text(encoding="utf-8")
    commands = [shlex.split(line[2:]) for line in text.splitlines() if line.startswith("$ tlkit")]
    new, check, again, pretraining, experiment = (command_line[1:] for command_line in commands)
    assert check == again == ["plugins", "check", "four-stages"]
    ended = command(*new)
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "tlkit-four-stages" / "src" / "tlkit_four_stages.py").is_file()

    module = code("tutorial.md")
    assert code_lines(module) == 24, "the page says 24; at most 25"
    install("tlkit_four_stages", module)
    ended = command(*check)
    assert ended.returncode == 0, ended.stdout
    printed = text.split("$ tlkit plugins check four-stages")[-1].split("```")[0]
    assert table_of_checks(printed) == table_of_checks(ended.stdout)

    few = {
        "data.source.per_class": 6,
        "data.per_class": "{train=3, val=1, test=2}",
        "phase.pretrain.epochs": 2,  # one is its warm-up
    }
    ended = command(*pretraining, *changes(few))
    assert ended.returncode == 0, ended.stderr
    few = {
        "data.source.per_class": 20,
        "data.source.without_label": 4,
        "data.per_class": "{train=8, val=4, test=8}",
        "training.epochs": 1,
    }
    ended = command(*experiment, *changes(few), "--out", "out")
    assert ended.returncode == 0, ended.stderr
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [phase["name"] for phase in results["phases"]] == [
        "benchmark",
        "zero-shot",
        "bottleneck",
        "fine-tune",
    ]
    assert (tmp_path / "out" / "report.html").is_file()

    # a model folder needs no file that its weights once came from
    shutil.rmtree(tmp_path / "runs" / "four-stages")
    classifier = tlkit.load(tmp_path / "out")
    assert classifier.classes == ("cat", "dog")


def test_the_plugins_page_names_every_check() -> None:
    page = (DOCS / "plugins.md").read_text(encoding="utf-8")
    for kind, checks in CHECKS.items():
        names = "; ".join(check.__name__.replace("_", " ") for check in checks)
        assert f"| {kind} | {names} |" in page


def changes(settings: dict[str, Any]) -> list[str]:
    return [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
