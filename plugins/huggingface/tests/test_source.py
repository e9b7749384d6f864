"""Tables of datasets as a source, and a complete run on one."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import transformers
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, Value
from tlkit_catsdogs.drawn.world import draw

import tlkit
from tlkit import DataError, Source
from tlkit.data.generate import generate, missing_images

REGISTRY = tlkit.load_registry()
CLASSES = ["cat", "dog"]


@pytest.fixture(autouse=True)
def quiet() -> None:
    datasets.disable_progress_bars()


def rows(count: int, unlabelled: int = 0) -> list[dict[str, Any]]:
    """Returns rows of drawn animals, cats and dogs in turn, the last ones without a label."""
    return [
        {
            "image": {"bytes": draw("street", 1, number), "path": f"{number}.jpg"},
            "label": number % 2 if number < count - unlabelled else -1,
        }
        for number in range(count)
    ]


def make_table(content: list[dict[str, Any]], **features: Any) -> Dataset:
    columns = {"image": Image(), "label": ClassLabel(names=CLASSES), **features}
    return Dataset.from_list(content, features=Features(columns))


def read_source(root: Path | None, **options: Any) -> Source:
    source: Source = REGISTRY.make("source", "datasets", options, root)
    return source


def write_images(source: Source) -> int:
    """Generates the missing images; returns their number."""
    missing = missing_images(source)
    if missing:
        generate(source, missing, lambda _: None)
    return len(missing)


@pytest.mark.parametrize("how", ["file", "folder", "saved"])
def test_images_in_a_table_are_written_once_and_unchanged(tmp_path: Path, how: str) -> None:
    content = rows(8, unlabelled=2)
    root = tmp_path / ("animals.parquet" if how == "file" else "animals")
    if how == "saved":
        make_table(content).save_to_disk(root)
    else:
        file = root if how == "file" else root / "train-00000-of-00001.parquet"
        file.parent.mkdir(exist_ok=True)
        make_table(content).to_parquet(file)
    source = read_source(root)
    assert source.classes == ("cat", "dog")
    assert [sample.label for sample in source.samples] == [0, 1, 0, 1, 0, 1]
    assert len(source.unlabelled) == 2 and {sample.split for sample in source.samples} == {None}
    assert write_images(source) == 8
    samples = [*source.samples, *source.unlabelled]
    assert [sample.path.read_bytes() for sample in samples] == [row["image"]["bytes"] for row in content]
    assert all(sample.path.is_relative_to(tlkit.cache_folder() / "made") for sample in samples)
    again = read_source(root)
    assert again.samples == source.samples and again.unlabelled == source.unlabelled
    assert write_images(again) == 0 and len({sample.id for sample in samples}) == 8


def test_other_images_are_other_files(tmp_path: Path) -> None:
    root = tmp_path / "animals.parquet"
    content = rows(6)
    make_table(content[:4]).to_parquet(root)
    first = read_source(root)
    write_images(first)
    make_table(content[2:]).to_parquet(root)
    second = read_source(root)
    assert write_images(second) == 4
    assert second.samples[0].path.read_bytes() == content[2]["image"]["bytes"]


def test_an_image_folder_is_used_in_place(tmp_path: Path) -> None:
    for number, row in enumerate(rows(8)):
        file = tmp_path / ("train", "test")[number // 4] / CLASSES[number % 2] / f"{number}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(row["image"]["bytes"])
    source = read_source(tmp_path)
    assert source.make is None
    assert {sample.id: (sample.label, sample.split) for sample in source.samples} == {
        f"{split}/{CLASSES[number % 2]}/{number}.jpg": (number % 2, split)
        for number in range(8)
        for split in [("train", "test")[number // 4]]
    }


def test_the_tables_own_splits(tmp_path: Path) -> None:
    parts = {"train": rows(8), "validation": rows(4), "test": rows(6), "more": rows(4, unlabelled=4)}
    DatasetDict({name: make_table(part) for name, part in parts.items()}).save_to_disk(tmp_path)
    source = read_source(tmp_path)
    counts = Counter(sample.split for sample in source.samples)
    assert counts == {"train": 8, "val": 4, "test": 6} and len(source.unlabelled) == 4
    assert len({sample.id for sample in source.samples}) == 18
    assert {sample.split for sample in read_source(tmp_path, own_splits=False).samples} == {None}


def test_labels_that_are_strings_or_integers(tmp_path: Path) -> None:
    content = [{**row, "label": ("dog", "cat", None)[index % 3]} for index, row in enumerate(rows(6))]
    make_table(content, label=Value("string")).to_parquet(tmp_path / "strings.parquet")
    strings = read_source(tmp_path / "strings.parquet")
    assert strings.classes == ("cat", "dog") and len(strings.unlabelled) == 2
    content = [{**row, "label": (10, 9, -1)[index % 3]} for index, row in enumerate(rows(6))]
    make_table(content, label=Value("int64")).to_parquet(tmp_path / "integers.parquet")
    integers = read_source(tmp_path / "integers.parquet")
    assert integers.classes == ("9", "10") and integers.samples[0].label == 1
    assert len(integers.unlabelled) == 2


def test_bytes_that_are_not_declared_as_images(tmp_path: Path) -> None:
    """As pandas writes them."""
    content = [{"picture": row["image"]["bytes"], "kind": CLASSES[row["label"]]} for row in rows(4)]
    pq.write_table(pa.Table.from_pylist(content), tmp_path / "plain.parquet")
    source = read_source(tmp_path / "plain.parquet")
    assert write_images(source) == 4 and source.classes == ("cat", "dog")
    assert source.samples[0].path.read_bytes() == content[0]["picture"]


def test_ambiguous_and_unsuitable_columns(tmp_path: Path) -> None:
    content = [{**row, "mask": row["image"], "breed": row["label"]} for row in rows(4)]
    root = tmp_path / "both.parquet"
    make_table(content, mask=Image(), breed=ClassLabel(names=CLASSES)).to_parquet(root)
    with pytest.raises(DataError, match="image column: image, mask; name one with"):
        read_source(root)
    with pytest.raises(DataError, match="label column: label, breed; name one with"):
        read_source(root, image_column="image")
    with pytest.raises(DataError, match=r"no column 'imaeg' \(did you mean 'image'\?\)"):
        read_source(root, image_column="imaeg")
    with pytest.raises(DataError, match=r"no column 'bred' \(did you mean 'breed'\?\)"):
        read_source(root, image_column="image", label_column="bred")
    with pytest.raises(DataError, match="'label' does not hold images but ClassLabel"):
        read_source(root, image_column="label")
    with pytest.raises(DataError, match="'mask' does not hold classes but Image"):
        read_source(root, image_column="image", label_column="mask")
    assert len(read_source(root, image_column="mask", label_column="breed").samples) == 4
    make_table(rows(4)).select_columns(["image"]).to_parquet(tmp_path / "images.parquet")
    with pytest.raises(DataError, match=r"no label column besides the images; it has image \(Image\)"):
        read_source(tmp_path / "images.parquet")
    make_table(rows(4)).select_columns(["label"]).to_parquet(tmp_path / "labels.parquet")
    with pytest.raises(DataError, match=r"no image column; it has label \(ClassLabel\)"):
        read_source(tmp_path / "labels.parquet")


def test_rows_that_cannot_be_used(tmp_path: Path) -> None:
    content = [{**row, "label": CLASSES[row["label"]]} for row in rows(4)]
    content[1]["image"] = None
    content[2]["image"] = {"bytes": None, "path": "/nowhere/2.jpg"}
    pq.write_table(pa.Table.from_pylist(content), tmp_path / "holes.parquet")
    with pytest.raises(DataError, match=r"row 1: no image\n.*row 2: /nowhere/2\.jpg does not exist"):
        read_source(tmp_path / "holes.parquet")
    make_table(rows(4, unlabelled=4)).to_parquet(tmp_path / "none.parquet")
    with pytest.raises(DataError, match="has no labels; at least two classes"):
        read_source(tmp_path / "none.parquet")
    make_table(rows(4)[::2]).to_parquet(tmp_path / "cats.parquet")
    with pytest.raises(DataError, match="only one class, 'cat'"):
        read_source(tmp_path / "cats.parquet")
    DatasetDict({"left": make_table(rows(4)), "right": make_table(rows(4))}).save_to_disk(tmp_path / "sides")
    with pytest.raises(DataError, match="left, right; set own_splits = false"):
        read_source(tmp_path / "sides")


def test_roots_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "animals").mkdir()
    with pytest.raises(DataError, match=r"does not exist \(did you mean 'animals'\?\)"):
        read_source(tmp_path / "animal")
    with pytest.raises(DataError, match=r"holds no \.parquet files, no images"):
        read_source(tmp_path / "animals")
    (tmp_path / "table.csv").write_text("image,label\n")
    with pytest.raises(DataError, match=r"is not a \.parquet file"):
        read_source(tmp_path / "table.csv")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match=r"broken\.parquet cannot be read"):
        read_source(tmp_path / "broken.parquet")
    with pytest.raises(DataError, match="either a root or the option 'hub'"):
        read_source(None)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(DataError, match="could not be reached"):
        read_source(None, hub="someone/some-images")


def test_a_run_on_a_parquet_file(tmp_path: Path) -> None:
    """Addresses are relative to the recipe; a second run computes no features."""
    sizes = {"image_size": 64, "patch_size": 16, "hidden_size": 32, "intermediate_size": 64}
    config = transformers.ViTConfig(**sizes, num_hidden_layers=2, num_attention_heads=2)
    transformers.ViTForImageClassification(config).save_pretrained(tmp_path / "vit")
    transformers.ViTImageProcessor(size={"height": 64, "width": 64}).save_pretrained(tmp_path / "vit")
    make_table(rows(60)).to_parquet(tmp_path / "animals.parquet")
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        """
        name = "animals"
        [data]
        source = "datasets"
        root = "animals.parquet"
        [backbone]
        name = "transformers:./vit"
        [training]
        epochs = 1
        precision = "float32"
        [[phase]]
        name = "bottleneck"
        freeze = "backbone"
        [[phase]]
        name = "fine-tune"
        start_from = "bottleneck"
        freeze = { name = "all-but-last-blocks", blocks = 1 }
        """
    )
    first, second = (tlkit.run(recipe, out=tmp_path / name) for name in ("first", "second"))
    for before, after in zip(first.results.phases, second.results.phases, strict=True):
        assert before.features.computed + before.features.reused > 0
        assert after.features.computed == 0 and after.features.reused > 0
        assert before.test == after.test
    (tmp_path / "vit").rename(tmp_path / "moved")
    predictor = tlkit.load(first.folder)
    image = read_source(tmp_path / "animals.parquet").samples[0].path
    assert predictor.predict([image]).labels[0] in CLASSES
