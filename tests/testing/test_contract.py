"""tlkit's own parts and those of the reference plugin pass the contract suite."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from networks import REGISTRY
from pyarrow import parquet

from tlkit.plugins.registry import KINDS
from tlkit.testing import CHECKS, Result, results

UNTRAINED = {"weights": "none"}
SMALL_VIT = {"img_size": 32, "depth": 3}
#: kind, name, options: every part that is registered by name, and several of timm's networks.
PARTS: list[tuple[str, str, dict[str, Any]]] = [
    ("backbone", "convnet3", {}),
    ("backbone", "vgg16-quarter", {}),
    ("backbone", "test_resnet", UNTRAINED),
    ("backbone", "test_efficientnet", {**UNTRAINED, "features": "map"}),
    ("backbone", "vit_tiny_patch16_224", {**UNTRAINED, "features": "map", "model_args": SMALL_VIT}),
    ("head", "linear", {"dropout": 0.5}),
    ("head", "mlp", {"hidden": 8}),
    ("head", "probe", {}),
    ("head", "prototype", {}),
    ("head", "knn", {"neighbours": 3}),
    ("head", "class-groups", {"groups": {"a": "0-3", "b": [4, 5], "c": "6"}}),
    ("loss", "cross-entropy", {"label_smoothing": 0.1}),
    ("loss", "focal", {"gamma": 0.5}),
    ("loss", "binary-cross-entropy", {}),
    ("augmentation", "none", {}),
    ("augmentation", "affine", {"rotation": 20.0, "zoom": 0.2, "flip": True}),
    ("augmentation", "standard", {}),
    ("freeze-policy", "backbone", {}),
    ("freeze-policy", "nothing", {}),
    ("freeze-policy", "all-but-last-blocks", {"blocks": 2}),
    ("freeze-policy", "matching", {"trainable": ["backbone.last.*", "head.*"]}),
    ("source", "drawn", {"per_class": 20, "without_label": 5}),
    ("source", "catsdogs", {}),
    ("source", "folder", {}),
    ("source", "csv", {"split_column": "split"}),
    ("source", "parquet", {}),
    ("source", "webdataset", {}),
]


def failures(collected: list[Result]) -> list[str]:
    return [f"{result.check}: {result.message}" for result in collected if result.outcome == "failed"]


@pytest.mark.parametrize(("kind", "name", "options"), PARTS, ids=[f"{row[0]} {row[1]}" for row in PARTS])
def test_a_part_passes_the_contract_suite(
    kind: str, name: str, options: dict[str, Any], few_photos: Path, by_class: Path, tmp_path: Path
) -> None:
    roots = {"catsdogs": few_photos, "folder": by_class, "csv": by_class, "parquet": by_class}
    root = roots.get(name)
    if name == "csv":
        files = sorted(by_class.glob("*/*.jpg"))
        rows = [
            f"{file.relative_to(by_class).as_posix()},{file.parent.name},{('train', 'test')[number % 2]}"
            for number, file in enumerate(files)
        ]
        table = tmp_path / "labels.csv"
        table.write_text("\n".join(["path,label,split", *rows]))
        options = {**options, "file": str(table)}
    if name == "parquet":
        files = sorted(by_class.glob("*/*.jpg"))
        paths = [file.relative_to(by_class).as_posix() for file in files]
        columns = {"path": paths, "label": [file.parent.name for file in files]}
        parquet.write_table(pyarrow.table(columns), tmp_path / "images.parquet")
        options = {"file": str(tmp_path / "images.parquet")}
    if name == "webdataset":
        root = tmp_path / "shards"
        root.mkdir()
        with tarfile.open(root / "0.tar", "w") as shard:
            for file in sorted(by_class.glob("*/*.jpg")):
                key, label = f"{file.parent.name}-{file.stem}", file.parent.name.encode()
                shard.add(file, f"{key}.jpg")
                entry = tarfile.TarInfo(f"{key}.cls")
                entry.size = len(label)
                shard.addfile(entry, io.BytesIO(label))
    size = {"backbone": 32}.get(kind)
    collected = list(results(kind, name, options, registry=REGISTRY, root=root, size=size))
    assert not failures(collected)
    assert len(collected) == len(CHECKS[kind]) + 2


def test_no_part_is_left_out() -> None:
    tested = {(kind, name) for kind, name, _ in PARTS}
    own = ("tlkit", "tlkit-catsdogs")  # the tests of the other plugins check their own
    parts = [part for kind in KINDS for part in REGISTRY.parts(kind)]
    assert {(part.kind, part.name) for part in parts if part.owner in own} <= tested
