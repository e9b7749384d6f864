"""`tlkit.fit`: many and unequal classes, split folders, and fine-tuning that counts only where it helps."""

from __future__ import annotations

import csv
import shutil
from collections import Counter
from pathlib import Path

import pytest
from tlkit_catsdogs.drawn.kinds import STUDIO
from tlkit_catsdogs.drawn.world import draw

import tlkit


def draw_animals(folder: Path, counts: list[int]) -> Path:
    """Draws animals of the first kinds, as many of each as `counts` says, in a folder per kind."""
    for label, count in enumerate(counts):
        (folder / STUDIO[label].name).mkdir(parents=True)
        for number in range(count):
            content = draw("studio", 9, number * len(STUDIO) + label)
            (folder / STUDIO[label].name / f"{number}.jpg").write_bytes(content)
    return folder


def test_many_unequal_classes(tmp_path: Path) -> None:
    counts = [4 + 3 * (label % 5) for label in range(28)]
    folder = draw_animals(tmp_path / "animals", counts)
    ended = tlkit.fit(folder, backbone="vgg16-quarter", epochs=15, out=tmp_path / "out")
    rows = list(csv.DictReader((ended.folder / "splits.csv").read_text().splitlines()))
    assert len(rows) == sum(counts)
    for split in ("train", "val", "test"):
        assert len({row["label"] for row in rows if row["split"] == split}) == 28
    assert Counter(row["label"] for row in rows)[STUDIO[0].name] == 4
    assert ended.results.phases[-1].test.accuracy > 0.7
    assert tlkit.load(ended.folder).classes == tuple(sorted(kind.name for kind in STUDIO))


def test_existing_splits_are_used(tmp_path: Path) -> None:
    for split, start in (("train", 10), ("test", 4)):
        draw_animals(tmp_path / "animals" / split, [start, start])
    # the test images are among the training images: equal bytes are never in both, and are listed as rejected
    ended = tlkit.fit(tmp_path / "animals", backbone="vgg16-quarter", epochs=1, out=tmp_path / "out")
    data = ended.results.data
    assert (data.test, data.train + data.val, len(data.rejected)) == (8, 12, 8)


def test_fine_tuning_counts_only_where_validation_says_so(tmp_path: Path) -> None:
    folder = draw_animals(tmp_path / "animals", [12, 12])
    first = tlkit.fit(folder, backbone="vgg16-quarter", epochs=3, out=tmp_path / "first")
    ruinous = {"phase.fine-tune.optimizer.lr": 10.0}
    ended = tlkit.run(first.folder, overrides=ruinous, out=tmp_path / "out")
    bottleneck, fine_tune = ended.results.phases
    assert (fine_tune.epochs, fine_tune.best_epoch) == (3, 0)
    images = sorted(folder.rglob("*.jpg"))
    before = tlkit.load(ended.folder, phase="bottleneck").predict_proba(images)
    assert tlkit.load(ended.folder).predict_proba(images) == pytest.approx(before, abs=0.02)
    assert fine_tune.val.accuracy == bottleneck.val.accuracy


def test_too_few_images_and_a_missing_folder_are_reported(tmp_path: Path) -> None:
    folder = draw_animals(tmp_path / "animals", [2, 9])
    with pytest.raises(
        tlkit.TlkitError, match=r"tabby: 2 images, 3 distinct ones needed for train, val, test"
    ):
        tlkit.fit(folder, backbone="vgg16-quarter", out=tmp_path / "out")
    shutil.rmtree(folder)
    with pytest.raises(tlkit.TlkitError, match="does not exist"):
        tlkit.fit(folder, backbone="vgg16-quarter", out=tmp_path / "out")
