"""Decisions about images: appended, read back, and applied to real photos."""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path

import pytest

from tlkit.data.corrections import apply_corrections
from tlkit.data.corrections_file import HEADER, Correction, Decision, append_correction, read_corrections
from tlkit.data.images import Image
from tlkit.data.inspection import inspect_images
from tlkit.errors import AuditFileError
from tlkit.parts.source import Sample

CLASSES = ("cat", "dog")


@pytest.fixture(scope="module")
def images(by_class: Path) -> list[Image]:
    """Four photos of each class."""
    samples = [
        Sample(f"{kind}/{number}.jpg", by_class / kind / f"{number}.jpg", CLASSES.index(kind))
        for kind in CLASSES
        for number in range(1, 5)
    ]
    inspected, rejected = inspect_images(samples, threads=1)
    assert len(inspected) == 8 and not rejected
    return inspected


@pytest.fixture
def decide(images: list[Image], tmp_path: Path):
    """Appends a decision about one of the photos."""
    hashes = {image.sample.id: image.sha256 for image in images}

    def append(
        image: str, decision: Decision, new_label: str = "", *, label: str = "", other: str = ""
    ) -> Path:
        path = tmp_path / "corrections.csv"
        label = label or image.partition("/")[0]
        row = Correction(image, hashes.get(image, "0" * 64), decision, label, new_label, other, "2026-11-27")
        append_correction(path, row)
        return path

    return append


def applied(path: Path, images: list[Image]):
    return apply_corrections(read_corrections(path), images, [], CLASSES)


def test_labels_are_changed_and_images_left_out(images, decide) -> None:
    decide("cat/1.jpg", "relabel", "dog")
    decide("cat/2.jpg", "keep")
    decide("dog/1.jpg", "unsure")
    decide("dog/3.jpg", "same-photo", other="cat/4.jpg")
    path = decide("dog/2.jpg", "remove")
    corrected = applied(path, images)
    labels = {image.sample.id: CLASSES[image.sample.label] for image in corrected.images}
    assert labels == {
        "cat/1.jpg": "dog",
        "cat/2.jpg": "cat",
        "cat/3.jpg": "cat",
        "cat/4.jpg": "cat",
        "dog/1.jpg": "dog",
        "dog/4.jpg": "dog",
    }
    assert [change.model_dump(by_alias=True) for change in corrected.changes] == [
        {"image": "cat/1.jpg", "from": "cat", "to": "dog"}
    ]
    assert corrected.left_out == (
        ("dog/3.jpg", "removed by corrections.csv: the same photo as cat/4.jpg"),
        ("dog/2.jpg", "removed by corrections.csv"),
    )
    assert corrected.summary == "corrections.csv: 1 label changed, 2 images left out"


def test_the_last_decision_counts_and_undo_cancels_it(images, decide) -> None:
    decide("cat/1.jpg", "remove")
    decide("cat/1.jpg", "relabel", "dog")
    assert [c.image for c in applied(decide("cat/2.jpg", "remove"), images).changes] == ["cat/1.jpg"]
    # a second review of the corrected label keeps that one
    path = decide("cat/1.jpg", "keep", label="dog")
    assert applied(path, images).changes[0].corrected == "dog"
    decide("cat/1.jpg", "undo")
    decide("cat/1.jpg", "undo")
    path = decide("cat/2.jpg", "undo")
    assert applied(path, images).summary == "corrections.csv: 0 labels changed, 1 image left out"
    decide("cat/1.jpg", "undo")
    with pytest.raises(AuditFileError, match=r"line 10: there is no decision about 'cat/1.jpg' to undo"):
        read_corrections(decide("cat/1.jpg", "undo"))


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (("cat/11.jpg", "keep", ""), r"line 3: there is no image 'cat/11.jpg' \(did you mean 'cat/1.jpg'"),
        (("cat/1.jpg", "relabel", "dgo"), r"line 3: there is no class 'dgo' \(did you mean 'dog'\?\)"),
    ],
)
def test_what_does_not_exist_is_an_error_with_its_line(images, decide, row, problem) -> None:
    decide("cat/2.jpg", "keep")
    path = decide(*row)
    with pytest.raises(AuditFileError, match=problem):
        applied(path, images)


