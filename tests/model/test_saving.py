"""Model folders: the same network comes back, plain timm loads what it can, strangers' files do no harm."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import timm
import torch
from model_folders import change_config, sign
from networks import KINDS, REGISTRY, backbone

import tlkit
from tlkit.errors import RunFolderError
from tlkit.model.classifier import Classifier
from tlkit.model.description import Calibration, read_config
from tlkit.model.saving import load_model, save_model
from tlkit.parts.backbone import Backbone
from tlkit.plugins.loader import load_registry

CLASSES = ["a", "b", "c"]
REJECTING = Calibration(temperature=1.5, reject_below=0.8)


def save_classifier(
    folder: Path, base: Backbone, head: str, calibration: Calibration = REJECTING
) -> Classifier:
    """Writes the model folder of the backbone with a new head, and returns the classifier."""
    classifier = Classifier(base, REGISTRY.make("head", head, {}, base, CLASSES)).eval()
    save_model(
        folder,
        classifier,
        base,
        backbone_table={"name": "unused"},
        head_table={"name": head},
        classes=CLASSES,
        calibration=calibration,
    )
    return classifier


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_the_same_network_comes_back(kind: str, head: str, tmp_path: Path) -> None:
    classifier = save_classifier(tmp_path / "model", backbone(kind), head)
    model = load_model(tmp_path / "model", REGISTRY)
    assert model.classes == tuple(CLASSES)
    assert model.backbone.preprocess.size == 64
    assert model.calibration == REJECTING
    state = classifier.state_dict()
    assert state.keys() == model.classifier.state_dict().keys()
    assert all(torch.equal(value, state[name]) for name, value in model.classifier.state_dict().items())
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(model.classifier(images), classifier(images))


@pytest.mark.parametrize("kind", ["residual", "transformer"])
def test_plain_timm_loads_a_linear_head_on_pooled_features(kind: str, tmp_path: Path) -> None:
    classifier = save_classifier(tmp_path / "model", backbone(kind), "linear")
    of_timm = timm.create_model(f"local-dir:{tmp_path / 'model'}", pretrained=True).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(of_timm(images), classifier(images))
    assert of_timm.pretrained_cfg["label_names"] == CLASSES
    assert list(of_timm.pretrained_cfg["input_size"]) == [3, 64, 64]


def test_plain_timm_loads_a_plugins_network_of_timm(tmp_path: Path) -> None:
    base = tlkit.from_timm(timm.create_model("test_resnet"), preprocess=tlkit.Preprocess(size=64))
    classifier = save_classifier(tmp_path / "model", base, "linear")
    of_timm = timm.create_model(f"local-dir:{tmp_path / 'model'}", pretrained=True).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(of_timm(images), classifier(images))
    # the same weights, and another network
    changed = timm.create_model("test_resnet")
    changed.act1 = torch.nn.GELU()
    assert tlkit.from_timm(changed).timm_config is None


def test_a_model_without_rejection_has_no_threshold(tmp_path: Path) -> None:
    save_classifier(tmp_path / "model", backbone("residual"), "mlp", Calibration(temperature=1.0))
    description = read_config(tmp_path / "model").tlkit
    assert description.calibration == Calibration(temperature=1.0, reject_below=None)
    assert (description.head.name, description.head.options) == ("mlp", {})
    assert description.classifier_layer is None


def test_options_of_a_blueprint_are_written_as_they_are(tmp_path: Path) -> None:
    """A None differs from a default: a plugin's blueprint may hold a whole configuration."""
    base = backbone("residual")
    base.blueprint = {"name": "a-plugins", "config": {"limit": None, "sizes": [1, 2]}, "weights": None}
    save_classifier(tmp_path / "model", base, "mlp")
    part = read_config(tmp_path / "model").tlkit.backbone
    assert part.name == "a-plugins"
    assert part.options == {"config": {"limit": None, "sizes": [1, 2]}, "weights": None}


def test_a_missing_plugin_is_named_with_the_command_that_installs_it(tmp_path: Path) -> None:
    base = backbone("residual")
    base.blueprint = {"name": "night-vision"}
    save_classifier(tmp_path / "model", base, "mlp")
    change_config(tmp_path / "model", lambda config: config["tlkit"].update(plugins={"tlkit-night": "1.2"}))
    with pytest.raises(
        RunFolderError, match=r"'night-vision'.* tlkit-night 1\.2, .*pip install tlkit-night$"
    ):
        load_model(tmp_path / "model", load_registry())
    # it is shown in a command
    change_config(tmp_path / "model", lambda config: config["tlkit"].update(plugins={"x; rm -rf ~": "1"}))
    with pytest.raises(RunFolderError, match=r"tlkit\.plugins"):
        read_config(tmp_path / "model")


def test_a_saved_model_replaces_the_one_before(tmp_path: Path) -> None:
    save_classifier(tmp_path / "model", backbone("residual"), "linear")
    (tmp_path / "model" / "left-over").touch()
    save_classifier(tmp_path / "model", backbone("residual"), "mlp")
    assert load_model(tmp_path / "model", REGISTRY).config.tlkit.head.name == "mlp"
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == [
        "config.json",
        "model.safetensors",
    ]
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("model")] == ["model"]


def test_folders_that_cannot_be_loaded(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    save_classifier(folder, backbone("residual"), "mlp")
    config = folder / "config.json"
    text = config.read_text()
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    with pytest.raises(RunFolderError, match=r"is not a model folder: it has no config\.json"):
        load_model(tmp_path, REGISTRY)
    config.write_text(text[:100])
    with pytest.raises(RunFolderError, match=r"config\.json cannot be read"):
        load_model(folder, REGISTRY)
    newer = json.loads(text)
    newer["tlkit"]["format"] = 99
    newer["tlkit"]["unknown"] = True
    config.write_text(json.dumps(newer))
    with pytest.raises(RunFolderError, match="newer tlkit"):
        load_model(folder, REGISTRY)
    other = json.loads(text)
    other["tlkit"]["classes"] = ["a", "b"]
    config.write_text(json.dumps(other))
    with pytest.raises(RunFolderError, match="not as tlkit wrote it"):
        load_model(folder, REGISTRY)
    sign(other)
    config.write_text(json.dumps(other))
    with pytest.raises(RunFolderError, match="do not belong together"):
        load_model(folder, REGISTRY)
    config.write_text(text)
    weights.write_bytes(content[: len(content) // 2])
    with pytest.raises(RunFolderError, match=r"model\.safetensors cannot be read"):
        load_model(folder, REGISTRY)
    torch.save({"a": torch.zeros(1)}, weights)
    with pytest.raises(RunFolderError, match=r"model\.safetensors cannot be read"):
        load_model(folder, REGISTRY)
    altered = bytearray(content)
    altered[-1] ^= 1
    weights.write_bytes(altered)
    with pytest.raises(RunFolderError, match=r"is not the file that config\.json was written for"):
        load_model(folder, REGISTRY)
    weights.unlink()
    with pytest.raises(RunFolderError, match=r"is not a model folder: it has no model\.safetensors"):
        load_model(folder, REGISTRY)
