"""A model folder from a stranger: it is loaded as it was written, or refused; it never acts."""

from __future__ import annotations

import json
import os
import pickle
import random
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
from guarded import run_guarded
from model_folders import change_config

import tlkit
from tlkit.errors import RunFolderError


@pytest.fixture(scope="session")
def timm_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with a backbone of timm, which tests must not change."""
    from tlkit.model.classifier import Classifier
    from tlkit.model.description import Calibration
    from tlkit.model.saving import save_model
    from tlkit.plugins.loader import load_registry

    registry = load_registry()
    table = {"name": "mobilenetv3_small_050", "weights": "none"}
    backbone = registry.make("backbone", table["name"], {"weights": "none"})
    head = registry.make("head", "linear", {}, backbone, ("cat", "dog"))
    folder = tmp_path_factory.mktemp("timm") / "model"
    save_model(
        folder,
        Classifier(backbone, head),
        backbone,
        backbone_table=table,
        head_table={"name": "linear"},
        classes=("cat", "dog"),
        calibration=Calibration(temperature=1.0),
    )
    return folder


@pytest.fixture
def model(timm_model: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may change."""
    return Path(shutil.copytree(timm_model, tmp_path / "model"))


@pytest.fixture
def server() -> Iterator[tuple[str, list[bytes]]]:
    """An address on this machine, and the first bytes of every request to it."""
    requests: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def listen() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            requests.append(connection.recv(100))
            connection.close()

    Thread(target=listen, daemon=True).start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}", requests
    listener.close()


class Command:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (self.command,)


def test_a_checkpoint_path_is_not_opened(model: Path, tmp_path: Path) -> None:
    """With timm 1.0.20 this ran a command; newer ones open the file."""
    checkpoint, ran = tmp_path / "canary.pth", tmp_path / "ran"
    checkpoint.write_bytes(pickle.dumps(Command(f"touch {ran}")))
    options = {"model_args": {"checkpoint_path": str(checkpoint)}}
    change_config(model, lambda config: config["tlkit"]["backbone"].update(options))
    (outcome,) = run_guarded(f"tlkit.load({str(model)!r})", canaries=("canary",))
    assert "no argument 'checkpoint_path'" in outcome.error
    assert outcome.touched == []
    assert not ran.exists()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"weights": "pretrained"}, "'weights' must be 'none'"),
        ({"weights": "/etc/canary.safetensors"}, "'weights' must be 'none'"),
        ({"name": "mobilenetv3_small_100.lamb_in1k", "weights": "pretrained"}, "'weights' must be 'none'"),
        ({"name": "hf-hub:timm/mobilenetv3_small_100.lamb_in1k"}, "is an address"),
        ({"name": "local-dir:/etc/canary"}, "is an address"),
        ({"name": "transformers:google/vit-base-patch16-224"}, "is an address"),
        ({"model_args": {"pretrained_cfg": {"url": "URL/canary.pth"}, "pretrained": True}}, "no argument"),
        ({"model_args": {"pretrained_cfg_overlay": {"file": "/etc/canary"}}}, "no argument"),
        ({"model_args": {"cache_dir": "/tmp/canary"}}, "no argument"),
        ({"name": "transformers", "config": {"model_type": "timm_wrapper"}}, "not a kind of image model"),
        (
            {"name": "transformers", "config": {"model_type": "upernet", "backbone": "org/canary"}},
            "names another network",
        ),
        (
            {"name": "transformers", "config": {"model_type": "detr", "backbone": "org/canary"}},
            "names another network",
        ),
        (
            {
                "name": "transformers",
                "config": {"model_type": "clip", "vision_config": {"model_type": "timm_backbone"}},
            },
            "wraps another network",
        ),
    ],
    ids=lambda value: json.dumps(value)[:60].strip('{"') if isinstance(value, dict) else "",
)
def test_it_names_neither_addresses_nor_files(
    options: dict[str, Any], reason: str, model: Path, server: tuple[str, list[bytes]], tmp_path: Path
) -> None:
    url, requests = server
    options = json.loads(json.dumps(options).replace("URL", url))
    table = {"weights": "none", **({} if options.get("name") == "transformers" else {"features": "pooled"})}

    def change(config: dict[str, Any]) -> None:
        name = config["tlkit"]["backbone"]["name"]
        config["tlkit"]["backbone"] = {"name": name, **table, **options}

    change_config(model, change)
    with pytest.raises(RunFolderError, match=reason) as caught:
        tlkit.load(model)
    assert str(model) in str(caught.value)
    assert requests == []


def test_loading_one_touches_neither_network_nor_other_programs(model: Path) -> None:
    (outcome,) = run_guarded(f"tlkit.load({str(model)!r})")
    assert (outcome.error, outcome.touched) == ("", [])


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("preprocess", "interpolation"), "nearly"),
        (("preprocess", "resize"), "stretch"),
        (("preprocess", "size"), 20_000),
        (("preprocess", "size"), 1_000_000),
        (("preprocess", "size"), 64.5),
        (("preprocess", "crop"), 1e-9),
        (("preprocess", "crop"), float("nan")),
        (("preprocess", "std"), [0, 1, 1]),
        (("preprocess", "mean"), [float("inf"), 1, 1]),
        (("calibration", "temperature"), 0),
        (("calibration", "temperature"), float("nan")),
        (("calibration", "temperature"), 1e-300),
        (("calibration", "reject_below"), 7),
        (("classes",), ["cat", "cat"]),
        (("classes",), ["cat", 5]),
        (("classes",), ["cat", ""]),
        (("classes",), "cat"),
        (("backbone",), 5),
        (("backbone", "model_args"), {"depths": 10**30}),
        (("head", "hidden"), float("nan")),
        (("format",), "one"),
    ],
    ids=str,
)
def test_values_that_no_model_has(keys: tuple[str, ...], value: object, model: Path) -> None:
    def change(config: dict[str, Any]) -> None:
        table = config["tlkit"]
        for key in keys[:-1]:
            table = table[key]
        table[keys[-1]] = value

    change_config(model, change)
    with pytest.raises(RunFolderError) as caught:
        tlkit.load(model)
    assert str(model / "config.json") in str(caught.value)
    assert f"tlkit.{keys[0]}" in str(caught.value)
    assert all(key in str(caught.value) for key in keys)


