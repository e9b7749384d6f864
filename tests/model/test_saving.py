"""Model folders: the same network comes back, plain timm reads what it can, strangers' files do no harm."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import timm
import torch
from networks import KINDS, REGISTRY, backbone

from tlkit.errors import RunFolderError
from tlkit.model.classifier import Classifier
from tlkit.model.saving import load_model, save_model

CLASSES = ["a", "b", "c"]


def saved(folder: Path, kind: str, head: str) -> Classifier:
    base = backbone(kind)
    network = Classifier(base, REGISTRY.make("head", head, {}, base, CLASSES)).eval()
    save_model(
        folder,
        network,
        base,
        backbone_table={"name": "unused"},
        head_table={"name": head},
        classes=CLASSES,
        calibration={"temperature": 1.5, "reject_below": 0.8},
    )
    return network


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_the_same_network_comes_back(kind: str, head: str, tmp_path: Path) -> None:
    network = saved(tmp_path / "model", kind, head)
    found = load_model(tmp_path / "model", REGISTRY)
    assert found.classes == tuple(CLASSES)
    assert found.backbone.preprocess.size == 64
    assert (found.temperature, found.reject_below) == (1.5, 0.8)
    state = network.state_dict()
    assert state.keys() == found.classifier.state_dict().keys()
    assert all(torch.equal(value, state[name]) for name, value in found.classifier.state_dict().items())
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(found.classifier(images), network(images))


@pytest.mark.parametrize("kind", ["residual", "transformer"])
def test_plain_timm_reads_a_linear_head_on_pooled_features(kind: str, tmp_path: Path) -> None:
    network = saved(tmp_path / "model", kind, "linear")
    theirs = timm.create_model(f"local-dir:{tmp_path / 'model'}", pretrained=True).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(theirs(images), network(images))
    assert theirs.pretrained_cfg["label_names"] == CLASSES
    assert list(theirs.pretrained_cfg["input_size"]) == [3, 64, 64]


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    saved(tmp_path / "model", "residual", "mlp")
    config = tmp_path / "model" / "config.json"
    text = config.read_text()
    weights = tmp_path / "model" / "model.safetensors"
    content = weights.read_bytes()
    with pytest.raises(RunFolderError, match="no model folder"):
        load_model(tmp_path, REGISTRY)
    config.write_text(text[:100])
    with pytest.raises(RunFolderError, match="no sound model folder"):
        load_model(tmp_path / "model", REGISTRY)
    newer = json.loads(text)
    newer["tlkit"]["format"] = 99
    config.write_text(json.dumps(newer))
    with pytest.raises(RunFolderError, match="newer tlkit"):
        load_model(tmp_path / "model", REGISTRY)
    other = json.loads(text)
    other["tlkit"]["classes"] = ["a", "b"]
    config.write_text(json.dumps(other))
    with pytest.raises(RunFolderError, match="do not belong together"):
        load_model(tmp_path / "model", REGISTRY)
    config.write_text(text)
    weights.write_bytes(content[: len(content) // 2])
    with pytest.raises(RunFolderError, match="no sound model folder"):
        load_model(tmp_path / "model", REGISTRY)
    torch.save({"a": torch.zeros(1)}, weights)
    with pytest.raises(RunFolderError, match="no sound model folder"):
        load_model(tmp_path / "model", REGISTRY)
