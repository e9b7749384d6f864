"""A manifest stands for the images that it lists: same splits, same results, nothing hashed again."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest
from commands import command
from drawings import CLASSES
from pyarrow import parquet as pq
from recipes import write_recipe as write_text
from small_runs import Runner, predictions, without

import tlkit
from tlkit.data import image_index, inspection
from tlkit.errors import DataError
from tlkit.plugins.loader import load_registry

SOURCE = '{{ source = {{ name = "parquet", file = "{file}" }}, root = "{root}" }}'


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets files that were written just now count as settled."""
    monkeypatch.setattr(image_index, "RACY_NS", 0)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are hashed."""
    names: list[str] = []
    inspect = inspection.inspect_image
    monkeypatch.setattr(
        inspection, "inspect_image", lambda sample: (names.append(sample.id), inspect(sample))[1]
    )
    return names


@pytest.mark.usefixtures("settled")
def test_a_run_of_a_manifest_is_the_run_of_its_images(
    run: Runner, few_photos: Path, tmp_path: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    short = {"training.epochs": 1}
    first = run(overrides=short, phases="bottleneck")
    file = tmp_path / "images.parquet"
    written = tlkit.manifest(first.recipe, out=file)
    assert (written.root, written.images) == (few_photos, 30)
    reads.clear()
    monkeypatch.setattr(image_index.ImageIndex, "find", lambda _, files: [None] * len(files))
    data = {"source": {"name": "parquet", "file": str(file)}, "root": str(few_photos)}
    again = run(overrides={**short, "data": data}, phases="bottleneck")
    assert reads == []
    assert [phase.features.computed for phase in again.results.phases] == [0]
    assert without(again.results, "seconds", "features") == without(first.results, "seconds", "features")
    assert predictions(again, "bottleneck") == predictions(first, "bottleneck")

    changed = few_photos / "cat.1.jpg"
    status = changed.stat()
    os.utime(changed, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    run(overrides={"data": data}, plan_only=True)
    assert reads == ["cat.1.jpg"]


def test_files_that_may_have_changed_since_are_hashed_again(
    run: Runner, few_photos: Path, tmp_path: Path, reads: list[str]
) -> None:
    """The photos were written just now."""
    recipe = run(plan_only=True).recipe
    tlkit.manifest(recipe, out=tmp_path / "images.parquet")
    reads.clear()
    data = {"source": {"name": "parquet", "file": str(tmp_path / "images.parquet")}, "root": str(few_photos)}
    run(overrides={"data": data}, plan_only=True)
    assert len(reads) == 30
    for choice in ("stop", "skip"):
        elsewhere = {"data": data | {"root": str(tmp_path), "on_unreadable": choice}}
        with pytest.raises(DataError, match=r"30 images, and none of them exists, .*: correct data.root"):
            run(overrides=elsewhere, plan_only=True)
    with pytest.raises(DataError, match=r"images.csv: manifests are .*a name that ends in .parquet"):
        tlkit.manifest(recipe, out=tmp_path / "images.csv")


def test_the_command_prints_what_a_recipe_needs(by_class: Path, tmp_path: Path) -> None:
    recipe = write_text(
        tmp_path,
        f'name = "pets"\ndata = {{ source = "folder", root = "{by_class}" }}\n'
        'backbone = { name = "vgg16-quarter" }\n[[phase]]\nname = "probe"\n',
    )
    ended = command("manifest", recipe, "--out", tmp_path / "pets.parquet")
    said = " ".join(ended.stdout.split())
    assert ended.returncode == 0, ended.stderr
    assert "pets.parquet: 80 images. A recipe reads it with data = { source = { name =" in said
    assert said.endswith(f'root = "{by_class}" }}')
    missing = command("manifest", recipe, "--out", "/proc/nowhere/pets.parquet")
    assert missing.returncode == 2 and "cannot be written" in missing.stderr


def test_a_manifest_keeps_groups(by_class: Path, tmp_path: Path) -> None:
    groups = [f"{kind} {number}" for kind in ("cat", "dog") for number in (1, 1, 2)]
    images = [path for kind in ("cat", "dog") for path in sorted((by_class / kind).iterdir())[:3]]
    rows = [
        f"{path.relative_to(by_class)},{path.parent.name},{group}"
        for path, group in zip(images, groups, strict=True)
    ]
    table = tmp_path / "images.csv"
    table.write_text("\n".join(["path,label,group", *rows]))
    source = f'{{ name = "csv", file = "{table}", group_column = "group" }}'
    recipe = write_text(
        tmp_path,
        f'name = "pets"\ndata = {{ source = {source}, root = "{by_class}", folds = 2 }}\n'
        'backbone = { name = "vgg16-quarter" }\n[[phase]]\nname = "probe"\n',
    )
    written = tlkit.manifest(recipe, out=tmp_path / "images.parquet")
    read = load_registry().make("source", "parquet", {"file": written.file}, by_class)
    assert [sample.group for sample in read.samples] == groups


def test_a_manifest_of_several_labels_per_image(several_labels: Path, tmp_path: Path) -> None:
    recipe = tlkit.read_recipe(several_labels / "run")
    written = tlkit.manifest(recipe, out=tmp_path / "images.parquet")
    assert written.images == 240
    table = pq.read_table(written.file).to_pydict()
    with (several_labels / "run" / "splits.csv").open() as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    for name, labels, split in zip(table["id"], table["label"], table["split"], strict=True):
        assert "|".join(labels) == rows[name]["label"] and split == rows[name]["split"]
    source = load_registry().make("source", "parquet", {"file": written.file}, written.root)
    assert source.classes == CLASSES and {sample.labels for sample in source.samples} == {
        (),
        (0,),
        (1,),
        (0, 1),
    }
