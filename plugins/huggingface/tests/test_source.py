"""Tables of datasets as a source, and a whole run on one."""

from __future__ import annotations

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
from tlkit.data.generate import generate, missing_images
from tlkit.errors import DataError
from tlkit.parts.source import Source

REGISTRY = tlkit.load_registry()
CLASSES = ["cat", "dog"]


@pytest.fixture(autouse=True)
def quiet() -> None:
    datasets.disable_progress_bars()


def rows(count: int, unlabelled: int = 0) -> list[dict[str, Any]]:
    """Drawn animals, cats and dogs in turn, the last ones without a label."""
    return [
        {
            "image": {"bytes": draw("street", 1, number), "path": f"{number}.jpg"},
            "label": number % 2 if number < count - unlabelled else -1,
        }
        for number in range(count)
    ]


def table(content: list[dict[str, Any]], **features: Any) -> Dataset:
    columns = {"image": Image(), "label": ClassLabel(names=CLASSES), **features}
    return Dataset.from_list(content, features=Features(columns))


def found(root: Path | None, **options: Any) -> Source:
    source: Source = REGISTRY.make("source", "datasets", options, root)
    return source


def written(source: Source) -> int:
    """Makes what is not there; how many that were."""
    missing = missing_images(source)
    if missing:
        generate(source, missing, lambda _: None)
    return len(missing)


@pytest.mark.parametrize("how", ["file", "folder", "saved"])
def test_images_in_a_table_are_written_once_and_unchanged(tmp_path: Path, how: str) -> None:
    content = rows(8, unlabelled=2)
    root = tmp_path / ("animals.parquet" if how == "file" else "animals")
    if how == "saved":
        table(content).save_to_disk(root)
    else:
        file = root if how == "file" else root / "train-00000-of-00001.parquet"
        file.parent.mkdir(exist_ok=True)
        table(content).to_parquet(file)
    source = found(root)
    assert source.classes == ("cat", "dog")
    assert [sample.label for sample in source.samples] == [0, 1, 0, 1, 0, 1]
    assert len(source.unlabelled) == 2 and {sample.split for sample in source.samples} == {None}
    assert written(source) == 8
    everything = [*source.samples, *source.unlabelled]
    assert [sample.path.read_bytes() for sample in everything] == [row["image"]["bytes"] for row in content]
    assert all(sample.path.is_relative_to(tlkit.cache_folder() / "made") for sample in everything)
    again = found(root)
    assert again.samples == source.samples and again.unlabelled == source.unlabelled
    assert written(again) == 0 and len({sample.id for sample in everything}) == 8


def test_other_images_are_other_files(tmp_path: Path) -> None:
    root = tmp_path / "animals.parquet"
    content = rows(6)
    table(content[:4]).to_parquet(root)
    first = found(root)
    written(first)
    table(content[2:]).to_parquet(root)
    second = found(root)
    assert written(second) == 4
    assert second.samples[0].path.read_bytes() == content[2]["image"]["bytes"]


