"""The images that patterns name, which some shells do not expand."""

from __future__ import annotations

from pathlib import Path

import pytest

from tlkit.data.image_paths import image_paths


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*", ["a/1.jpg", "a/deep/2.jpg", "b/3.jpg", "c.jpg", "d.txt"]),
        ("[ab]", ["a/1.jpg", "a/deep/2.jpg", "b/3.jpg"]),
        ("**", ["a/1.jpg", "a/deep/2.jpg", "b/3.jpg", "c.jpg"]),
        ("**/*.jpg", ["a/1.jpg", "a/deep/2.jpg", "b/3.jpg", "c.jpg"]),
        ("**/deep", ["a/deep/2.jpg"]),
    ],
)
def test_folders_that_a_pattern_matches_are_searched(
    tmp_path: Path, pattern: str, expected: list[str]
) -> None:
    for name in ("a/1.jpg", "a/deep/2.jpg", "a/notes.txt", "b/3.jpg", "c.jpg", "d.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    listed = image_paths([f"{tmp_path}/{pattern}"], ())
    assert sorted(Path(path).relative_to(tmp_path).as_posix() for path in listed) == expected
