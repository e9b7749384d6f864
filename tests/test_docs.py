"""Runs the commands and the code of documents, and checks the names and links in them."""

from __future__ import annotations

import ast
import re
import shlex
import shutil
import sys
import tomllib
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from commands import command as run_command
from recipes import write_recipe

import tlkit
from tlkit.cli.app import main
from tlkit.experiment.validation import validate
from tlkit.plugins.loader import load_registry
from tlkit.recipe.recipe import read_recipe
from tlkit.recipe.schema import TrainingSpec

DOCS = Path(__file__).parents[1] / "docs"
PACKAGE = DOCS.parent / "src" / "tlkit"


@pytest.fixture
def here(by_class: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with some `photos` in it, as the pages assume."""
    for kind in ("cat", "dog"):
        (tmp_path / "photos" / kind).mkdir(parents=True)
        for number in range(1, 16):
            shutil.copyfile(by_class / kind / f"{number}.jpg", tmp_path / "photos" / kind / f"{number}.jpg")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)


def commands_of(page: str, language: str = "console") -> list[list[str]]:
    """The commands of tlkit in a page's blocks, as the shell would give them."""
    lines = [line for block in blocks(page, language) for line in block.splitlines()]
    return [
        shlex.split(line.removeprefix("$ "), comments=True) for line in lines if line.startswith("$ tlkit")
    ]


def execute(commands: list[list[str]], capsys: pytest.CaptureFixture[str]) -> str:
    """Runs commands, which must succeed and print something; returns what the last one printed."""
    printed = ""
    for command in commands:
        with mock.patch.object(sys, "argv", command), pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 0, command
        printed = capsys.readouterr().out
        assert printed, command
    return printed


def test_the_commands_of_the_command_line_page(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commands = commands_of("command-line.md")
    assert {command[1] for command in commands} == {"fit", "predict", "evaluate", "export"}
    execute(commands, capsys)
    assert (here / "pets.onnx").is_file()
    assert (here / "runs" / "pets" / "recipe.toml").is_file()


def test_the_commands_of_the_report_page(
    here: Path, fitted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for out in ("pets", "pets-again"):
        shutil.copytree(fitted, here / "runs" / out)
    commands = commands_of("report.md")
    assert [command[1] for command in commands] == [
        *("report", "compare", "explain", "explain", "explain", "visualize", "visualize")
    ]
    execute(commands, capsys)
    assert (here / "runs" / "pets" / "report.html").is_file()
    assert (here / "comparison" / "compare.html").is_file()
    assert (here / "explained" / "1.png").is_file()
    assert len(list((here / "visualized").iterdir())) == 4


def test_the_command_of_the_page_about_sharing(here: Path, fitted: Path) -> None:
    shutil.copytree(fitted, here / "runs" / "pets")
    command, printed = blocks("sharing.md", "console")[0].splitlines()
    completed = run_command(*shlex.split(command.removeprefix("$ tlkit ")))
    assert (completed.returncode, completed.stdout.strip()) == (0, printed)
    assert "pipeline_tag: image-classification" in (here / printed).read_text()


def test_the_commands_of_the_pages_about_choosing(
    here: Path, photos: Path, fitted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(fitted, here / "runs" / "pets")
    (here / "unlabelled").mkdir()
    for number in range(41, 49):  # the run has labels of the others
        shutil.copyfile(photos / f"cat.{number}.jpg", here / "unlabelled" / f"{number}.jpg")
    commands = commands_of("choosing-a-backbone.md") + commands_of("labelling-next.md")
    assert [command[1] for command in commands] == ["choose", "next", "next"]
    execute(commands, capsys)
    assert (here / "backbones.svg").is_file() and (here / "next.csv").is_file()
    (code,) = blocks("labelling-next.md", "python")
    exec(compile(code, "labelling-next.md", "exec"), {})
    assert capsys.readouterr().out


def test_the_commands_of_the_page_about_many_images(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = 'name = "pets"\ndata = { source = "folder", root = "photos" }\n[[phase]]\nname = "probe"\n'
    write_recipe(here, f'backbone = {{ name = "vgg16-quarter" }}\n{text}')
    first, *on_ray, manifest = commands_of("scale.md")
    commands = ["features", "features", "predict", "manifest"]
    assert [command[1] for command in (first, *on_ray, manifest)] == commands
    execute([first, manifest], capsys)
    data = tomllib.loads(blocks("scale.md", "toml")[1])["data"]
    assert not read_recipe(here, {"data": {**data, "root": "photos"}}).flaws
    assert (here / "images.parquet").is_file()


def test_the_commands_of_the_pages_about_cached_features_and_plugins(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commands = commands_of("cached-features.md")
    assert [command[2] for command in commands] == ["list", "prune", "clear"]
    new, check, *shown, blocks_of_vgg16 = commands_of("plugins.md")
    assert (new[2], check[2]) == ("new", "check")  # its part is checked in the tutorial
    assert blocks_of_vgg16[2] == "blocks"  # takes seconds
    execute([*commands, new, *shown], capsys)
    assert (here / "tlkit-my-net" / "pyproject.toml").is_file()


def test_the_command_of_the_page_about_learning_curves(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (curve,) = commands_of("learning-curve.md")
    assert "probability" in execute([[*curve, "--backbone", "vgg16-quarter"]], capsys)
    assert (here / "curve" / "curve.json").is_file()


def test_the_commands_and_the_code_of_the_page_about_several_labels(
    here: Path, several_labels: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(here / "photos")
    shutil.copytree(several_labels / "images", here / "photos")
    shutil.copyfile(here / "photos" / "few.csv", here / "photos" / "labels.csv")
    (here / "runs").mkdir()
    (here / "runs" / "drawings").symlink_to(several_labels / "run")
    _, _, predict, evaluate = commands_of("multilabel.md")
    execute([predict, evaluate], capsys)
    (code,) = blocks("multilabel.md", "python")
    exec(compile(code, "multilabel.md", "exec"), {})
    labels, thresholds = map(ast.literal_eval, capsys.readouterr().out.splitlines())
    assert {*labels[0]} <= {"circle", "red"} == {*thresholds}


def test_the_errors_of_the_page_about_recipes(here: Path) -> None:
    write_recipe(here, blocks("recipes.md", "toml")[0])
    (block,) = (block for block in blocks("recipes.md", "console") if "Error" in block)
    line, _, printed = block.partition("\n")
    without_a_download = ("--set", "backbone.weights=none")
    ended = run_command(*shlex.split(line.removeprefix("$ tlkit ")), *without_a_download)
    assert (ended.returncode, ended.stderr) == (2, printed)


def test_the_code_of_the_python_page(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = "\n".join(blocks("python.md", "python"))
    names: dict[str, object] = {}
    exec(compile(code, "docs/python.md", "exec"), names)
    assert names["labels"] and not capsys.readouterr().out
    ((phase, accuracy),) = names["accuracies"].phases  # type: ignore[attr-defined]
    assert phase == "probe" and accuracy > 0.5
    assert (here / "comparison" / "compare.html").is_file()
    probabilities = names["predictor"].predict_proba([names["image"]])  # type: ignore[attr-defined]
    softmax = names["torch"].softmax(names["logits"] / names["predictor"].temperature, 1)  # type: ignore
    assert softmax.detach().numpy() == pytest.approx(probabilities, abs=1e-5)


def test_the_code_of_the_page_about_scikit_learn(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = "\n".join(blocks("scikit-learn.md", "python"))
    names: dict[str, Any] = {}
    exec(compile(code, "docs/scikit-learn.md", "exec"), names)
    assert not capsys.readouterr().out
    accuracies = names["run"].results.phases[0].out_of_fold.fold_accuracies
    assert tuple(names["scores"]) == accuracies[:3]
    assert (here / "models" / "pets" / "config.json").is_file()


def test_the_code_and_the_recipe_of_the_page_about_other_libraries(here: Path) -> None:
    shutil.copyfile(here / "photos" / "cat" / "1.jpg", here / "new.jpg")
    code = [block for block in blocks("coming-from.md", "python") if "tlkit." in block]
    names: dict[str, Any] = {}
    exec(compile("\n".join(code), "docs/coming-from.md", "exec"), names)
    assert names["classifier"].predict(["new.jpg"]).shape == (1,)
    (text,) = blocks("coming-from.md", "toml")
    validate(read_recipe(write_recipe(here, text)), load_registry())


def test_the_recipe_of_the_fine_tuning_page_is_valid(here: Path) -> None:
    (text,) = blocks("fine-tuning.md", "toml")
    recipe = write_recipe(here, text)
    validate(read_recipe(recipe, ["backbone.weights=none"]), load_registry())
    keys = {key for phase in tomllib.loads(text)["phase"] for key in phase} | {
        *tomllib.loads(text)["training"]
    }
    page = (DOCS / "fine-tuning.md").read_text(encoding="utf-8")
    new = {"loss", "mixup", "cutmix", "clip_grad", "ema", "monitor"}
    assert new <= keys and all(f"| `{key}` |" in page for key in new)


def test_the_recipe_tables_name_all_keys_of_training() -> None:
    page = (DOCS / "recipes.md").read_text(encoding="utf-8")
    assert {*re.findall(r"^\| `training\.(\w+)` \|", page, re.MULTILINE)} == {*TrainingSpec.model_fields}


def test_every_public_name_is_in_the_reference() -> None:
    pages = "".join(page.read_text(encoding="utf-8") for page in (DOCS / "api").glob("*.md"))
    assert sorted(re.findall(r"^::: tlkit\.(\w+)$", pages, re.MULTILINE)) == sorted(tlkit.__all__)


def test_links_lead_to_files() -> None:
    root = DOCS.parent
    pages = [*root.glob("*.md"), *DOCS.rglob("*.md"), *root.glob("plugins/*/README.md")]
    broken = [
        f"{page.relative_to(root)}: {target}"
        for page in pages
        for target in re.findall(r"\]\(([^)\s#:]+)(?:#[^)\s]*)?\)", page.read_text(encoding="utf-8"))
        if not (page.parent / target).exists()
    ]
    assert len(pages) > 15 and not broken


def architecture() -> str:
    return (DOCS / "architecture.md").read_text(encoding="utf-8")


def definitions(file: str) -> set[str]:
    """The functions, classes and methods that a module of tlkit defines, methods as `Class.method`."""
    names: set[str] = set()
    for node in ast.parse((PACKAGE / file).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            methods = (child.name for child in node.body if isinstance(child, ast.FunctionDef))
            names.update(f"{node.name}.{method}" for method in methods)
    return names


def test_the_files_and_functions_of_the_architecture_page_exist() -> None:
    page = architecture()
    files = set(re.findall(r"`(?:src/tlkit/)?(\w+/?[\w/]*\.pyi?)`", page))
    assert len(files) > 30 and not [file for file in files if not (PACKAGE / file).is_file()]
    rows = re.findall(r"^\|[^|]*\| `([\w/]+\.py)` \| ([^|]+) \|", page, re.MULTILINE)
    named = [(file, name) for file, cell in rows for name in re.findall(r"`([\w.]+)`", cell)]
    named += [(file, name) for name, file in re.findall(r"`([\w.]+)`\s+in\s+`([\w/]+\.py)`", page)]
    missing = [f"{file}: {name}" for file, name in named if name not in definitions(file)]
    assert len(named) > 50 and not missing


def test_the_layers_of_the_architecture_page_are_those_that_import_linter_checks() -> None:
    settings = tomllib.loads((DOCS.parent / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    (contract,) = (contract for contract in contracts if contract["type"] == "layers")
    layers = [layer.split(" | ") for layer in contract["layers"]]
    # on the right of the drawing are descriptions
    lines = [re.findall(r"\w+", line[:34]) for line in blocks("architecture.md", "text")[0].splitlines()]
    packages = {package for layer in layers for package in layer}
    assert [names for line in lines if (names := [word for word in line if word in packages])] == layers
    described = re.findall(r"^\| `(\w+)` \|", architecture(), re.MULTILINE)
    assert described == [*(package for layer in layers for package in layer), "builtin"]
    assert any(contract["name"] in architecture() for contract in contracts)


def test_the_commands_and_the_code_of_the_page_about_exporting(
    here: Path, fitted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(fitted, here / "runs" / "pets")
    commands = commands_of("exporting.md")
    assert [command[1] for command in commands] == ["export", "predict", "evaluate", "export"]
    execute(commands, capsys)
    with_onnxruntime, with_openvino = blocks("exporting.md", "python")
    names: dict[str, Any] = {}
    exec(compile(with_onnxruntime, "docs/exporting.md", "exec"), names)
    label, probability, unknown = capsys.readouterr().out.split()
    assert label in ("cat", "dog") and 0.5 <= float(probability) <= 1 and unknown in ("True", "False")
    expected = names["probabilities"]
    exec(compile(with_openvino, "docs/exporting.md", "exec"), names)
    assert names["probabilities"] == pytest.approx(expected, abs=1e-3)