def test_an_image_folder_is_used_where_it_lies(tmp_path: Path) -> None:
    for number, row in enumerate(rows(8)):
        file = tmp_path / ("train", "test")[number // 4] / CLASSES[number % 2] / f"{number}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(row["image"]["bytes"])
    source = found(tmp_path)
    assert source.make is None
    assert {sample.id: (sample.label, sample.split) for sample in source.samples} == {
        f"{split}/{CLASSES[number % 2]}/{number}.jpg": (number % 2, split)
        for number in range(8)
        for split in [("train", "test")[number // 4]]
    }


def test_the_tables_own_splits(tmp_path: Path) -> None:
    parts = {"train": rows(8), "validation": rows(4), "test": rows(6), "more": rows(4, unlabelled=4)}
    DatasetDict({name: table(part) for name, part in parts.items()}).save_to_disk(tmp_path)
    source = found(tmp_path)
    counts = {
        split: sum(each.split == split for each in source.samples) for split in ("train", "val", "test")
    }
    assert counts == {"train": 8, "val": 4, "test": 6} and len(source.unlabelled) == 4
    assert len({sample.id for sample in source.samples}) == 18
    assert {sample.split for sample in found(tmp_path, own_splits=False).samples} == {None}


def test_labels_that_are_texts_or_numbers(tmp_path: Path) -> None:
    content = [{**row, "label": ("dog", "cat", None)[place % 3]} for place, row in enumerate(rows(6))]
    table(content, label=Value("string")).to_parquet(tmp_path / "texts.parquet")
    texts = found(tmp_path / "texts.parquet")
    assert texts.classes == ("cat", "dog") and len(texts.unlabelled) == 2
    content = [{**row, "label": (10, 9, -1)[place % 3]} for place, row in enumerate(rows(6))]
    table(content, label=Value("int64")).to_parquet(tmp_path / "numbers.parquet")
    numbers = found(tmp_path / "numbers.parquet")
    assert numbers.classes == ("9", "10") and numbers.samples[0].label == 1 and len(numbers.unlabelled) == 2


def test_bytes_that_nobody_declared_to_be_images(tmp_path: Path) -> None:
    """As pandas writes them."""
    content = [{"picture": row["image"]["bytes"], "kind": CLASSES[row["label"]]} for row in rows(4)]
    pq.write_table(pa.Table.from_pylist(content), tmp_path / "plain.parquet")
    source = found(tmp_path / "plain.parquet")
    assert written(source) == 4 and source.classes == ("cat", "dog")
    assert source.samples[0].path.read_bytes() == content[0]["picture"]


def test_columns_that_cannot_be_told(tmp_path: Path) -> None:
    content = [{**row, "mask": row["image"], "breed": row["label"]} for row in rows(4)]
    root = tmp_path / "both.parquet"
    table(content, mask=Image(), breed=ClassLabel(names=CLASSES)).to_parquet(root)
    with pytest.raises(DataError, match="image column: image, mask; name one with"):
        found(root)
    with pytest.raises(DataError, match="label column: label, breed; name one with"):
        found(root, image_column="image")
    with pytest.raises(DataError, match=r"no column 'imaeg' \(did you mean 'image'\?\)"):
        found(root, image_column="imaeg")
    with pytest.raises(DataError, match=r"no column 'bred' \(did you mean 'breed'\?\)"):
        found(root, image_column="image", label_column="bred")
    with pytest.raises(DataError, match="'label' holds no images but ClassLabel"):
        found(root, image_column="label")
    with pytest.raises(DataError, match="'mask' holds no classes but Image"):
        found(root, image_column="image", label_column="mask")
    assert len(found(root, image_column="mask", label_column="breed").samples) == 4
    table(rows(4)).select_columns(["image"]).to_parquet(tmp_path / "images.parquet")
    with pytest.raises(DataError, match=r"no label column besides the images; it has image \(Image\)"):
        found(tmp_path / "images.parquet")
    table(rows(4)).select_columns(["label"]).to_parquet(tmp_path / "labels.parquet")
    with pytest.raises(DataError, match=r"no image column; it has label \(ClassLabel\)"):
        found(tmp_path / "labels.parquet")


def test_rows_that_cannot_be_used(tmp_path: Path) -> None:
    content = [{**row, "label": CLASSES[row["label"]]} for row in rows(4)]
    content[1]["image"] = None
    content[2]["image"] = {"bytes": None, "path": "/nowhere/2.jpg"}
    pq.write_table(pa.Table.from_pylist(content), tmp_path / "holes.parquet")
    with pytest.raises(DataError, match=r"row 1: no image\n.*row 2: /nowhere/2\.jpg is no file"):
        found(tmp_path / "holes.parquet")
    table(rows(4, unlabelled=4)).to_parquet(tmp_path / "none.parquet")
    with pytest.raises(DataError, match="has no labels; at least two classes"):
        found(tmp_path / "none.parquet")
    table(rows(4)[::2]).to_parquet(tmp_path / "cats.parquet")
    with pytest.raises(DataError, match="only one class, 'cat'"):
        found(tmp_path / "cats.parquet")
    DatasetDict({"left": table(rows(4)), "right": table(rows(4))}).save_to_disk(tmp_path / "sides")
    with pytest.raises(DataError, match="left, right; set own_splits = false"):
        found(tmp_path / "sides")


def test_roots_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "animals").mkdir()
    with pytest.raises(DataError, match=r"not there \(did you mean 'animals'\?\)"):
        found(tmp_path / "animal")
    with pytest.raises(DataError, match=r"holds no \.parquet files, no images"):
        found(tmp_path / "animals")
    (tmp_path / "table.csv").write_text("image,label\n")
    with pytest.raises(DataError, match=r"is no \.parquet file"):
        found(tmp_path / "table.csv")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match=r"broken\.parquet cannot be read"):
        found(tmp_path / "broken.parquet")
    with pytest.raises(DataError, match="either a root or the option 'hub'"):
        found(None)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(DataError, match="could not be reached"):
        found(None, hub="someone/some-images")


def test_a_run_on_a_parquet_file(tmp_path: Path) -> None:
    """The relative addresses are the recipe's; the second run computes no features."""
    sizes = {"image_size": 64, "patch_size": 16, "hidden_size": 32, "intermediate_size": 64}
    config = transformers.ViTConfig(**sizes, num_hidden_layers=2, num_attention_heads=2)
    transformers.ViTForImageClassification(config).save_pretrained(tmp_path / "vit")
    transformers.ViTImageProcessor(size={"height": 64, "width": 64}).save_pretrained(tmp_path / "vit")
    table(rows(60)).to_parquet(tmp_path / "animals.parquet")
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
    phases = zip(first.results["phases"], second.results["phases"], strict=True)
    for before, after in phases:
        assert before["features"]["computed"] + before["features"]["reused"] > 0
        assert after["features"]["computed"] == 0 and after["features"]["reused"] > 0
        assert before["test"] == after["test"]
    (tmp_path / "vit").rename(tmp_path / "gone")
    predictor = tlkit.load(first.folder)
    image = next(each.path for each in found(tmp_path / "animals.parquet").samples)
    assert predictor.predict([image]).labels[0] in CLASSES
