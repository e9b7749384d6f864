"""Every code block of every page is run by a test, or listed here with the reason why not."""

from __future__ import annotations

import ast
import re
import shlex
import shutil
import subprocess
import tomllib
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import typer
from recipes import MINIMAL
from typer.core import TyperGroup

import tlkit
from tlkit.cli.app import app
from tlkit.recipe.recipe import make_recipe

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("plugins/*/README.md")]
PAGES += sorted((ROOT / "docs").rglob("*.md"))
LANGUAGES = ("console", "python", "toml", "bash")

#: Pages, and the test that runs their blocks: file::name.
RUN = {
    "README.md": "test_examples.py::test_the_embedded_experiment_needs_no_download",
    "plugins/catsdogs/README.md": "test_examples.py::test_the_embedded_experiment_needs_no_download",
    "docs/cached-features.md": "test_docs.py::test_the_commands_of_the_pages_about_cached_features",
    "docs/choosing-a-backbone.md": "test_docs.py::test_the_commands_of_the_pages_about_choosing",
    "docs/coming-from.md": "test_docs.py::test_the_code_and_the_recipe_of_the_page_about_other_libraries",
    "docs/command-line.md": "test_docs.py::test_the_commands_of_the_command_line_page",
    "docs/commands-of-plugins.md": "test_plugin_docs.py::test_the_example_of_a_command",
    "docs/drawn-world.md": "test_examples.py::test_pretraining_makes_weights_that_the_backbone_loads",
    "docs/experiment.md": "test_examples.py::test_mobilenet_with_real_weights_tells_cats_from_dogs",
    "docs/exporting.md": "test_docs.py::test_the_commands_and_the_code_of_the_page_about_exporting",
    "docs/hooks/*.md": "test_plugin_docs.py::test_the_part_of_a_hooks_page_keeps_the_contract",
    "docs/labelling-next.md": "test_docs.py::test_the_commands_of_the_pages_about_choosing",
    "docs/learning-curve.md": "test_docs.py::test_the_command_of_the_page_about_learning_curves",
    "docs/multilabel.md": "test_docs.py::test_the_commands_and_the_code_of_the_page_about_several_labels",
    "docs/plugins.md": "test_docs.py::test_the_commands_of_the_pages_about_cached_features",
    "docs/python.md": "test_docs.py::test_the_code_of_the_python_page",
    "docs/recipes.md": "test_docs.py::test_the_errors_of_the_page_about_recipes",
    "docs/report.md": "test_docs.py::test_the_commands_of_the_report_page",
    "docs/scale.md": "test_docs.py::test_the_commands_of_the_page_about_many_images",
    "docs/scikit-learn.md": "test_docs.py::test_the_code_of_the_page_about_scikit_learn",
    "docs/sharing.md": "test_docs.py::test_the_command_of_the_page_about_sharing",
    "docs/tutorial.md": "test_plugin_docs.py::test_the_tutorial",
}
INSTALLS = "installs from the package index"
DOWNLOADS = "downloads"
OTHER_LIBRARY = "another library's, which the tests do not install"
#: Blocks that no test runs, by page and beginning, and why. Their commands are parsed all the same.
NOT_RUN = {
    ("README.md", "$ pip install uv && uv run tlkit run"): INSTALLS,
    (
        "README.md",
        "$ tlkit fit photos --backbone eff",
    ): "takes half a minute; tests/fitting fits with a smaller network",
    ("README.md", "$ tlkit predict"): "each of these commands is run for the page about it",
    ("README.md", "$ tlkit run pets.toml"): DOWNLOADS + " weights; its recipe is validated",
    (
        "README.md",
        "$ tlkit plugins new",
    ): "needs pip; test_plugin_docs.py does the same by hand for the tutorial",
    ("README.md", "$ tlkit fetch"): DOWNLOADS,
    ("CONTRIBUTING.md", "$ pip install uv && uv sync"): INSTALLS,
    ("CONTRIBUTING.md", "$ uv run coverage"): "runs these tests",
    ("plugins/lite/README.md", "$ pip install"): INSTALLS,
    ("plugins/huggingface/README.md", "$ pip install"): INSTALLS,
    ("plugins/ray/README.md", "$ pip install"): INSTALLS + "; plugins/ray/tests start Ray",
    ("docs/audit.md", "$ tlkit audit"): "tests/analysis/test_audit.py runs it on fewer images",
    ("docs/audit.md", "audit = tlkit.audit"): "tests/analysis/test_duplicates.py runs it on other photos",
    ("docs/coming-from.md", "from fastai"): OTHER_LIBRARY,
    ("docs/coming-from.md", "base = keras"): OTHER_LIBRARY,
    ("docs/coming-from.md", "$ python train.py"): OTHER_LIBRARY,
    (
        "docs/coming-from.md",
        "features = np.stack",
    ): "what tlkit replaces; its names stand for the reader's own",
    ("docs/coming-from.md", "$ yolo"): OTHER_LIBRARY,
    (
        "docs/exporting.md",
        "$ tlkit export runs/pets --format onnx --int8",
    ): "needs more images; tests/inference does it",
    (
        "docs/exporting.md",
        "$ python examples/browser",
    ): "needs npm; test_browser_example.py does it where there is npm",
    (
        "docs/multilabel.md",
        "$ tlkit fit",
    ): "takes a minute; tests/cli/test_multilabel.py does it with fewer images",
    (
        "docs/multilabel.md",
        "$ tlkit run",
    ): "takes a minute; the fixture several_labels does it with fewer images",
    ("docs/plugins.md", "from tlkit.testing"): "a test of its own, as `tlkit plugins new` writes it",
    ("docs/recipes.md", "$ tlkit run photos.toml"): DOWNLOADS + " weights",
    ("docs/recipes.md", "$ tlkit fetch"): DOWNLOADS,
    ("docs/review.md", "$ tlkit review"): "waits for a browser; tests/serving/test_review.py has one",
    ("docs/scale.md", "$ pip install"): INSTALLS,
    ("docs/scale.md", "# Slurm"): "needs a cluster; its syntax is checked",
    ("docs/scale.md", "$ pip install 'tlkit[ray]'"): "starts Ray; plugins/ray/tests does it",
    ("docs/tuning.md", "$ tlkit tune"): "takes minutes; tests/analysis/test_tune.py runs fewer trials",
    ("docs/scale.md", "export RAY_AUTH_MODE"): "needs two computers; its syntax is checked",
    ("docs/serving.md", "$ tlkit serve"): "waits for requests; tests/serving/test_predict_api.py sends them",
    ("docs/serving.md", "$ curl"): "waits for requests; tests/serving/test_predict_api.py sends them",
}


