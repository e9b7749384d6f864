"""What `tlkit.fit` can be given: lists of images and labels, data sets of PyTorch's and of Hugging Face's."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import datasets as hugging_face
import numpy as np
import pytest
import torch
from PIL import Image as PillowImage

import tlkit
from tlkit.analysis.images import TrainingImages, image_data
from tlkit.data.images import read_image
from tlkit.experiment.observer import Observer
from tlkit.experiment.record import find_image_files
from tlkit.experiment.sources import make_source
from tlkit.parts.source import Source
from tlkit.parts.task import Task
from tlkit.plugins.loader import load_registry
from tlkit.recipe.schema import DataSpec

REGISTRY = load_registry()


def source_of(images: TrainingImages, labels: Any = None, task: Task = "multiclass") -> Source:
    """Returns the source that a recipe has for these images."""
    data = image_data(images, labels, Observer(), task)
    return make_source(DataSpec(source=data.source, root=data.root), REGISTRY, task)


def named(source: Source) -> list[tuple[Path, str]]:
    return [(sample.path, source.classes[sample.label or 0]) for sample in source.samples]


@pytest.fixture(scope="module")
def paths(by_class: Path) -> list[Path]:
    return [by_class / kind / f"{number}.jpg" for number in range(1, 9) for kind in ("dog", "cat")]


class Photos(torch.utils.data.Dataset[tuple[Any, Any]]):
    """Photos with the index of their class, as torchvision has them."""

    classes = ("cat", "dog")

    def __init__(self, paths: list[Path], *, shift: int = 0, to_tensor: bool = False) -> None:
        self.paths = paths
        self.shift = shift
        self.to_tensor = to_tensor

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        image = read_image(self.paths[index])
        label = self.classes.index(self.paths[index].parent.name) + self.shift
        return (torch.zeros(3, 8, 8) if self.to_tensor else image), torch.tensor(label)


def test_files_stay_where_they_are(paths: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    source = source_of(paths, [path.parent.name for path in paths])
    assert named(source) == [(path, path.parent.name) for path in paths]
    assert [sample.id for sample in source.samples][:2] == ["dog/1.jpg", "cat/1.jpg"]
    monkeypatch.chdir(paths[0].parent)
    assert named(source_of(["../cat/1.jpg", "1.jpg"], np.array([10, 9]))) == [
        (paths[1], "10"),
        (paths[0], "9"),
    ]


def test_images_in_memory_are_trained_on_and_found_again(paths: list[Path], tmp_path: Path) -> None:
    images = [
        path if index % 4 < 2 else read_image(path) if index % 4 == 2 else np.asarray(read_image(path))
        for index, path in enumerate(paths[:8])
    ]
    labels = [path.parent.name for path in paths[:8]]
    options: dict[str, Any] = {"backbone": "vgg16-quarter", "quality": "fast", "folds": 2}
    run = tlkit.fit(images, labels, out=tmp_path / "run", **options)
    scores = run.results.phases[0].out_of_fold
    assert scores is not None and scores.n == 8
    files, _, _ = find_image_files(run.recipe, REGISTRY)
    pixels = {sample.path: np.asarray(read_image(sample.path)) for sample in files.values()}
    assert len(pixels) == 8
    for path in paths[:8]:
        assert any(np.array_equal(read_image(path), other) for other in pixels.values())
    # the same images are the same run
    finished = (run.folder / "results.json").stat().st_mtime_ns
    assert tlkit.fit(images, labels, out=tmp_path / "run", **options).results == run.results
    assert (run.folder / "results.json").stat().st_mtime_ns == finished
    assert tlkit.load(run.folder).predict(images[3]).labels[0] in ("cat", "dog")


def test_lists_of_several_labels(paths: list[Path]) -> None:
    labels = [["red", "circle"], [], "circle", "circle|red"]
    source = source_of(paths[:4], labels, "multilabel")
    assert [sample.path for sample in source.samples] == paths[:4]
    has = [[source.classes[index] for index in sample.class_indices] for sample in source.samples]
    assert has == [["circle", "red"], [], ["circle"], ["circle", "red"]]
    matrix = np.array([[0, 1], [1, 0]])
    for wrong in (matrix, matrix.tolist(), [["red"], [" red"]], [["red"], None]):
        with pytest.raises(tlkit.DataError, match=r"image 1: its labels are .*: give a list of class names"):
            source_of(paths[:2], wrong, "multilabel")
    with pytest.raises(tlkit.DataError, match="the labels have no classes"):
        source_of(paths[:2], [[], []], "multilabel")


def test_labels_in_a_tensor(paths: list[Path]) -> None:
    assert source_of(paths[:2], torch.tensor([1, 0])).classes == ("0", "1")
    assert source_of(paths[:2], [torch.tensor([1]), torch.tensor(0)]).classes == ("0", "1")


def test_copies_of_an_image_in_memory_stay_apart() -> None:
    grey, white = (PillowImage.new("L", (20, 20), value) for value in (128, 255))
    source = source_of([grey, white, grey], ["a", "b", "b"])
    assert [name for _, name in named(source)] == ["a", "b", "b"]
    assert len({sample.id for sample in source.samples}) == 3
    first, _, third = (read_image(sample.path) for sample in source.samples)
    assert first.tobytes() == third.tobytes()


def test_a_data_set_of_pytorch(paths: list[Path]) -> None:
    source = source_of(Photos(paths))
    assert [name for _, name in named(source)] == [path.parent.name for path in paths]
    for sample, path in zip(source.samples, paths, strict=True):
        assert read_image(sample.path).tobytes() == read_image(path).tobytes()
    subset = torch.utils.data.Subset(Photos(paths), [3, 0, 1])
    assert [name for _, name in named(source_of(subset))] == ["cat", "dog", "cat"]
    joined = torch.utils.data.ConcatDataset([subset, torch.utils.data.Subset(Photos(paths), [5])])
    assert [name for _, name in named(source_of(joined))] == ["cat", "dog", "cat", "cat"]
    renamed = Photos(paths)
    renamed.classes = ("dog", "cat")
    with pytest.raises(tlkit.DataError, match="put together have different classes"):
        source_of(torch.utils.data.ConcatDataset([subset, renamed]))
    with pytest.raises(tlkit.DataError, match="item 0 of the data set has the label 2; it has 2 classes"):
        source_of(Photos(paths, shift=1))
    with pytest.raises(tlkit.DataError, match=r"item 0 .* is a tensor, torch.float32 \(3, 8, 8\): leave its"):
        source_of(Photos(paths, to_tensor=True))


def test_data_sets_of_hugging_face(paths: list[Path], capfd: pytest.CaptureFixture[str]) -> None:
    features = hugging_face.Features(
        {"image": hugging_face.Image(), "label": hugging_face.ClassLabel(names=["cat", "dog"])}
    )
    rows = [{"image": str(path), "label": int(path.parent.name == "dog")} for path in paths]
    table = hugging_face.Dataset.from_list(rows, features=features)
    source = source_of(table)
    assert source.classes == ("cat", "dog") and len(source) == 16
    assert source.make is not None and source.make(source.samples[2]) == paths[2].read_bytes()
    splits = hugging_face.DatasetDict({"train": table.select(range(12)), "test": table.select(range(12, 16))})
    assert [sample.split for sample in source_of(splits).samples] == ["train"] * 12 + ["test"] * 4
    assert capfd.readouterr() == ("", "")  # no progress bars
    with pytest.raises(tlkit.DataError, match="of several labels per image, fit takes no data set of"):
        source_of(table, task="multilabel")
    with pytest.raises(tlkit.DataError, match="IterableDataset cannot be read twice"):
        source_of(table.to_iterable_dataset())


def test_mistakes(paths: list[Path], tmp_path: Path) -> None:
    with pytest.raises(tlkit.DataError, match=r"images without labels \(list\): give their labels"):
        image_data(paths, None, Observer())
    with pytest.raises(tlkit.DataError, match="there are 16 images and 2 labels"):
        source_of(paths, ["cat", "dog"])
    with pytest.raises(
        tlkit.DataError, match=r"(?s)image 1: .*nowhere.jpg does not exist.*image 2: its label"
    ):
        source_of([paths[0], tmp_path / "nowhere.jpg", paths[1]], ["a", "b", None])
    with pytest.raises(
        tlkit.DataError, match=r"(?s)image 0: its label is nan.*image 2: its label is '1', and"
    ):
        source_of(paths[:3], [float("nan"), 1, "1"])
    with pytest.raises(tlkit.DataError, match=r"dog/1.jpg is given twice"):
        source_of([paths[0], paths[1], paths[0]], ["a", "b", "a"])
    with pytest.raises(tlkit.DataError, match=r"^the labels have one class, 'a': a classifier needs"):
        source_of(paths[:2], ["a", "a"])
    with pytest.raises(tlkit.DataError, match=r"image 1: its label is \['cat', 'dog'\]: .*\"multilabel\""):
        source_of(paths[:2], ["cat", ["cat", "dog"]])
    with pytest.raises(tlkit.DataError, match="image 0: an array of float64"):
        source_of([np.zeros((4, 4, 3))], ["a"])


def test_a_csv_file(paths: list[Path], tmp_path: Path) -> None:
    for path in paths:
        shutil.copyfile(path, tmp_path / f"{path.parent.name}{path.name}")
    rows = "".join(f"{path.parent.name}{path.name},{path.parent.name}\n" for path in paths)
    (tmp_path / "pets.csv").write_text(f"path,label\n{rows}")
    assert image_data(tmp_path / "pets.csv", None, Observer()).name == "pets"
    assert [name for _, name in named(source_of(tmp_path / "pets.csv"))] == [
        path.parent.name for path in paths
    ]
