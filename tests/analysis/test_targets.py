"""What questions about labelled images can be asked of: whatever `tlkit.fit` takes, with the same answers."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import datasets as hugging_face
import pytest
import torch

import tlkit
from tlkit.analysis.features import read_labelled
from tlkit.analysis.targets import recipe_for
from tlkit.data.images import read_image
from tlkit.experiment.observer import Observer
from tlkit.plugins.loader import load_registry
from tlkit.runtime.devices import one_thread

BACKBONE = "vgg16-quarter"


@pytest.fixture(scope="module")
def folder(by_class: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight photos of each class, one of them twice."""
    root = tmp_path_factory.mktemp("few")
    for kind in ("cat", "dog"):
        (root / kind).mkdir()
        for number in range(1, 9):
            shutil.copyfile(by_class / kind / f"{number}.jpg", root / kind / f"{number}.jpg")
    shutil.copyfile(root / "cat" / "1.jpg", root / "cat" / "9.jpg")
    return root


@pytest.fixture(scope="module")
def photos_in_order(folder: Path) -> list[Path]:
    """The photos in the order in which the folder is read."""
    labelled = read_labelled(recipe_for(folder), load_registry(), Observer())
    return [image.sample.path for image in labelled.images]


@pytest.fixture(scope="module")
def audit(folder: Path) -> tlkit.Audit:
    return tlkit.audit(folder, backbone=BACKBONE)


class Photos(torch.utils.data.Dataset[tuple[Any, str]]):
    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Any, str]:
        return read_image(self.paths[index]), self.paths[index].parent.name


def table(paths: list[Path]) -> hugging_face.Dataset:
    features = hugging_face.Features(
        {"image": hugging_face.Image(), "label": hugging_face.ClassLabel(names=["cat", "dog"])}
    )
    rows = {"image": list(map(str, paths)), "label": [path.parent.name for path in paths]}
    return hugging_face.Dataset.from_dict(rows, features=features)


KINDS = {
    "paths": lambda paths: (paths, [path.parent.name for path in paths]),
    "in memory": lambda paths: ([read_image(path) for path in paths], [path.parent.name for path in paths]),
    "torch": lambda paths: (Photos(paths), None),
    "datasets": lambda paths: (table(paths), None),
}


@pytest.mark.parametrize("kind", KINDS)
def test_an_audit_of_images_in_any_form_finds_what_that_of_their_folder_finds(
    kind: str, folder: Path, photos_in_order: list[Path], audit: tlkit.Audit
) -> None:
    audited = tlkit.audit(*KINDS[kind](photos_in_order), backbone=BACKBONE)
    assert (audited.classes, audited.accuracy) == (audit.classes, audit.accuracy)
    assert len(audited.groups) == len(audit.groups) == 1
    # a review finds the images again, and whoever reads the audit the list
    assert all((Path(audited.root or "") / image.path).is_file() for image in audited.images.values())
    assert Path(audited.target).exists()
    assert audited.name == {"paths": folder.name, "datasets": "dataset"}.get(kind, "images")


def test_the_curve_and_the_choice_of_a_list_are_those_of_its_folder(
    folder: Path, photos_in_order: list[Path]
) -> None:
    listed = KINDS["paths"](photos_in_order)
    with one_thread():
        measured, curve = (tlkit.curve(*images, backbone=BACKBONE) for images in (listed, (folder,)))
        chosen, choice = (tlkit.choose(*images, backbones=BACKBONE) for images in (listed, (folder,)))
    assert (measured.images, measured.measured) == (curve.images, curve.measured)
    assert (chosen.images, chosen.best.scores) == (choice.images, choice.best.scores)


def test_images_without_labels_and_a_recipe_with_labels_are_clear_errors(folder: Path) -> None:
    with pytest.raises(tlkit.DataError, match="images without labels"):
        tlkit.audit([folder / "cat" / "1.jpg"])
    with pytest.raises(tlkit.DataError, match="a recipe names where its labels are"):
        tlkit.choose(recipe_for(folder), ["cat"])
    with pytest.raises(tlkit.DataError, match="17 images and 1 label"):
        tlkit.curve(folder, ["cat"])
