"""Thumbnails, in memory and in a file."""

from __future__ import annotations

import errno
import tempfile
from pathlib import Path

import pytest
import torch

from tlkit.analysis import thumbnails as module
from tlkit.analysis.alignment import coarse_templates
from tlkit.analysis.thumbnails import Thumbnails, as_grey, read_pixels
from tlkit.data.inspection import inspect_images
from tlkit.errors import DataError
from tlkit.experiment.observer import Observer
from tlkit.parts.source import Sample


@pytest.fixture(scope="module")
def images(datasets: Path):
    photos = sorted((datasets / "flowers/train/rose").iterdir())[:4]
    return inspect_images([Sample(photo.name, photo, 0) for photo in photos], threads=1)[0]


@pytest.mark.parametrize("limit", [module.MAX_IN_MEMORY, 1])
def test_thumbnails_of_any_images_are_those_of_their_files(images, limit, monkeypatch):
    monkeypatch.setattr(module, "MAX_IN_MEMORY", limit)
    monkeypatch.setattr(module, "BLOCK", 3)
    everything = as_grey(read_pixels(images, torch.arange(4), 96))
    assert len(everything.unique(dim=0)) == 4
    with Thumbnails(images, Observer()) as thumbnails:
        chosen = torch.tensor([2, 0, 3, 2])
        assert torch.equal(thumbnails.greys(chosen), everything[chosen])
        assert thumbnails.greys(torch.empty(0, dtype=torch.int64)).shape == (0, 96, 96)
        assert torch.equal(thumbnails.templates, coarse_templates(everything))


def test_a_full_disk_is_said_with_the_folder(images, monkeypatch):
    class Full(tempfile.SpooledTemporaryFile):  # type: ignore[type-arg]
        def rollover(self) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "MAX_IN_MEMORY", 1)
    monkeypatch.setattr(tempfile, "SpooledTemporaryFile", Full)
    with pytest.raises(DataError, match=f"written to {tempfile.gettempdir()}: No space left.*TMPDIR"):
        Thumbnails(images, Observer())
