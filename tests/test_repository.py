"""What the repository says of itself: hooks and workflows run what CI runs, and versions agree."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PLUGINS = sorted(path.relative_to(ROOT) for path in ROOT.glob("plugins/*/pyproject.toml"))
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def read(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


@pytest.fixture
def checks() -> set[str]:
    """The checks of .ci/run, besides the tests."""
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    return set(re.findall(r"uv run (.+)", script)) - {"pytest"}


def test_the_workflow_runs_the_checks_of_ci(checks: set[str]) -> None:
    steps = read(".github/workflows/tests.yml")["jobs"]["checks"]["steps"]
    assert {step["run"].removeprefix("uv run ") for step in steps if "run" in step} == checks


def test_hooks_are_checks_of_ci(checks: set[str]) -> None:
    hooks = [hook for repo in read(".pre-commit-config.yaml")["repos"] for hook in repo["hooks"]]
    entries = {hook["entry"].removeprefix("uv run --no-sync ").removesuffix(" --fix") for hook in hooks}
    assert entries == {check.removesuffix(" --check") for check in checks if not check.startswith("mkdocs")}


def test_the_oldest_python_is_tested() -> None:
    matrix = read(".github/workflows/tests.yml")["jobs"]["tests"]["strategy"]["matrix"]
    assert PROJECT["requires-python"] == f">={matrix['python'][0]}"
    assert {name.partition("-")[0] for name in matrix["os"]} == {"ubuntu", "macos", "windows"}


def test_the_citation_is_of_this_version() -> None:
    citation = read("CITATION.cff")
    assert (citation["version"], citation["license"]) == (PROJECT["version"], PROJECT["license"])


def test_contributing_names_files_that_exist() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    names = re.findall(r"\]\(([^)#]+)\)", text)
    names += re.findall(r"`((?:src|tests|docs|benchmarks|\.github|\.ci)/[^`*]*)`", text)
    assert len(names) > 10
    assert [name for name in names if not (ROOT / name).exists()] == []


def test_issue_forms_have_what_github_requires() -> None:
    forms = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("[!c]*.yml"))
    assert len(forms) == 2
    for form in forms:
        content = read(str(form.relative_to(ROOT)))
        assert {"name", "description", "body"} <= content.keys()
        ids = [field["id"] for field in content["body"] if field["type"] != "markdown"]
        assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("package", [".", *(str(path.parent) for path in PLUGINS)])
def test_pages_on_the_package_index_have_no_relative_links(package: str) -> None:
    project = tomllib.loads((ROOT / package / "pyproject.toml").read_text(encoding="utf-8"))
    (hook,) = project["tool"]["hatch"]["metadata"]["hooks"].values()
    text = "".join((ROOT / package / part["path"]).read_text(encoding="utf-8") for part in hook["fragments"])
    for substitution in hook["substitutions"]:
        text = re.sub(substitution["pattern"], substitution["replacement"], text)
    assert len(text) > 1000
    assert re.findall(r"\]\((?!https?:)[^)]*\)", text) == []
