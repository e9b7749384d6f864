"""Backbones of timm name where their weights come from, and the licence."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import timm
from safetensors.torch import save_file

import tlkit
from tlkit import WeightsOrigin
from tlkit.builtin.timm_weights import find_origin

REGISTRY = tlkit.load_registry()


def origin(name: str, **options: object) -> WeightsOrigin | None:
    backbone: tlkit.Backbone = REGISTRY.make("backbone", name, options)
    return backbone.weights_origin


@pytest.mark.parametrize("name", ["convnext_nano.in12k_ft_in1k", "convnext_nano"])
def test_weights_of_timm_are_named_by_their_repository(name: str) -> None:
    config = timm.models.get_pretrained_cfg(name).to_dict()
    hub = f"hf-hub:timm/convnext_nano.{config['tag']}"
    assert find_origin(name, config) == WeightsOrigin(hub, "apache-2.0")


def test_weights_without_a_repository_are_named_by_their_address() -> None:
    config = {"url": "https://example.org/weights.pth", "license": None}
    assert find_origin("resnet18", config) == WeightsOrigin("https://example.org/weights.pth")


def test_a_folder_is_named_without_its_path_and_with_its_own_licence(weights: Path) -> None:
    address = f"local-dir:{weights}"
    assert origin(address) == WeightsOrigin("local-dir:mobilenetv2_100", "apache-2.0")
    assert origin(address, weights="none") is None
    file = weights / "model.safetensors"
    assert origin("mobilenetv2_100", weights=str(file)) == WeightsOrigin("model.safetensors")


def test_a_model_folder_of_tlkit_keeps_its_origin(fitted: Path, tmp_path: Path) -> None:
    """Trained from a file, it names that file also where it is the folder that others start from."""
    network = timm.create_model("test_resnet")
    save_file(network.state_dict(), tmp_path / "mine.safetensors")
    recipe = tlkit.read_recipe(fitted)
    changes = {
        "backbone.name": "test_resnet",
        "backbone.weights": str(tmp_path / "mine.safetensors"),
        "training.epochs": 1,
    }
    ended = tlkit.run(recipe.path, overrides=changes, phases=["bottleneck"], out=tmp_path / "run")
    (result,) = ended.results.phases
    assert result.weights == WeightsOrigin("mine.safetensors")
    assert str(tmp_path) not in (tmp_path / "run" / "results.json").read_text()
    model = tmp_path / "run" / "phases" / "bottleneck" / "model"
    assert origin(f"local-dir:{model}") == WeightsOrigin("mine.safetensors")


def test_a_licence_that_is_no_text_is_refused(weights: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(weights, tmp_path / "strange")
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(config.replace('"apache-2.0"', "7"))
    with pytest.raises(tlkit.TlkitError, match="source and license are texts"):
        origin(f"local-dir:{folder}")


@pytest.mark.parametrize(
    ("source", "license"), [("", None), ("x" * 1001, None), ("x", "y" * 1001), (1, None)]
)
def test_origins_are_short_texts(source: object, license: object) -> None:
    with pytest.raises(ValueError, match="texts of 1 to 1000"):
        WeightsOrigin(source, license)  # type: ignore[arg-type]