@dataclass(frozen=True)
class CodeBlock:
    """A code block of a page that someone may run."""

    page: str
    line: int
    language: str
    text: str

    @property
    def commands(self) -> list[list[str]]:
        """The arguments of each of its tlkit commands, without its name."""
        lines = self.text.replace("\\\n", " ").splitlines()
        matches = [re.fullmatch(r"\$ (?:.*&& )?(?:uv run )?tlkit (.*)", line) for line in lines]
        return [shlex.split(match[1], comments=True) for match in matches if match]

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of(page: Path) -> list[CodeBlock]:
    text = page.read_text(encoding="utf-8")
    code_blocks = []
    for match in re.finditer(r"^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        language = match[1]
        if not language:
            language = (
                "console" if match[2].startswith("$ ") else "python" if match[2].startswith("import ") else ""
            )
        if language in LANGUAGES:
            line = text[: match.start()].count("\n") + 1
            code_blocks.append(CodeBlock(page.relative_to(ROOT).as_posix(), line, language, match[2]))
    return code_blocks


BLOCKS = [block for page in PAGES for block in blocks_of(page)]


def reason(block: CodeBlock) -> str | None:
    """Why no test runs a block; None where one should."""
    starts = [start for page, start in NOT_RUN if page == block.page and block.text.startswith(start)]
    return NOT_RUN[block.page, starts[0]] if starts else None


def is_runnable(block: CodeBlock) -> bool:
    """Whether tests can run it in their process: it is Python, or has a command of tlkit."""
    return block.language == "python" or bool(block.commands)


def test_every_block_is_run_or_listed() -> None:
    lost = [
        f"{block}: {block.text.splitlines()[0]}"
        for block in BLOCKS
        if block.language != "toml"  # all of these are read below
        and not reason(block)
        and not (is_runnable(block) and any(fnmatch(block.page, page) for page in RUN))
    ]
    assert len(BLOCKS) > 100 and lost == []


def test_what_is_listed_exists() -> None:
    unused = [
        key for key in NOT_RUN if not any(b.page == key[0] and b.text.startswith(key[1]) for b in BLOCKS)
    ]
    assert unused == []
    for page, test in RUN.items():
        file, _, name = test.partition("::")
        tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
        assert any(isinstance(node, ast.FunctionDef) and node.name.startswith(name) for node in tree.body), (
            test
        )
        assert any(fnmatch(block.page, page) for block in BLOCKS), page


def parse(arguments: list[str]) -> None:
    """Parses a command line, without running the command; typer raises what it would print."""
    command: Any = typer.main.get_command(app)
    name, context = "tlkit", None
    while True:
        context = command.make_context(name, arguments, parent=context)
        if not isinstance(command, TyperGroup):
            return
        name, command, arguments = command.resolve_command(context, [*context._protected_args, *context.args])


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.commands], ids=str)
def test_commands_are_ones_that_the_command_line_takes(block: CodeBlock) -> None:
    for arguments in block.commands:
        if arguments[0] != "inspect":  # the example of a plugin's command
            parse(arguments)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("fitt photos", "No such command"),
        ("fit photos --epoch 3", "No such option"),
        ("fit photos --epochs many", "valid integer"),
        ("cache lst", "No such command"),
        ("predict", "Missing parameter: model"),
    ],
)
def test_a_command_that_the_command_line_does_not_take_is_found(line: str, problem: str) -> None:
    with pytest.raises(Exception, match=problem):
        parse(line.split())


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "toml"], ids=str)
def test_tables_are_ones_that_a_recipe_takes(block: CodeBlock) -> None:
    table = tomllib.loads(block.text)
    if "project" in table:  # of a plugin's pyproject.toml
        assert table["project"]["entry-points"].keys() <= {"tlkit", "tlkit.commands"}
    else:
        assert make_recipe({**tomllib.loads(MINIMAL), **table}).flaws == ()


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "python"], ids=str)
def test_code_is_python_of_public_names(block: CodeBlock) -> None:
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "tlkit":
            assert node.attr in {*tlkit.__all__, "testing"}, f"tlkit.{node.attr}"


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "bash"], ids=str)
def test_scripts_are_bash(block: CodeBlock) -> None:
    if (bash := shutil.which("bash")) is None:
        pytest.skip("no bash")
    subprocess.run([bash, "-n", "-c", block.text], check=True)
