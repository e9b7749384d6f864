"""Splits from a file: used as they are, and never silently different."""

from __future__ import annotations

from pathlib import Path

import pytest

from tlkit.data.dataset import Dataset, read_dataset
from tlkit.errors import DataError, RecipeError
from tlkit.experiment.sources import make_source
from tlkit.plugins.loader import load_registry
from tlkit.recipe.recipe import read_recipe
from tlkit.recipe.schema import DataSpec, PartSpec

#: Of four images per class, one is for validation and one for testing.
ROWS = [(f"{name}/{n}.png", ("train", "train", "val", "test")[n]) for name in "ab" for n in range(4)]


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    from PIL import Image

    folder = tmp_path_factory.mktemp("letters")
    for number, (name, _) in enumerate(ROWS):
        (folder / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), (number, 0, 0)).save(folder / name)
    return folder


@pytest.fixture
def read(root, tmp_path):
    """Reads the dataset with the splits of a text, or of the rows above."""

    def read_with(text: str | None = None, **options: object) -> Dataset:
        path = tmp_path / "splits.csv"
        path.write_text(text or "image,split\n" + "".join(f"{name},{split}\n" for name, split in ROWS))
        data = DataSpec(source=PartSpec(name="folder"), root=root, splits=path, **options)
        return read_dataset(make_source(data, load_registry()), data, 1, lambda _: None)

    return read_with


def ids(images) -> list[str]:
    return [image.sample.id for image in images]


def test_splits_are_those_of_the_file(read):
    splits = read().splits
    assert ids(splits.train) == ["a/0.png", "a/1.png", "b/0.png", "b/1.png"]
    assert ids(splits.val) == ["a/2.png", "b/2.png"]
    assert ids(splits.test) == ["a/3.png", "b/3.png"]


def test_with_folds_test_images_stay_and_all_others_are_in_folds(read):
    dataset = read(folds=2)
    assert ids(dataset.splits.test) == ["a/3.png", "b/3.png"]
    assert len(dataset.splits.train) == 6 and not dataset.splits.val


def test_images_that_are_not_listed_stop_or_are_left_out_and_listed(read):
    text = "image,split\n" + "".join(f"{name},{split}\n" for name, split in ROWS if name != "a/0.png")
    with pytest.raises(DataError, match=r"a/0\.png: is not listed in .*splits\.csv(.|\n)*on_unreadable=skip"):
        read(text)
    dataset = read(text, on_unreadable="skip")
    assert [image for image, _ in dataset.rejected] == ["a/0.png"]
    assert "a/0.png" not in ids(dataset.splits.train)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,split\na/0.pgn,train\n", r"does not have\n.*'a/0\.pgn' \(did you mean 'a/0\.png'"),
        ("image,split\na/0.png,trian\n", r"line 2: the split must be train, val, test, and is 'trian'"),
        ("image,split\na/0.png,train\na/0.png,test\n", r"line 3: a/0\.png is in the split 'train' above"),
        ("path,split\na/0.png,train\n", r"needs the columns image and split, and has path, split"),
        ("image,split\na/0.png\n", r"line 2 has 1 cells"),
        ("image,split\na/0.png,test\nb/0.png,test\n", r"no image has the split train"),
    ],
)
def test_mistakes_in_the_file_are_named(read, text, message):
    with pytest.raises(DataError, match=message):
        read(text, on_unreadable="skip")


def test_a_file_that_is_missing_is_a_clear_error(root, tmp_path):
    data = DataSpec(source=PartSpec(name="folder"), root=root, splits=tmp_path / "none.csv")
    with pytest.raises(DataError, match=r"none\.csv cannot be read \(data\.splits\)"):
        read_dataset(make_source(data, load_registry()), data, 1, lambda _: None)


def test_the_path_is_relative_to_the_recipe_and_excludes_drawn_splits(tmp_path):
    recipe = tmp_path / "recipe.toml"
    text = (
        'name = "x"\nbackbone = "resnet18"\nphase = [{ name = "p" }]\n'
        '[data]\nsource = "folder"\nsplits = "s.csv"\n'
    )
    recipe.write_text(text)
    data = read_recipe(recipe).data
    assert data is not None and data.splits == tmp_path.resolve() / "s.csv"
    recipe.write_text(f"{text}fractions = {{ val = 0.1 }}\n")
    with pytest.raises(RecipeError, match="splits and fractions exclude each other"):
        read_recipe(recipe)
