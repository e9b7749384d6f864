"""`tlkit plugins check`, `new` and `list`, as plugin authors use them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import command
from installing import install

from tlkit.cli.plugins_new import OTHERS
from tlkit.plugins.registry import KINDS

TLKIT = [str(Path(sys.executable).with_name("tlkit"))]
Command = Callable[..., "subprocess.CompletedProcess[str]"]
#: Ten of timm's families, of several kinds and quickly checked; convit and levit store positions.
TEN = (
    "starnet senet swiftformer pit vision_transformer_relpos convit levit resnetv2 edgenext convnext"
).split()


@pytest.fixture
def tlkit(tmp_path: Path) -> Command:
    """Runs tlkit in an empty folder; `path` holds plugins that are installed in addition."""

    def run(*arguments: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, **({"PYTHONPATH": str(path)} if path else {})}
        return subprocess.run(
            [*TLKIT, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True
        )

    return run


HEAD = "import tlkit\n@tlkit.hookimpl\ndef tlkit_heads(register):\n    register('{name}', make)\n"
MAKE = "def make(backbone, classes, *, hidden=3):\n    from torch import nn\n    return nn.Flatten()\n"


def test_a_correct_part_and_a_wrong_one(
    tlkit: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = install(tmp_path / "site", "wrong", HEAD.format(name="wrong-head") + MAKE)
    ended = tlkit("plugins", "check", "linear", "wrong-head", path=site)
    assert ended.returncode == 1, ended.stderr
    assert re.search(
        r"head linear +logits have one column per class +passed +takes pooled, map, tokens", ended.stdout
    )
    assert re.search(
        r"head wrong-head +options are declared +failed +expected a type annotation for every option",
        ended.stdout,
    )
    assert re.search(r"\d+ passed, 2 failed, 9 not applicable", ended.stdout)
    monkeypatch.syspath_prepend(site)
    ended = command("plugins", "check", "wrong-head", "--json")
    assert ended.returncode == 1
    rows = [json.loads(line) for line in ended.stdout.splitlines()]
    assert rows[0] == {
        "kind": "head", "part": "wrong-head", "check": "options are declared", "outcome": "failed",
        "message": "expected a type annotation for every option, which recipes are validated against; "
        "got none for hidden; to fix: annotate it, for example hidden: int",
    }  # fmt: skip


def test_a_name_of_two_kinds_is_checked_in_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "import tlkit\n@tlkit.hookimpl\ndef tlkit_freeze_policies(register):\n"
        "    register('linear', policy)\ndef policy(classifier):\n    return {'head.fc.weight'}\n"
    )
    monkeypatch.syspath_prepend(install(tmp_path / "site", "second", code))
    ended = command("plugins", "check", "linear", "--json")
    assert ended.returncode == 0, ended.stdout
    assert {json.loads(line)["kind"] for line in ended.stdout.splitlines()} == {"head", "freeze-policy"}
    ended = command("plugins", "check", "linear", "--json", "--kind", "head")
    assert {json.loads(line)["kind"] for line in ended.stdout.splitlines()} == {"head"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["affnie"], "no part is called 'affnie' (did you mean 'affine'?)"),
        (["class-groups"], "option 'groups' is missing"),
        (["linear", "--set", "dropuot=0.5"], "option 'dropuot' is unknown (did you mean 'dropout'?)"),
        (["linear", "--set", "dropout"], "must be KEY=VALUE"),
        (["folder"], "source 'folder' needs a folder: name one with --root PATH"),
        (["linear", "--kind", "haed"], "'haed' is not one of"),
        ([], "name at least one part"),
        (["--timm", "resnett"], "timm has no family 'resnett' (did you mean 'resnet'"),
    ],
)
def test_a_users_mistake_exits_with_code_2(arguments: list[str], message: str) -> None:
    ended = command("plugins", "check", *arguments)
    assert ended.returncode == 2
    assert message in " ".join(ended.stderr.replace("│", " ").split())


@pytest.mark.parametrize("families", [TEN[:1], pytest.param(TEN, marks=pytest.mark.slow)], ids=len)
def test_timms_families(families: list[str], tmp_path: Path) -> None:
    ended = command("plugins", "check", "--timm", *families, "--json", "--page", tmp_path / "timm.md")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    rows = [json.loads(line) for line in ended.stdout.splitlines()]
    assert [row["family"] for row in rows] == families
    for row in rows:
        assert row["forward"] and row["partitions"] and row["finetune"] and row["model_folder"], row["reason"]
        assert row["blocks"] > 1 and not row["reason"]
    page = (tmp_path / "timm.md").read_text()
    assert f"| {families[0]} | {rows[0]['name']} | " in page
    count = len(families)
    assert (
        f"Of {count} families, {count} compute features, {count} are partitioned in front of their last block"
        in page
    )


def test_every_kind_of_new_package_passes_its_own_test(tmp_path: Path) -> None:
    """Each is built and installed into a fresh environment, which borrows torch and the rest from this one:
    installing those would take minutes."""
    kinds = (*KINDS, *OTHERS)
    packages = [tmp_path / f"tlkit-my-{kind}" for kind in kinds]
    with contextlib.chdir(tmp_path):
        for kind, folder in zip(kinds, packages, strict=True):
            ended = command("plugins", "new", f"my-{kind}", "--kind", kind)
            assert ended.returncode == 0, ended.stderr
            assert {file.name for file in folder.iterdir()} == {"pyproject.toml", "README.md", "src", "tests"}
    for folder in packages:
        build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "wheels")]
        subprocess.run(build, cwd=folder, check=True, capture_output=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", "fresh"], cwd=tmp_path, check=True)
    python = tmp_path / "fresh" / "bin" / "python"
    (site,) = (tmp_path / "fresh" / "lib").glob("python*/site-packages")
    (site / "borrowed.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    wheels = map(str, (tmp_path / "wheels").glob("*.whl"))
    uv = os.environ.get("UV", "uv")  # uv run says where it is
    install = [uv, "pip", "install", "--quiet", "--no-deps", "--no-index", "--python", str(python), *wheels]
    subprocess.run(install, check=True)
    listed = subprocess.run(
        [python, "-m", "tlkit", "plugins", "list"], capture_output=True, text=True, check=True
    )
    for kind in (*KINDS, "events"):
        assert re.search(rf"my-{kind} +tlkit-my-{kind} +0\.1\.0 +loaded", listed.stdout)
    usage = subprocess.run([python, "-m", "tlkit", "--help"], capture_output=True, text=True, check=True)
    assert re.search(r"my-command +The command tlkit my-command\.", usage.stdout)
    tests = [str(folder / "tests") for folder in packages]
    ended = subprocess.run(
        [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--import-mode=importlib",
         "-c", os.devnull, "--rootdir", str(tmp_path), *tests],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout
    assert f"{len(kinds)} passed" in ended.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["taken", "--kind", "head"], "tlkit-taken exists already"),
        (["a b", "--kind", "head"], "'a b' is not a valid package name"),
        (["-dash-", "--kind", "head"], "No such option"),
        (["dash-", "--kind", "head"], "'dash-' is not a valid package name"),
        (["fine", "--kind", "haed"], "'haed' is not one of"),
        (["linear", "--kind", "head"], "a head 'linear' exists already"),
        (["catsdogs", "--kind", "head"], "a package tlkit-catsdogs is installed already"),
    ],
)
def test_new_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    (tmp_path / "tlkit-taken").mkdir()
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    ended = command("plugins", "new", *arguments)
    assert ended.returncode == 2
    assert message in " ".join(ended.stderr.replace("│", " ").split())
    assert sorted(tmp_path.iterdir()) == before


def test_list_says_what_is_wrong_with_each_plugin_and_the_rest_works(
    tlkit: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    install(site, "falls", "raise RuntimeError('no such luck')")
    install(site, "misspells", HEAD.replace("heads", "haeds").format(name="a") + MAKE)
    install(site, "newer", HEAD.replace("(register)", "(register, device)").format(name="b") + MAKE)
    install(site, "one", HEAD.format(name="same") + MAKE)
    install(site, "two", HEAD.format(name="same") + MAKE)
    ended = tlkit("plugins", "list", path=site)
    assert ended.returncode == 0, ended.stderr
    for name, state, reason in (
        ("falls", "broken", "RuntimeError: no such luck"),
        ("misspells", "broken", "there is no hook 'tlkit_haeds' (did you mean 'tlkit_heads'"),
        ("newer", "broken", "PluginValidationError: "),
        ("one", "loaded", "head 'same' is two's too"),
        ("two", "loaded", "head 'same' is one's too"),
    ):
        assert re.search(rf"{name} +{name} +1\.0 +{state} +.*{re.escape(reason)}", ended.stdout), ended.stdout
    text = " ".join(ended.stdout.split())
    assert "Argument(s) {'device'} are declared in the hookimpl" in text
    assert "is it written for a newer tlkit than this one?" in text
    monkeypatch.syspath_prepend(site)
    assert command("plugins", "check", "nothing").returncode == 0
    clash = command("plugins", "check", "same")
    assert clash.returncode == 2
    assert "head 'same' is registered by one and by two" in clash.stderr
