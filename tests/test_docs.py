"""What the documents say is run: the commands of one page, the code of the other."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from pathlib import Path
from unittest import mock

import pytest

import tlkit
from tlkit.cli.app import main

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture
def here(by_class: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `photos` in it, as the pages have it."""
    shutil.copytree(by_class, tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)


def test_the_commands_of_the_command_line_page(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [line for block in blocks("command-line.md", "console") for line in block.splitlines()]
    commands = [shlex.split(line.removeprefix("$ ")) for line in lines if line.startswith("$ tlkit")]
    assert {command[1] for command in commands} == {"fit", "predict", "evaluate", "export"}
    for command in commands:
        with mock.patch.object(sys, "argv", command), pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 0, command
        assert capsys.readouterr().out
    assert (here / "pets.onnx").is_file()
    assert (here / "runs" / "pets" / "recipe.toml").is_file()


def test_the_commands_of_the_report_page(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for out in ("pets", "pets-again"):
        tlkit.fit(here / "photos", backbone="vgg16-quarter", epochs=1, out=here / "runs" / out)
    lines = [line for block in blocks("report.md", "console") for line in block.splitlines()]
    commands = [shlex.split(line.removeprefix("$ "), comments=True) for line in lines]
    assert [command[1] for command in commands] == [
        *("report", "compare", "explain", "explain", "visualize", "visualize")
    ]
    for command in commands:
        with mock.patch.object(sys, "argv", command), pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 0, command
        assert capsys.readouterr().out
    assert (here / "runs" / "pets" / "report.html").is_file()
    assert (here / "comparison" / "compare.html").is_file()
    assert (here / "explained" / "1.png").is_file()
    assert len(list((here / "visualized").iterdir())) == 4


def test_the_code_of_the_python_page(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = "\n".join(blocks("python.md", "python"))
    names: dict[str, object] = {}
    exec(compile(code, "docs/python.md", "exec"), names)
    assert names["labels"] and not capsys.readouterr().out
    probabilities = names["predictor"].predict_proba([names["image"]])  # type: ignore[attr-defined]
    softmax = names["torch"].softmax(names["logits"] / names["predictor"].temperature, 1)  # type: ignore
    assert softmax.detach().numpy() == pytest.approx(probabilities, abs=1e-5)


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
