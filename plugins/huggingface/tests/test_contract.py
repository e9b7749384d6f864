"""The plugin's parts pass the contract suite."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers
from datasets import ClassLabel, Dataset, Features, Image
from tlkit_catsdogs.drawn.world import draw

from tlkit.testing import check_backbone, check_source

TOKENS = {
    "image_size": 32,
    "patch_size": 8,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
STAGES = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}
CONFIGS = {
    "vit": transformers.ViTConfig(**TOKENS, intermediate_size=64, num_labels=5),
    "resnet": transformers.ResNetConfig(**STAGES, num_labels=5),
}


@pytest.mark.parametrize(
    ("kind", "features"),
    [
        ("vit", "map"),
        ("resnet", "pooled"),
        pytest.param("vit", "pooled", marks=pytest.mark.slow),
        pytest.param("resnet", "map", marks=pytest.mark.slow),
    ],
)
def test_backbones(kind: str, features: str, tmp_path: Path) -> None:
    torch.manual_seed(3)
    transformers.AutoModelForImageClassification.from_config(CONFIGS[kind]).save_pretrained(tmp_path)
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    check_backbone(f"transformers:{tmp_path}", features=features)


def test_a_parquet_file(tmp_path: Path) -> None:
    rows = [{"image": {"bytes": draw("street", 1, n), "path": f"{n}.jpg"}, "label": n % 2} for n in range(6)]
    features = Features({"image": Image(), "label": ClassLabel(names=["cat", "dog"])})
    Dataset.from_list(rows, features=features).to_parquet(tmp_path / "animals.parquet")
    check_source("datasets", root=tmp_path / "animals.parquet")


def test_an_image_folder(by_class: Path) -> None:
    check_source("datasets", root=by_class)