def test_decisions_about_other_files_and_labels_are_errors(images, decide, tmp_path: Path) -> None:
    decide("cat/2.jpg", "remove", label="dog")
    decide("cat/3.jpg", "same-photo", other="cat/5.jpg")
    decide("dog/1.jpg", "same-photo", other="dog/2.jpg")
    path = decide("dog/2.jpg", "same-photo", other="dog/1.jpg")
    append_correction(path, Correction("cat/1.jpg", "1" * 64, "remove", "cat"))
    with pytest.raises(AuditFileError) as caught:
        applied(path, images)
    assert str(caught.value).splitlines()[1:] == [
        "  - line 2: 'cat/2.jpg' is labelled 'cat', and was labelled 'dog' when it was reviewed",
        "  - line 3: there is no image 'cat/5.jpg'",
        "  - line 4: 'dog/1.jpg' and 'dog/2.jpg' are both left out for the other",
        "  - line 5: 'dog/2.jpg' and 'dog/1.jpg' are both left out for the other",
        "  - line 6: 'cat/1.jpg' has changed since it was reviewed: it is another file",
        "Correct or remove these lines, or review the images again",
    ]


@pytest.mark.parametrize(
    ("kept", "rows", "cut_short"),
    [
        *((1, 0, True), (30, 0, True), (len(HEADER), 0, False), (len(HEADER) + 1, 0, False)),
        *((80, 0, True), (145, 0, True), (-40, 1, True), (-12, 1, True)),
        (-5, 2, False),  # within the time, which says nothing about the image
    ],
)
def test_a_line_that_is_cut_short_is_no_decision_and_the_next_one_is(
    images, decide, kept: int, rows: int, cut_short: bool
) -> None:
    decide("cat/1.jpg", "relabel", 'a "quoted", word')
    path = decide("cat/2.jpg", "remove")
    path.write_bytes(path.read_bytes()[:kept])
    before = read_corrections(path)
    assert (len(before.rows), before.cut_short) == (rows, cut_short)
    after = read_corrections(decide("dog/1.jpg", "remove"))
    assert after.decisions[:-1] == before.decisions
    assert after.decisions[-1].image == "dog/1.jpg" and not after.cut_short
    with path.open(newline="") as file:
        assert {len(row) for row in csv.reader(file)} == {7}


def test_an_incomplete_last_line_is_said_and_a_complete_one_counts(images, decide) -> None:
    path = decide("cat/1.jpg", "remove")
    path.write_bytes(path.read_bytes() + b"cat/2.jpg,")
    assert applied(path, images).summary.endswith("; its last line is not complete and was ignored")
    decide("cat/2.jpg", "remove")
    path.write_bytes(path.read_bytes().rstrip(b"\n"))  # as some editors do
    assert len(applied(path, images).left_out) == 2
    assert len(applied(decide("cat/3.jpg", "remove"), images).left_out) == 3


def test_malformed_lines_are_all_named(tmp_path: Path) -> None:
    path = tmp_path / "corrections.csv"
    sha256 = hashlib.sha256(b"").hexdigest()
    rows = [
        f"a.jpg,{sha256},drop,cat,,,",
        f"a.jpg,{sha256},relabel,cat,,,",
        "a.jpg,keep",
        "a.jpg,,keep,cat,,,",
    ]
    path.write_text("\n".join([HEADER, *rows, ""]))
    with pytest.raises(AuditFileError) as caught:
        read_corrections(path)
    assert [line.partition(": ")[2] for line in str(caught.value).splitlines()[1:]] == [
        "'drop' is no decision: it must be keep, relabel, remove, same-photo, unsure, undo",
        "new_label must not be empty",
        "has 2 cells, and must have 7",
        "sha256 must not be empty",
    ]
    path.write_text("path,label\n")
    with pytest.raises(AuditFileError, match="its first line must be image,sha256"):
        read_corrections(path)
    with pytest.raises(AuditFileError, match=r"does not exist \(did you mean 'corrections.csv'"):
        read_corrections(tmp_path / "correction.csv")


def test_ids_that_a_spreadsheet_would_run_come_back_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "corrections.csv"
    row = Correction('=1+1/"photo", 1.jpg', "0" * 64, "relabel", "-cat", "+dog", "", "2026")
    append_correction(path, row)
    assert read_corrections(path).decisions == [row]