def test_networks_larger_than_their_weights(timm_model: Path, tmp_path: Path) -> None:
    folders = []
    for number, (name, model_args) in enumerate(
        (
            ("vit_tiny_patch16_224", {"depth": 1_000_000}),
            ("vit_tiny_patch16_224", {"embed_dim": 600_000}),
            ("vit_tiny_patch16_224", {"depth": 5_000, "embed_dim": 24}),
            ("resnet18", {"layers": [500_000, 2, 2, 2]}),
        )
    ):
        backbone = {"name": name, "features": "pooled", "weights": "none", "model_args": model_args}
        folders.append(Path(shutil.copytree(timm_model, tmp_path / str(number))))
        change_config(folders[-1], partial(set_backbone, backbone))
    began = time.monotonic()
    outcomes = run_guarded(*(f"tlkit.load({str(folder)!r})" for folder in folders))
    for outcome in outcomes:
        assert "larger than its weights" in outcome.error or "could not be made" in outcome.error
        assert outcome.memory < 2**30
    assert time.monotonic() - began < 120


def set_backbone(backbone: dict[str, Any], config: dict[str, Any]) -> None:
    config["tlkit"]["backbone"] = backbone


def test_a_change_of_config_json_is_noticed(model: Path) -> None:
    """Also one that is valid: swapped class names would give every answer the wrong way round."""
    config = json.loads((model / "config.json").read_text())
    config["tlkit"]["classes"] = ["dog", "cat"]
    (model / "config.json").write_text(json.dumps(config))
    with pytest.raises(RunFolderError, match=r"config\.json is not as tlkit wrote it"):
        tlkit.load(model)


def test_files_that_are_none(timm_model: Path, tmp_path: Path) -> None:
    folders = []
    for name in ("config.json", "model.safetensors"):
        for kind in ("pipe", "device", "folder"):
            folders.append(Path(shutil.copytree(timm_model, tmp_path / f"{name}-{kind}")))
            path = folders[-1] / name
            path.unlink()
            if kind == "pipe":
                os.mkfifo(path)
            elif kind == "device":
                path.symlink_to("/dev/urandom")
            else:
                path.mkdir()
    outcomes = run_guarded(*(f"tlkit.load({str(folder)!r})" for folder in folders), timeout=120)
    for folder, outcome in zip(folders, outcomes, strict=True):
        assert str(folder) in outcome.error
        assert outcome.memory < 2**28


def test_weights_that_need_more_memory_than_there_is(model: Path) -> None:
    with (model / "model.safetensors").open("r+b") as file:
        file.truncate(10 * 2**40)
    with pytest.raises(RunFolderError, match="bytes of memory"):
        tlkit.load(model)


def test_the_weights_of_another_network(model: Path) -> None:
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(3)}, model / "model.safetensors")
    with pytest.raises(RunFolderError, match="not the file that"):
        tlkit.load(model)


def test_a_report_on_a_strangers_run_uses_no_network(
    run_copy: Path, server: tuple[str, list[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its recipe may name data or weights anywhere."""
    url, requests = server
    monkeypatch.setenv("HF_ENDPOINT", url)
    text = (run_copy / "recipe.toml").read_text()
    source = '[data]\nsource = { name = "datasets", hub = "org/canary" }\n'
    before, _, after = text.partition("[data]")
    tables = after[after.index("\n[") :]
    (run_copy / "recipe.toml").write_text(before + source + tables.replace('"vgg16-quarter"', '"hf-hub:a/b"'))
    page = tlkit.report(run_copy)
    assert page.is_file()
    assert requests == []


def test_flipped_bits(timm_model: Path, tmp_path: Path) -> None:
    """Each is noticed, unless it is one of the spaces that JSON does not count."""
    noticed = 0
    expected = tlkit.load(timm_model).module.state_dict()
    for seed in range(40):
        chance, folder = random.Random(seed), Path(shutil.copytree(timm_model, tmp_path / str(seed)))
        file = folder / chance.choice(["config.json", "model.safetensors"])
        content = bytearray(file.read_bytes())
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        file.write_bytes(content)
        try:
            loaded = tlkit.load(folder).module.state_dict()
        except RunFolderError as error:
            noticed += 1
            assert str(folder) in str(error)
        else:
            assert all(torch.equal(loaded[name], value) for name, value in expected.items())
    assert noticed >= 35


def test_swapped_weights(timm_model: Path, fitted: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(timm_model, tmp_path / "model"))
    other = fitted / "phases" / "fine-tune" / "model" / "model.safetensors"
    (folder / "model.safetensors").write_bytes(other.read_bytes())
    with pytest.raises(RunFolderError, match="not the file that"):
        tlkit.load(folder)
