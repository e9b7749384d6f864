"""`tlkit audit`: flaws that were planted among real photos are found, written, shown, and can be mended."""

from __future__ import annotations

import csv
import re
import shutil
from pathlib import Path

import pytest
from audits import write_audit
from commands import Completed, command
from PIL import Image

import tlkit
from tlkit.analysis.audit_file import Audit, read_audit
from tlkit.analysis.audit_text import describe_audit
from tlkit.errors import AuditFileError, DataError
from tlkit.reporting.audit_page import write_audit_page


@pytest.fixture(scope="module")
def folder(by_class: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty cats and forty dogs, of which a cat is labelled as a dog; a small copy; a file cut short."""
    root = tmp_path_factory.mktemp("flawed") / "pets"
    for kind in ("cat", "dog"):
        for photo in (by_class / kind).iterdir():
            split = "test" if int(photo.stem) > 30 else "train"
            (root / split / kind).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(photo, root / split / kind / photo.name)
    shutil.move(root / "train/cat/3.jpg", root / "train/dog/not-a-dog.jpg")
    with Image.open(root / "train/dog/5.jpg") as image:
        image.resize((image.width // 2, image.height // 2)).save(root / "test/dog/small.jpg")
    (root / "train/cat/cut.jpg").write_bytes((root / "train/cat/4.jpg").read_bytes()[:3000])
    return root


@pytest.fixture(scope="module")
def completed(folder: Path, weights: Path) -> Completed:
    """The command, with everything it can write."""
    out, fix = folder.parent / "audit", folder.parent / "splits.csv"
    return command("audit", folder, "--backbone", f"local-dir:{weights}", "--out", out, "--fix", fix)


@pytest.fixture(scope="module")
def audit(completed: Completed, folder: Path) -> Audit:
    assert completed.returncode == 0, completed.stderr
    return read_audit(folder.parent / "audit")


def test_planted_flaws_are_found(audit: Audit) -> None:
    assert "train/dog/not-a-dog.jpg" in [suspect.image for suspect in audit.labels.suspects]
    suspect = next(item for item in audit.labels.suspects if item.image == "train/dog/not-a-dog.jpg")
    assert (suspect.label, suspect.suggested) == ("dog", "cat")
    assert [pair.images for pair in audit.pairs] == [("test/dog/small.jpg", "train/dog/5.jpg")]
    (group,) = audit.groups
    assert group.across_splits and not group.across_labels
    assert [item.image for item in audit.rejected] == ["train/cat/cut.jpg"]
    assert audit.classes == {"cat": 39, "dog": 42}
    assert audit.accuracy is not None and audit.accuracy > 0.9


def test_every_image_that_is_named_is_described_with_its_neighbours(audit: Audit, folder: Path) -> None:
    named = {suspect.image for suspect in audit.labels.suspects}
    named |= {image for group in audit.groups for image in group.images}
    assert named <= set(audit.images)
    copy = audit.images["test/dog/small.jpg"]
    assert (copy.label, copy.split) == ("dog", "test")
    assert copy.neighbours[0].image == "train/dog/5.jpg"
    assert (folder / copy.neighbours[0].path).is_file()


def test_the_console_says_what_was_found(completed: Completed, audit: Audit) -> None:
    for sentence in describe_audit(audit):
        assert sentence in completed.stdout
    assert "2 images are copies of one another, in 1 group: 1 across splits" in completed.stdout
    assert "Copies across splits: test/dog/small.jpg and train/dog/5.jpg." in completed.stdout
    assert "train/dog/not-a-dog.jpg   dog     cat" in completed.stdout
    assert "tlkit review" in completed.stdout


def test_the_page_shows_it(audit: Audit, folder: Path) -> None:
    page = (folder.parent / "audit" / "audit.html").read_text()
    assert "labelled <strong>dog</strong>, probably <strong>cat</strong>" in page
    assert "2 copies, in several splits" in page
    pictures = list((folder.parent / "audit" / "pictures").iterdir())
    assert page.count("<img") >= len(pictures) > 3
    assert "not shown" not in page
    assert {point.label for point in audit.map} == {"cat", "dog"} and len(audit.map) == 81
    chart = (folder.parent / "audit" / "pictures" / "map.svg").read_text()
    assert "label may be wrong" in chart and "All images. Those that" in page


def test_a_caption_has_the_split_of_a_suspect_and_not_of_a_neighbour(datasets: Path, tmp_path: Path) -> None:
    audit = read_audit(write_audit(tmp_path / "audit", tmp_path / "photos", datasets / "flowers"))
    page = write_audit_page(audit, tmp_path / "audit").read_text()
    rows = re.findall(r'<td class="thumbnail">(.*?)</td>.*?<div class="neighbours">(.*?)</div>', page, re.S)
    assert len(rows) == 14  # most of which are neighbours of others, too
    assert all("(train)" in suspect and "(train)" not in neighbours for suspect, neighbours in rows)


def test_fixed_splits_keep_copies_together_and_a_recipe_takes_them(
    completed: Completed, folder: Path
) -> None:
    with (folder.parent / "splits.csv").open(newline="") as file:
        split_of = {row["image"]: row["split"] for row in csv.DictReader(file)}
    assert split_of["train/dog/5.jpg"] == split_of["test/dog/small.jpg"] == "test"
    assert len(split_of) == 81
    assert "81 images" in completed.stdout and "1 image moved" in completed.stdout


def test_the_images_are_not_touched(audit: Audit, folder: Path, by_class: Path) -> None:
    assert (folder / "train/dog/not-a-dog.jpg").read_bytes() == (by_class / "cat/3.jpg").read_bytes()
    assert {path.name for path in folder.iterdir()} == {"train", "test"}


@pytest.mark.usefixtures("shared_cache")
def test_python_returns_the_same(audit: Audit, folder: Path, weights: Path) -> None:
    again = tlkit.audit(folder, backbone=f"local-dir:{weights}")
    assert again == audit


def test_a_target_that_cannot_be_audited(tmp_path: Path, by_class: Path) -> None:
    with pytest.raises(DataError, match="does not exist: name a folder per class"):
        tlkit.audit(tmp_path / "nothing")
    lonely = tmp_path / "lonely"
    (lonely / "cat").mkdir(parents=True)
    shutil.copyfile(by_class / "cat/1.jpg", lonely / "cat/1.jpg")
    with pytest.raises(DataError):
        tlkit.audit(lonely)
    (tmp_path / "audit.json").write_text('{"schema": 1, "name": 3}')
    with pytest.raises(AuditFileError, match="name: must be a valid string"):
        read_audit(tmp_path)
